"""Local connections of the project use no proxy of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("id3pm", "client/src", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
REGISTRY = ROOT / "id3pm/artifacts/oci_registry.py"  # may be on another machine; says itself when it takes no proxy
CHANNELS = ("insecure_channel(", "secure_channel(", ".InferenceServerClient(")


def test_every_grpc_channel_says_whether_it_takes_a_proxy() -> None:
    makers = [path for path in FILES if any(word in path.read_text() for word in CHANNELS)]
    assert len(makers) >= 3
    for path in makers:
        text = path.read_text()
        assert "grpc.enable_http_proxy" in text or "NO_PROXY_ARG" in text, path


@pytest.mark.parametrize("word", ["urlopen(", "import requests", "trust_env=True"])
def test_http_is_asked_with_what_takes_no_proxy_by_itself(word: str) -> None:
    assert not [path for path in FILES if word in path.read_text() and path != REGISTRY]


def test_a_registry_on_this_machine_is_asked_without_a_proxy() -> None:
    from id3pm.artifacts.address import parse_address
    from id3pm.artifacts.oci_registry import _provider

    assert not _provider(parse_address("oci://localhost:5000/a:v1"), "token").session.trust_env
    assert _provider(parse_address("oci://registry.example/a:v1"), "token").session.trust_env
