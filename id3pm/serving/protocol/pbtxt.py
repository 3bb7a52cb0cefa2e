"""Triton's `config.pbtxt` of every served model, written from the table in `served_models.py`.

`id3pm build` writes them into the repository of the engines, with the image sizes of the bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from id3pm.serving.protocol.served_models import MAX_BATCH, MODELS, ServedModel, Step, Tensor

SIZES: Mapping[str, int] = {"base": 64, "sr": 256}
"""Pixels of the paper's stages, and of the demo bundle's."""
_PARAMETERS = (
    "# max_rows: images in one step. max_waiting: images that may be in flight behind those; it bounds the memory.",
    "# max_backlog_s: while more seconds of work than this are in flight, new requests get UNAVAILABLE with a time to "
    "retry.",
)


def config_text(name: str, sizes: Mapping[str, int] = SIZES) -> str:
    """The `config.pbtxt` of a model.

    Args:
        name: One of `MODELS`.
        sizes: Pixels of the images of stage `base` and of stage `sr`.
    """
    model = MODELS[name]
    lines = [
        *(f"# {line}" for line in model.comment),
        f'name: "{name}"',
        'platform: "ensemble"' if model.steps else 'backend: "python"',
        f"max_batch_size: {MAX_BATCH}",
        *_block("input", [_tensor(tensor, sizes, " optional: true") for tensor in model.inputs]),
        *_block("output", [_tensor(tensor, sizes) for tensor in model.outputs]),
        *(_ensemble(model) if model.steps else _backend(model)),
    ]
    return "\n".join(lines) + "\n"


def _tensor(tensor: Tensor, sizes: Mapping[str, int], more: str = "") -> str:
    dims = ", ".join(str(sizes[size] if isinstance(size, str) else size) for size in tensor.dims)
    return f'{{ name: "{tensor.name}" data_type: TYPE_{tensor.dtype} dims: [ {dims} ]{more} }}'


def _block(name: str, entries: list[str]) -> list[str]:
    return [f"{name} [", *(f"  {entry}," for entry in entries[:-1]), f"  {entries[-1]}", "]"]


def _backend(model: ServedModel) -> Iterator[str]:
    if not model.parameters:
        yield "dynamic_batching { }"
        yield "instance_group [ { kind: KIND_CPU count: 1 } ]"
        return
    yield "# Plain batching: a queue policy or priority levels make Triton's batcher stall (the model admits requests)."
    yield "dynamic_batching { }"
    yield "# One process per GPU where there are GPUs, else one on the CPU; it owns its engine and its step scheduler."
    yield "instance_group [ { kind: KIND_AUTO count: 1 } ]"
    yield from _PARAMETERS
    entries = [f'{{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in model.parameters.items()]
    yield from _block("parameters", entries)


def _ensemble(model: ServedModel) -> Iterator[str]:
    """The steps: each takes every tensor of its model that the caller sends or an earlier step gave."""
    known = {tensor.name for tensor in model.inputs}
    yield "ensemble_scheduling {"
    yield "  step ["
    for number, step in enumerate(model.steps, 1):
        yield from _step(step, known)
        yield "    }," if number < len(model.steps) else "    }"
        known |= set(step.outputs)
    yield "  ]"
    yield "}"


def _step(step: Step, known: set[str]) -> Iterator[str]:
    yield "    {"
    yield f'      model_name: "{step.model}"'
    yield "      model_version: -1"
    for tensor in MODELS[step.model].inputs:
        if tensor.name in known:
            yield f'      input_map {{ key: "{tensor.name}" value: "{step.renamed.get(tensor.name, tensor.name)}" }}'
    for name in step.outputs:
        yield f'      output_map {{ key: "{name}" value: "{name}" }}'
