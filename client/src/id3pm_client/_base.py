"""What both clients share: settings, building requests, reading answers. No I/O."""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from id3pm_client import _contract as contract
from id3pm_client._arguments import (
    as_seeds,
    as_timeout,
    as_vectors,
    broadcast_length,
    option_tensor,
    text_tensor,
)
from id3pm_client._errors import InternalServerError, InvalidRequestError
from id3pm_client._flight import Call, Flight, Retry, RetryBudget, Tensors
from id3pm_client._images import Embedding, GeneratedImage, Photo, photo_bytes

DEFAULT_URL = "127.0.0.1:8001"
# Questions about a request (cancel, ping) are answered within milliseconds, or the server is in trouble.
CONTROL_TIMEOUT_S = 5.0

TransportT = TypeVar("TransportT")
Seeds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
OnImage: TypeAlias = Callable[[int, GeneratedImage], None]


@dataclasses.dataclass(frozen=True)
class ServerInfo:
    """What a server says about itself.

    Attributes:
        name: Name of the server, such as `triton`.
        version: Its version.
        ready: Whether it takes requests.
        models: Readiness of each model that this client uses.
    """

    name: str
    version: str
    ready: bool
    models: Mapping[str, bool]


@dataclasses.dataclass(frozen=True)
class Connection:
    """How a server is reached.

    Attributes:
        url: `host:port` of its gRPC endpoint.
        ssl: Encrypt the connection.
        root_certificates: PEM file with the certificates to trust, or `None` for the system's.
        headers: Sent with every request, for example the token of a restricted server.
    """

    url: str = DEFAULT_URL
    ssl: bool = False
    root_certificates: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if "://" in self.url or ":" not in self.url:
            raise InvalidRequestError(f"url={self.url!r}: give host:port of the gRPC endpoint, such as {DEFAULT_URL}")
        if self.root_certificates is not None and not self.ssl:
            raise InvalidRequestError("root_certificates has no effect without ssl=True")


class BaseClient(abc.ABC, Generic[TransportT]):
    """Settings of a client, and everything about requests and answers that needs no I/O."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 300.0,
        max_in_flight: int = 16,
        retry: Retry | None = None,
        ssl: bool = False,
        root_certificates: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: TransportT | None = None,
    ) -> None:
        """Prepares a client; the connection is made with the first request.

        Args:
            url: `host:port` of the server's gRPC endpoint.
            timeout_s: Seconds that one request may take from its first sending, retries included.
            max_in_flight: How many requests this client keeps on the way at once.
            retry: How often and when to send again what an unavailable server refused; `Retry()` by default.
            ssl: Encrypt the connection.
            root_certificates: PEM file with the certificates to trust, or `None` for the system's. Needs `ssl`.
            headers: Sent with every request. For a server restricted with
                `--grpc-restricted-protocol=inference:KEY=VALUE`, `{"triton-grpc-protocol-KEY": VALUE}`.
            transport: Stands in for gRPC; for tests and other wires.

        Raises:
            InvalidRequestError: A setting breaks a rule.
            OSError: The certificates cannot be read.
        """
        if isinstance(max_in_flight, bool) or not isinstance(max_in_flight, int) or max_in_flight < 1:
            raise InvalidRequestError(f"max_in_flight={max_in_flight!r}: must be an integer of at least 1")
        self.timeout_s = as_timeout("timeout_s", timeout_s)
        self.max_in_flight = max_in_flight
        self._connection = Connection(url, ssl, root_certificates, MappingProxyType(dict(headers or {})))
        self._retry = Retry() if retry is None else retry
        self._budget = RetryBudget(self._retry.budget)
        self._transport = self._open(self._connection) if transport is None else transport
        self._closed = False
        self._prepare()

    @abc.abstractmethod
    def _open(self, connection: Connection) -> TransportT:
        """The transport to a server, not yet connected."""

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Sets up what only this kind of client needs."""

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this client has been closed: make a new one")

    def _generation(
        self, embedding: object, seed: object, with_64: bool, timeout_s: float | None, options: Mapping[str, object]
    ) -> Generation:
        """The requests for `generate`: one per image."""
        vectors = as_vectors("embedding", embedding)
        seeds, one_seed = as_seeds(seed)
        tensors, attributes = _option_tensors(options)
        rows = {"embedding": np.atleast_2d(vectors), "attributes": attributes}
        lengths = {name: len(row) for name, row in rows.items() if row is not None}
        count = broadcast_length({**lengths, "seed": len(seeds)})
        single = one_seed and vectors.ndim == 1 and (attributes is None or len(attributes) == 1)

        seeds = seeds * count if len(seeds) == 1 else seeds
        calls = []
        for i in range(count):
            own = {name: row[i % len(row)][None] for name, row in rows.items() if row is not None}
            inputs = {**own, "seed": np.array([[seeds[i]]], dtype=np.int64), **tensors}
            calls.append(Call(contract.ID3PM, inputs, _wanted(with_64)))
        return Generation(self._flights(calls, timeout_s, seeds, single), seeds, single)

    def _photo_generation(
        self, photo: Photo, seed: int, face: str, with_64: bool, timeout_s: float | None, options: Mapping[str, object]
    ) -> Generation:
        """The request that makes one image from a photograph."""
        tensors, attributes = _option_tensors(options)
        if attributes is not None:
            if len(attributes) != 1:
                raise InvalidRequestError(f"attributes has {len(attributes)} rows for one image: pass one vector [A]")
            tensors["attributes"] = attributes
        inputs = {**_photo_tensors(photo, face), "seed": np.array([[seed]], dtype=np.int64), **tensors}
        call = Call(contract.ID3PM_PHOTO, inputs, _wanted(with_64))
        return Generation(self._flights([call], timeout_s, [seed], single=True), [seed], single=True)

    def _embedding_flight(self, photo: Photo, face: str, timeout_s: float | None) -> Flight:
        outputs = tuple(contract.MODELS[contract.FACE_EMBEDDING].outputs)
        call = Call(contract.FACE_EMBEDDING, _photo_tensors(photo, face), outputs)
        return self._flights([call], timeout_s, [0], single=True)[0]

    def _flights(self, calls: Sequence[Call], timeout_s: float | None, seeds: list[int], single: bool) -> list[Flight]:
        limit = self.timeout_s if timeout_s is None else as_timeout("timeout_s", timeout_s)
        return [
            Flight(call, limit, self._retry, self._budget)
            if single
            else Flight(call, limit, self._retry, self._budget, index, f"image {index} (seed {seeds[index]})")
            for index, call in enumerate(calls)
        ]


