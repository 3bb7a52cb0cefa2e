"""The keys of a checkpoint: removes parts that wrappers add, and compares them with those of an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from id3pm.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

DATA_PARALLEL = "module"
"""First part of every key of a network inside DataParallel, DistributedDataParallel or AveragedModel."""
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts that torch.compile, FSDP and activation checkpointing put into keys, at any place."""
WRAPPERS = (DATA_PARALLEL, *INNER_WRAPPERS)
SHOWN = 6
"""Keys of each kind that an error names."""


def unwrapped(keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Keys without what wrappers added, and which parts were taken off, as `module.`, in the order of `WRAPPERS`."""
    found = {part for key in keys for part in key.split(".")} & set(INNER_WRAPPERS)
    names = [_without(key, found) for key in keys]
    while names and all(name.startswith(f"{DATA_PARALLEL}.") for name in names):
        names = [name.removeprefix(f"{DATA_PARALLEL}.") for name in names]
        found.add(DATA_PARALLEL)
    return names, [f"{part}." for part in WRAPPERS if part in found]


def bare(prefix: str) -> str:
    """A prefix of keys, such as `module.id_mlp.`, without what wrappers added."""
    name = _without(prefix, set(INNER_WRAPPERS))
    while name.split(".")[0] == DATA_PARALLEL:
        name = name.removeprefix(DATA_PARALLEL).removeprefix(".")
    return name


def _without(key: str, parts: set[str]) -> str:
    return ".".join(part for part in key.split(".") if part not in parts)


def require_same_shapes(expected: Shapes, given: Shapes) -> None:
    """Refuses a checkpoint whose keys or shapes are not exactly the expected ones.

    Args:
        expected: Shape by key, as the architecture has it.
        given: Shape by key, as the checkpoint has it.

    Raises:
        CheckpointError: The message counts the missing, extra and mis-shaped keys, and names the first of each.
    """
    missing = [f"{key} {expected[key]}" for key in expected if key not in given]
    extra = [f"{key} {given[key]}" for key in given if key not in expected]
    misshaped = [
        f"{key}: the checkpoint has {given[key]}, the architecture {shape}"
        for key, shape in expected.items()
        if key in given and tuple(given[key]) != tuple(shape)
    ]
    if missing or extra or misshaped:
        raise CheckpointError(
            f"the checkpoint does not fit the architecture: of {len(expected)} tensors needed, {len(missing)} are "
            f"missing and {len(misshaped)} have another shape; {len(extra)} are unknown. {_seen(given)}Choose the "
            "configuration it was trained with; rename keys that are only called otherwise."
            + _section("missing", missing)
            + _section("unknown", extra)
            + _section("another shape", misshaped)
        )


def _seen(given: Shapes) -> str:
    """What the shapes of a checkpoint say of its architecture, as a sentence."""
    sizes = {
        "num_channels": given.get("time_embed.0.weight"),
        "identity_dim": given.get("identity_embed.0.weight"),
        "attribute_dim": given.get("attribute_embed.0.weight"),
    }
    said = [f"{name}={shape[1]}" for name, shape in sizes.items() if shape is not None and len(shape) == 2]
    first = given.get("input_blocks.0.0.weight", ())
    kinds = {3: "no low_res_size (a base network)", 6: "a low_res_size (super-resolution)"}
    if len(first) == 4 and first[1] in kinds:
        said.append(kinds[first[1]])
    return f"Its tensors have {', '.join(said)}. " if said else ""


def _section(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    shown = list(lines) if len(lines) <= SHOWN + 1 else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]
    return f"\n{title}:" + "".join(f"\n  {line}" for line in shown)
