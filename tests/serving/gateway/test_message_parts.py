"""A gRPC message that would become many times its size is not parsed."""

from __future__ import annotations

import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.message_parts import check_parts
from id3pm.serving.protocol.limits import MAX_MESSAGE_PARTS, MAX_NUMBERS
from id3pm.serving.protocol.status import RefusedError


def nested(*numbers: int, content: bytes) -> bytes:
    """A field within fields."""
    for number in reversed(numbers):
        size, length = len(content), b""
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        content = bytes([number << 3 | 2]) + length + bytes([size]) + content
    return content


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_millions_of_empty_parts_are_refused(number: int) -> None:
    with pytest.raises(RefusedError, match=f"more than {MAX_MESSAGE_PARTS} fields"):
        check_parts(bytes([number << 3 | 2, 0]) * 2**25)


@pytest.mark.parametrize("path", [(5,), (5, 5)])
def test_so_are_they_within_an_input(path: tuple[int, ...]) -> None:
    with pytest.raises(RefusedError, match="fields"):
        check_parts(nested(*path, content=b"\x42\x00" * 2**20))


def test_numbers_that_grow_are_refused_and_raw_ones_are_not() -> None:
    many = bytes(MAX_NUMBERS * 10 + 1)
    with pytest.raises(RefusedError, match="bytes of numbers"):
        check_parts(nested(5, 5, 3, content=many))
    parts = nested(5, content=nested(5, 3, content=many[: len(many) // 4]))
    with pytest.raises(RefusedError, match="bytes of numbers"):
        check_parts(5 * parts)
    check_parts(3 * parts)
    check_parts(nested(7, content=many))
    check_parts(nested(5, 5, 8, content=many))


def test_usual_messages_pass() -> None:
    message = service_pb2.ModelInferRequest(model_name="id3pm", id="x")
    for name in ("embedding", "seed", "steps"):
        tensor = message.inputs.add(name=name, datatype="FP32", shape=[16, 512])
        tensor.contents.fp32_contents.extend([0.5] * 16 * 512)
        message.outputs.add(name=name)
        message.parameters[name].int64_param = 2**40
    check_parts(message.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"\x2a\xff\xff\xff\xff\x7f", b"\x0b", b"\x2a", b"\x09\x00"])
def test_what_is_no_message_is_left_to_the_parser(data: bytes) -> None:
    check_parts(data)
