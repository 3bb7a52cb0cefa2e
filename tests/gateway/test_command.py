"""`id3pm serve` refuses options that an operator cannot have meant, before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from id3pm.errors import ConfigError
from id3pm.gateway.command import serve_command


def serve(*options: str) -> Result:
    return CliRunner().invoke(serve_command, ["--repository=nowhere", *options])


def refused(*options: str) -> str:
    result = serve(*options)
    assert isinstance(result.exception, ConfigError), result.exception
    return str(result.exception)


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


@pytest.mark.parametrize(
    "option", ["--max-body=0", "--max-body=-1", "--http-port=70000", "--tokens=missing.toml", "--accept=nothing"]
)
def test_values_out_of_range_are_refused(option: str) -> None:
    assert serve(option).exit_code == 2
