"""Types of gRPC's objects: the context of a call, and the messages of Triton's protocol as the gateway uses them.

The message classes are those of `tritonclient.grpc.service_pb2`, which has no types.
"""
# ruff: noqa: D102, D105, N802 - methods and names are the libraries'

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class CallContext(Protocol):
    """`grpc.aio.ServicerContext` of a call with messages of bytes; `read` also gives `grpc.aio.EOF`."""

    def peer(self) -> str: ...
    def done(self) -> bool: ...
    def invocation_metadata(self) -> Iterable[tuple[str, str]] | None: ...
    async def read(self) -> bytes: ...
    async def write(self, message: bytes) -> None: ...
    async def abort(self, code: object, details: str, trailing_metadata: tuple[tuple[str, str], ...]) -> None: ...


class Message(Protocol):
    """Any protocol-buffers message."""

    def SerializeToString(self) -> bytes: ...


class NamedModel(Message, Protocol):
    """A query about one version of a model."""

    name: str
    version: str


class Repeated(Protocol[T_co]):
    """A repeated field of messages; `add` appends one."""

    def add(self, **fields: object) -> T_co: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> T_co: ...


class Parameter(Protocol):
    """`InferParameter`: one of these fields is set, and `WhichOneof` names it."""

    bool_param: bool
    int64_param: int
    string_param: str
    double_param: float

    def WhichOneof(self, name: str) -> str | None: ...
    def CopyFrom(self, other: Parameter) -> None: ...


class Field(Protocol):
    """A field's descriptor."""

    name: str


class TensorContents(Protocol):
    """`InferTensorContents`: typed elements, in one field for each kind."""

    bytes_contents: list[bytes]

    def ListFields(self) -> Sequence[tuple[Field, object]]: ...


class InferTensor(Protocol):
    """An input or output, with its content in the message's raw contents or, for inputs, in `contents`."""

    name: str
    datatype: str
    shape: Sequence[int]
    parameters: Mapping[str, Parameter]
    contents: TensorContents

    def HasField(self, name: str) -> bool: ...


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
    outputs: Repeated[InferTensor]
    raw_output_contents: Sequence[bytes]

    def ByteSize(self) -> int: ...
