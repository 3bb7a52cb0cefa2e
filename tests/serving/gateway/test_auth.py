"""Tokens, what each may send, and the refusal of public hosts without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from id3pm.errors import ConfigError
from id3pm.serving.gateway.auth import ANYONE, MODELS, Access, check_exposure, read_tokens
from id3pm.serving.protocol import served_models
from id3pm.serving.protocol.status import RefusedError

WEB, LAB = "w" * 16, "l" * 20
FILE = f"""
[[caller]]
name = "web page"
token = "{WEB}"
may_send = ["photo"]

[[caller]]
name = "lab"
token = "{LAB}"
may_send = ["photo", "vector"]
"""


@pytest.fixture
def access(tmp_path: Path) -> Access:
    (tmp_path / "tokens.toml").write_text(FILE)
    return read_tokens(tmp_path / "tokens.toml")


def test_a_token_says_who_it_is(access: Access) -> None:
    assert access.caller(f"Bearer {WEB}").name == "web page"
    assert access.caller(f"bearer  {LAB}").name == "lab"


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer ", f"Basic {WEB}", WEB, f"Bearer {WEB}x", "Bearer ü", "Bearer \udcff"]
)
def test_without_a_known_token_nobody_is_let_in(access: Access, sent: str | None) -> None:
    with pytest.raises(RefusedError, match="token") as caught:
        access.caller(sent)
    assert caught.value.code == "unauthenticated"
    assert WEB not in str(caught.value)


def test_a_caller_may_send_what_the_file_says_and_nothing_else(access: Access) -> None:
    web = access.caller(f"Bearer {WEB}")
    for model in ("id3pm_photo", "id3pm_photo_png", "face_embedding", "super_resolution"):
        web.require(model)
    for model in ("id3pm", "id3pm_png", "denoiser_64"):
        with pytest.raises(RefusedError, match=f"web page may not send ID vectors, which {model} takes") as caught:
            web.require(model)
        assert caught.value.code == "permission_denied"


def test_without_tokens_everybody_may_send_everything() -> None:
    caller = Access().caller(None)
    assert caller is ANYONE
    for model in MODELS:
        caller.require(model)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(
    ("accept", "taken", "refused"),
    [
        (("photo",), ("id3pm_photo", "id3pm_photo_png", "face_embedding"), ("id3pm", "id3pm_png", "denoiser_64")),
        (("vector",), ("id3pm", "id3pm_png", "denoiser_64"), ("id3pm_photo", "id3pm_photo_png", "face_embedding")),
    ],
)
def test_what_the_service_does_not_accept_nobody_may_send(
    tmp_path: Path, accept: tuple[str, ...], taken: tuple[str, ...], refused: tuple[str, ...], limited: bool
) -> None:
    (tmp_path / "tokens.toml").write_text(FILE)
    access = read_tokens(tmp_path / "tokens.toml", accept) if limited else Access(accept=accept)
    caller = access.caller(f"Bearer {LAB}" if limited else None)
    for model in (*taken, "super_resolution"):
        caller.require(model)
    for model in refused:
        with pytest.raises(RefusedError, match=f"{caller.name} may not send") as caught:
            caller.require(model)
        assert caught.value.code == "permission_denied"


def test_accepting_a_kind_gives_nobody_a_right(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text(FILE)
    web = read_tokens(tmp_path / "tokens.toml", ("vector",)).caller(f"Bearer {WEB}")
    for model in ("id3pm", "id3pm_photo"):
        with pytest.raises(RefusedError):
            web.require(model)


def test_every_model_of_the_repository_is_served() -> None:
    assert set(MODELS) == set(served_models.MODELS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("caller = 1", "expected tables"),
        ("", "expected tables"),
        ("[[caller", "is not TOML"),
        (FILE + "[other]", "expected tables"),
        (FILE.replace("may_send", "may"), "caller 1 has name, token, may: needs exactly"),
        (FILE.replace(WEB, "short"), "at least 16 characters"),
        (FILE.replace('["photo"]', '["photos"]'), r"may_send=\['photos'\]: list some of photo, vector"),
        (FILE.replace('["photo"]', "[]"), "list some of"),
        (FILE.replace(WEB, LAB), "the same token"),
    ],
)
def test_a_wrong_tokens_file_says_what_is_wrong_and_shows_no_token(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "tokens.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_tokens(tmp_path / "tokens.toml")
    assert WEB not in str(caught.value) and LAB not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "faces.example"])
def test_other_machines_are_let_in_only_with_tokens_or_on_purpose(access: Access, host: str) -> None:
    with pytest.raises(ConfigError, match=f"--host {host} .* --tokens FILE, or --insecure"):
        check_exposure(host, Access(), insecure=False)
    check_exposure(host, Access(), insecure=True)
    check_exposure(host, access, insecure=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_needs_no_token(host: str) -> None:
    check_exposure(host, Access(), insecure=False)
