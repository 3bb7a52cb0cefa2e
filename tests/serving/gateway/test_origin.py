"""The origin of a request, and how it is passed to the stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.auth import ANYONE, read_tokens
from id3pm.serving.gateway.origin import Origin, grpc_peer, origin_of, refuse_reserved
from id3pm.serving.protocol.status import RefusedError
from id3pm.serving.protocol.wire import CALLER, OWNER, RESERVED, RequestKey

MARKS = {OWNER: "o", CALLER: "c"}
ORIGIN = Origin("o", "c")


def test_a_message_says_whose_it_is_whatever_it_said_itself() -> None:
    message = service_pb2.ModelInferRequest(model_name="m", id="x")
    message.parameters["seed"].int64_param = 1
    message.parameters[OWNER].string_param = "forged"
    ORIGIN.mark(message)
    assert {name: message.parameters[name].string_param for name in RESERVED} == MARKS
    assert message.parameters["seed"].int64_param == 1 and len(message.parameters) == 3


@pytest.mark.parametrize("name", RESERVED)
def test_nobody_else_says_it(name: str) -> None:
    refuse_reserved(["seed", "X-Id3pm-Owner", ""])
    with pytest.raises(RefusedError, match=f"{name}: this name is the server's own"):
        refuse_reserved(["seed", name])


def test_a_token_owns_its_ids_and_never_shows_itself(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    tables = [f'[[caller]]\nname = "same"\ntoken = "token-number-{i:04}"\nmay_send = ["photo"]\n' for i in range(2)]
    file.write_text("".join(tables))
    access = read_tokens(file)
    first, second = (access.caller(f"Bearer token-number-{i:04}") for i in range(2))
    assert first.owner != second.owner
    assert read_tokens(file, accept=("photo",)).caller("Bearer token-number-0000").owner == first.owner
    origin = origin_of(first, "10.0.0.7", 1)
    assert origin == origin_of(first, "10.9.9.9", 2) and origin.key("x") == RequestKey(first.owner, "x")
    assert "token" not in str(origin) and len(origin.owner) == 32


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("10.0.0.7", 1), ("10.0.0.7", 2), True),
        (("10.0.0.7", 1), ("10.0.0.8", 1), False),
        (("::ffff:10.0.0.7", 1), ("10.0.0.7", 2), True),
        (("2001:db8::1", 1), ("2001:db8::ffff:2", 2), True),
        (("2001:db8::1", 1), ("2001:db8:0:1::1", 1), False),
        (("127.0.0.1", 1), ("127.0.0.1", 2), False),  # connections of one machine
        (("127.0.0.1", 1), ("127.0.0.1", 1), True),
        (("::1", 1), ("::1", 2), False),
        ((None, None), (None, None), True),
        (("no address", 1), ("no address", 2), True),
    ],
)
def test_without_tokens_a_share_is_for_an_address_and_ids_are_for_all(
    one: tuple[str | None, int | None], other: tuple[str | None, int | None], same: bool
) -> None:
    first, second = origin_of(ANYONE, *one), origin_of(ANYONE, *other)
    assert (first.caller == second.caller) is same
    assert first.owner == second.owner == ANYONE.owner


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("ipv4:10.0.0.7:41000", ("10.0.0.7", 41000)),
        ("ipv6:%5B::1%5D:41000", ("::1", 41000)),
        ("ipv6:[2001:db8::1]:7", ("2001:db8::1", 7)),
        ("unix:/tmp/socket", (None, None)),
        ("", (None, None)),
        ("ipv4:", (None, None)),
    ],
)
def test_grpc_tells_the_peer_in_its_own_way(peer: str, found: tuple[str | None, int | None]) -> None:
    assert grpc_peer(peer) == found
