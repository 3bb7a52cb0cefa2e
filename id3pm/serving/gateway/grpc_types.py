"""Types of gRPC's objects, which have none of their own: the context of a call, and the messages of Triton's protocol.

The message classes are those of `tritonclient.grpc.service_pb2`; here is what the gateway uses of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class CallContext(Protocol):
    """`grpc.aio.ServicerContext` of a call whose messages are bytes."""

    def peer(self) -> str:
        """The other end: `ipv4:ADDRESS:PORT`."""

    def done(self) -> bool:
        """Whether the call has ended."""

    def invocation_metadata(self) -> Iterable[tuple[str, str]] | None:
        """Names in lower case, with their values."""

    async def read(self) -> bytes:
        """The next message, or `grpc.aio.EOF`."""

    async def write(self, message: bytes) -> None:
        """Sends a message."""

    async def abort(self, code: object, details: str) -> None:
        """Ends the call with a status; always raises."""


class Message(Protocol):
    """Any protocol-buffers message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - the library's name
        """As it goes over the wire."""


class NamedModel(Message, Protocol):
    """A question about one version of a model."""

    name: str
    version: str


class Repeated(Protocol[T_co]):
    """A repeated field of messages."""

    def add(self, **fields: object) -> T_co:
        """Appends a message."""

    def __iter__(self) -> Iterator[T_co]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> T_co: ...


class Parameter(Protocol):
    """`InferParameter`: one of these fields is set."""

    bool_param: bool
    int64_param: int
    string_param: str
    double_param: float

    def WhichOneof(self, name: str) -> str | None:  # noqa: N802 - the library's name
        """The field that is set."""

    def CopyFrom(self, other: Parameter) -> None:  # noqa: N802 - the library's name
        """Takes the value of another."""


class Field(Protocol):
    """A field's descriptor."""

    name: str


class TensorContents(Protocol):
    """`InferTensorContents`: typed elements, in one field for each kind."""

    bytes_contents: list[bytes]

    def ListFields(self) -> Sequence[tuple[Field, object]]:  # noqa: N802 - the library's name
        """The fields that are set."""


class InferTensor(Protocol):
    """An input or output, with its content in the message's raw contents or, for inputs, in `contents`."""

    name: str
    datatype: str
    shape: Sequence[int]
    parameters: Mapping[str, Parameter]
    contents: TensorContents

    def HasField(self, name: str) -> bool:  # noqa: N802 - the library's name
        """Whether a field is set."""


class InferRequest(Message, Protocol):
    """`ModelInferRequest`. A parameter that is not there is made when it is looked up."""

    model_name: str
    model_version: str
    id: str
    parameters: Mapping[str, Parameter]
    inputs: Repeated[InferTensor]
    outputs: Repeated[InferTensor]
    raw_input_contents: list[bytes]


class InferResponse(Message, Protocol):
    """`ModelInferResponse`."""

    model_name: str
    model_version: str
    id: str
    parameters: Mapping[str, Parameter]
    outputs: Repeated[InferTensor]
    raw_output_contents: Sequence[bytes]

    def ByteSize(self) -> int:  # noqa: N802 - the library's name
        """Bytes over the wire."""