@dataclasses.dataclass(frozen=True)
class Generation:
    """The requests of one call of `generate`, and what its answers become.

    Attributes:
        flights: One per image, in order.
        seeds: One per image.
        single: Whether the caller gave one ID vector and one seed, and gets one image instead of a list.
    """

    flights: Sequence[Flight]
    seeds: Sequence[int]
    single: bool

    def image(self, index: int, tensors: Tensors) -> GeneratedImage:
        """The generated image number `index` from the server's answer."""
        flight = self.flights[index]
        return GeneratedImage(
            image=_picture(tensors, "image", contract.IMAGE_SHAPE),
            image_64=_picture(tensors, "image_64", contract.IMAGE_64_SHAPE) if "image_64" in tensors else None,
            seed=self.seeds[index],
            receipt=_json_object(tensors, "receipt"),
            request_id=flight.request_id,
            seconds=flight.seconds,
        )


def control_call(model: str, operation: str, request_id: str) -> Call:
    """A question or command to a stage's scheduler, such as `cancel` for a request id."""
    return Call(model, {contract.CONTROL: text_tensor(operation, request_id)}, (contract.STATUS,))


def cancel_calls(flights: Sequence[Flight]) -> list[Call]:
    """What stops the server's work on these flights: Triton does not carry a cancelled call through an ensemble."""
    ids = [request_id for flight in flights for request_id in flight.open_ids]
    return [control_call(stage, "cancel", request_id) for request_id in ids for stage in contract.STAGES]


def control_answer(tensors: Tensors) -> Mapping[str, Any]:
    """The JSON object in the answer to a control call."""
    return _json_object(tensors, contract.STATUS)


def parse_embedding(tensors: Tensors) -> Embedding:
    """The answer of `face_embedding`."""
    vector = _tensor(tensors, "embedding", np.float32)
    detection = _tensor(tensors, "detection", np.float32)
    faces = _tensor(tensors, "faces", np.int32)
    if vector.ndim != 1 or detection.shape != (contract.DETECTION_LENGTH,) or faces.size != 1:
        raise InternalServerError(
            f"the server answered embedding {vector.shape}, detection {detection.shape}, faces {faces.shape}: "
            f"expected [D], [{contract.DETECTION_LENGTH}] and [1]"
        )
    return Embedding(vector.copy(), detection.copy(), int(faces.reshape(())))


def _wanted(with_64: bool) -> tuple[str, ...]:
    return ("image", "image_64", "receipt") if with_64 else ("image", "receipt")


def _option_tensors(options: Mapping[str, object]) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[Any] | None]:
    """The scalar options as tensors, and the attribute vectors `[1 or N, A]` where given."""
    if unknown := sorted(set(options) - set(contract.OPTIONS)):
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; the options are {', '.join(contract.OPTIONS)}")
    given = {name: value for name, value in options.items() if value is not None}
    attributes = given.pop("attributes", None)
    rows = None if attributes is None else np.atleast_2d(as_vectors("attributes", attributes))
    return {name: option_tensor(name, value) for name, value in given.items()}, rows


def _photo_tensors(photo: Photo, face: str) -> dict[str, npt.NDArray[Any]]:
    if not isinstance(face, str):
        raise InvalidRequestError(f"face={face!r}: must be a string, not {type(face).__name__}")
    return {"photo": text_tensor(photo_bytes(photo)), "face": text_tensor(face)}


def _tensor(tensors: Tensors, name: str, dtype: type[Any]) -> npt.NDArray[Any]:
    """One output without its batch dimension of 1."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != dtype or tensor.ndim == 0 or tensor.shape[0] != 1:
        found = "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
        raise InternalServerError(f"the server answered {found} as {name}: expected one row of {dtype.__name__}")
    row: npt.NDArray[Any] = tensor[0]
    return row


def _picture(tensors: Tensors, name: str, shape: tuple[int, ...]) -> Image.Image:
    pixels = _tensor(tensors, name, np.uint8)
    if pixels.shape != shape:
        raise InternalServerError(f"the server answered {name} of shape {pixels.shape}: expected {shape}")
    return Image.fromarray(pixels.copy())


def _json_object(tensors: Tensors, name: str) -> dict[str, Any]:
    texts = _tensor(tensors, name, np.object_).reshape(-1)
    try:
        value = json.loads(texts[0]) if texts.size == 1 else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InternalServerError(f"the server's {name} is not one JSON object")
    return value
