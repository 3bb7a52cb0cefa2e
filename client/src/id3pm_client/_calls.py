"""Arguments of the client's methods as calls. No I/O, so both clients share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from id3pm_client import _contract as contract
from id3pm_client._arguments import as_vectors, broadcast_length, option_tensors, photo_tensors, text_tensor
from id3pm_client._errors import InvalidRequestError
from id3pm_client._photos import Photo
from id3pm_client._request import Call, ClientRequest
from id3pm_client._seeds import as_seeds, random_seed
from id3pm_client._server_pool import Server
from id3pm_client._types import Array
from id3pm_client._vectors import model_of

TransportT = TypeVar("TransportT")


def image_calls(
    embedding: object, seed: object, with_64: bool, options: Mapping[str, object]
) -> tuple[list[Call], list[int], bool]:
    """One call per image of `generate`; the seeds; and whether the caller gets one image instead of a list.

    Raises:
        InvalidRequestError: An argument breaks a rule, or their lengths do not go together.
        TypeError: Unknown option.
    """
    vectors = as_vectors("embedding", embedding)
    tensors, attributes = option_tensors(_with_model(embedding, options))
    rows = {"embedding": np.atleast_2d(vectors), **attributes}
    lengths = {name: len(row) for name, row in rows.items()}
    if seed is None:
        seeds, one_seed = [random_seed() for _ in range(broadcast_length(lengths))], True
    else:
        seeds, one_seed = as_seeds(seed)
    count = broadcast_length({**lengths, "seed": len(seeds)})
    single = one_seed and vectors.ndim == 1 and all(len(row) == 1 for row in attributes.values())

    seeds = seeds * count if len(seeds) == 1 else seeds
    calls = []
    for i in range(count):
        own = {name: row[i % len(row)][None] for name, row in rows.items()}
        inputs = {**own, "seed": np.array([[seeds[i]]], dtype=np.int64), **tensors}
        calls.append(Call(contract.ID3PM, inputs, _outputs(with_64)))
    return calls, seeds, single


def photo_calls(
    photo: Photo, seeds: Sequence[int], face: str, with_64: bool, options: Mapping[str, object]
) -> list[Call]:
    """One call per seed, each with the whole photograph; raises as `image_calls`."""
    picture = photo_tensors(photo, face)
    return [Call(contract.ID3PM_PHOTO, {**picture, **_single(seed, options)}, _outputs(with_64)) for seed in seeds]


def first_stage_call(seed: object, options: Mapping[str, object]) -> tuple[Call, int]:
    """The call to the base stage for a stream, without its ID vector, and the seed; raises as `image_calls`."""
    seeds, one_seed = as_seeds(random_seed() if seed is None else seed)
    if not one_seed:
        raise InvalidRequestError(f"seed has {len(seeds)} elements: a stream makes one image; pass one integer")
    return Call(contract.DENOISER_64, _single(seeds[0], options), ("image_64", "receipt_64")), seeds[0]


def embedding_call(photo: Photo, face: str) -> Call:
    """The call for the ID vector of a photograph."""
    outputs = tuple(contract.MODELS[contract.FACE_EMBEDDING].outputs)
    return Call(contract.FACE_EMBEDDING, photo_tensors(photo, face), outputs)


def control_call(model: str, operation: str, request_id: str = "", *more: str) -> Call:
    """A control request to a stage's scheduler, such as `cancel` for a request id; `watch` has more words."""
    words = text_tensor(operation, request_id, *more)
    return Call(model, {contract.CONTROL: words}, (contract.STATUS,), about=request_id)


def ping_calls(server: Server[TransportT]) -> list[tuple[Server[TransportT], Call]]:
    """The calls `ping` to both stages of a server."""
    return [(server, control_call(stage, "ping")) for stage in contract.STAGES]


def describe_calls(server: Server[TransportT]) -> list[tuple[Server[TransportT], Call]]:
    """The calls `describe` to both stages of a server."""
    return [(server, control_call(stage, "describe")) for stage in contract.STAGES]


def cancel_calls(requests: Sequence[ClientRequest[TransportT]]) -> list[tuple[Server[TransportT], Call]]:
    """The cancels of these requests, because Triton does not pass a cancelled call through an ensemble."""
    return [
        (server, control_call(stage, "cancel", request.request_id))
        for request in requests
        for server in request.open_at
        for stage in contract.STAGES
    ]


def _single(seed: int, options: Mapping[str, object]) -> dict[str, Array]:
    """Seed and options of a request for one image."""
    tensors, attributes = option_tensors(options)
    for name, rows in attributes.items():
        if len(rows) != 1:
            raise InvalidRequestError(f"{name} has {len(rows)} rows for one image: pass one vector [A], or one dict")
    return {"seed": np.array([[seed]], dtype=np.int64), **tensors, **attributes}


def _with_model(embedding: object, options: Mapping[str, object]) -> Mapping[str, object]:
    """The options, with the FR model of an `Embedding`, or of several of the same model.

    Raises:
        InvalidRequestError: They are of different models.
    """
    model = model_of(embedding)
    if model is None or options.get("id_vector_model") is not None:
        return options
    return {**options, "id_vector_model": model}


def _outputs(with_64: bool) -> tuple[str, ...]:
    return ("image", "image_64", "receipt") if with_64 else ("image", "receipt")
