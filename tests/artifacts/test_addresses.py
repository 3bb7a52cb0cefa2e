"""Which texts are addresses, and which of them are pinned."""

from __future__ import annotations

import pytest

from id3pm.artifacts.address import parse_address
from id3pm.errors import TransferError

COMMIT, DIGEST = "a" * 40, "sha256:" + "b" * 64


@pytest.mark.parametrize(
    "text",
    [
        f"hf://lab/faces@{COMMIT}",
        f"oci://registry.example/faces/demo@{DIGEST}",
        f"oci://localhost:5000/demo@{DIGEST}",
        f"oci://[::1]:5000/demo@{DIGEST}",
    ],
)
def test_a_commit_or_a_digest_is_pinned(text: str) -> None:
    address = parse_address(text)
    assert address.is_pinned and str(address) == text
    address.require_pinned()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hf://lab/faces", "no version is named.*40 hexadecimal digits"),
        ("hf://lab/faces@main", "'main' may be other files tomorrow.*40 hexadecimal digits.*pull --resolve"),
        ("hf://lab/faces@" + "a" * 39, "may be other files tomorrow"),
        ("oci://registry.example/demo", "no version is named.*sha256"),
        ("oci://registry.example/demo:v1", "'v1' may be other files tomorrow.*64 hexadecimal digits"),
    ],
)
def test_what_moves_is_refused_with_the_rule(text: str, wanted: str) -> None:
    with pytest.raises(TransferError, match=wanted):
        parse_address(text).require_pinned()


@pytest.mark.parametrize(
    "text",
    [
        "hf://lab",
        "hf://lab/faces/more@" + COMMIT,
        "hf://../faces@" + COMMIT,
        "hf://lab/a..b@" + COMMIT,
        "hf://lab/faces@../../x",
        "hf://lab/faces@" + COMMIT + "?x=1",
        "hf://user:password@lab/faces",
        "oci://demo@" + DIGEST,
        "oci://registry/demo@" + DIGEST,
        "oci://user:password@registry.example/demo",
        "oci://registry.example/../demo@" + DIGEST,
        "oci://registry.example/Demo@" + DIGEST,
        "oci://registry.example/demo@sha256:abc",
        "oci://registry.example/demo@" + DIGEST + "/x",
        "oci://registry.example/demo:a b",
        "oci://registry.example/demo@" + DIGEST + "\n",
        "oci://" + "a" * 600,
        "s3://bucket/x",
        "",
    ],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(TransferError):
        parse_address(text)
