"""`id3pm serve` refuses invalid options before it starts a process."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from id3pm.errors import ConfigError
from id3pm.serving import signals as module
from id3pm.serving.command import serve_command
from id3pm.serving.gateway.auth import Access, Caller
from id3pm.serving.gateway.options import GatewayOptions, Tls
from id3pm.serving.overview import curl_command
from id3pm.serving.signals import Signals

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def serve(*options: str) -> Result:
    return CliRunner().invoke(serve_command, ["--repository=nowhere", *options])


def refused(*options: str) -> str:
    result = serve(*options)
    assert isinstance(result.exception, ConfigError), result.exception
    return str(result.exception)


@pytest.mark.parametrize(
    "option",
    [
        *(
            f"--{name}={value}"
            for name in ("max-body", "max-bodies")
            for value in ("inf", "nan", "1e-7", "0", "-1", "1e9")
        ),
        *(f"--{name}-timeout={value}" for name in ("drain", "start") for value in ("inf", "nan", "-1", "1e9")),
        *(f"--threads={value}" for value in ("0", "nan", "1000000000")),
        *(f"--{name}-port={value}" for name in ("http", "grpc", "metrics") for value in ("-1", "65536", "nan")),
    ],
)
def test_numbers_without_a_meaning_are_refused_with_the_range(option: str) -> None:
    result = serve(option)
    assert result.exit_code == 2 and f"Invalid value for '{option.partition('=')[0]}'" in result.output


@pytest.mark.parametrize(
    "numbers", [{"max_body": 0}, {"max_body": 2**31}, {"max_bodies": 1}, {"body_s": math.nan}, {"write_s": math.inf}]
)
def test_so_are_they_from_python(numbers: dict[str, Any]) -> None:
    (name,) = numbers
    with pytest.raises(ConfigError, match=rf"^{name}=.*: must be between"):
        GatewayOptions(**numbers)


def test_the_network_is_not_let_in_by_accident() -> None:
    said = refused("--host=0.0.0.0")
    assert said.startswith("--host 0.0.0.0 lets other machines send requests without a token: give --tokens FILE")


def test_a_tokens_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text("[[caller]]\nname = 'x'\n")
    said = refused(f"--tokens={tmp_path / 'tokens.toml'}", "--host=0.0.0.0")
    assert said == "tokens.toml: caller 1 has name: needs exactly name, token and may_send"


def test_certificate_and_key_are_checked(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    both = [f"--tls-{part}={tmp_path / 'key.pem'}" for part in ("key", "certificate")]
    assert refused(*both) == "--tls-certificate and --tls-key are no PEM files of one pair"
    for option in both:
        result = serve(option)
        assert result.exit_code == 2 and "belong together: give both or none" in result.output


def test_an_encrypted_key_is_refused_instead_of_asked_for_its_pass_phrase(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    both = (f"--tls-key={key}", f"--tls-certificate={certificate}")
    assert refused(*both) == "--tls-key is encrypted: give one without a pass phrase"


@pytest.mark.parametrize(
    "option", ["--max-body=0", "--max-body=-1", "--http-port=70000", "--tokens=missing.toml", "--accept=nothing"]
)
def test_values_out_of_range_are_refused(option: str) -> None:
    assert serve(option).exit_code == 2


def test_the_readmes_curl_command_is_the_one_that_serve_prints() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert curl_command("http://127.0.0.1:8000", GatewayOptions(), "demo/people/03.png", "out/face.png") in readme


def test_the_curl_command_fits_the_options() -> None:
    """tests/integration/test_server_lifecycle.py runs it."""
    plain = curl_command("http://a:1", GatewayOptions())
    assert "curl -sS http://a:1/v2" in plain and "base64 -w0 photo.jpg;" in plain
    access = Access([(b"0123456789abcdef", Caller("lab", ("photo",)))])
    options = GatewayOptions(access=access, tls=Tls(Path("my cert.pem"), Path("key.pem")))
    told = curl_command("https://a:1", options)
    assert """curl -sS --cacert 'my cert.pem' -H "Authorization: Bearer $TOKEN" https://a:1/v2""" in told


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Signals]]:
    """The handlers of a command whose stdin is this file."""
    before = {number: signal.getsignal(number) for number in HANDLED}

    def handle(stdin: int) -> Signals:
        monkeypatch.setattr(module, "_STDIN", stdin)
        made = Signals()
        made.ready = True
        made.handle(lambda: None)
        return made

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sighup_reloads_and_a_closed_terminal_stops(signals: Callable[[int], Signals]) -> None:
    master, terminal = os.openpty()
    asked = signals(terminal)
    signal.raise_signal(signal.SIGHUP)
    assert asked.reload and not asked.stop
    os.close(master)
    signal.raise_signal(signal.SIGHUP)
    os.close(terminal)
    assert asked.stop


def test_without_a_terminal_sighup_always_reloads_and_others_do_nothing(signals: Callable[[int], Signals]) -> None:
    reading, writing = os.pipe()
    asked = signals(reading)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.raise_signal(number)
    assert not (asked.reload or asked.stop)
    os.close(reading)
    os.close(writing)
    signal.raise_signal(signal.SIGHUP)
    assert asked.reload and not asked.stop
