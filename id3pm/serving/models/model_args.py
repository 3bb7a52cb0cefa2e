"""Settings of a Triton model, from its configuration and environment."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from id3pm.engines.manifest import CPU_TARGETS, Manifest
from id3pm.errors import ConfigError
from id3pm.sampling.compute_lock import ComputeLock, NoComputeLock, SharedComputeLock

logger = logging.getLogger(__name__)
THREADS_VARIABLE = "ID3PM_THREADS"
COMPUTE_LOCK_VARIABLE = "ID3PM_COMPUTE_LOCK"
"""The file of the compute lock that the stages of one server share on a CPU; `id3pm serve` sets it."""


def device_of(args: Mapping[str, str], target: str) -> str:
    """The device for an engine built for `target`: the CPU, or the GPU that Triton gave this instance.

    Triton names no GPU where it sees none; a GPU engine then asks for the first one and says itself what is wrong.
    """
    if target in CPU_TARGETS:
        return "cpu"
    return f"cuda:{args['model_instance_device_id'] if args['model_instance_kind'] == 'GPU' else 0}"


def require_one_instance(args: Mapping[str, str]) -> None:
    """Refuses a second instance of a stage: cancel, progress and supervision would reach one of the two only.

    Triton makes an instance for each GPU that it sees.

    Raises:
        ConfigError: The model has more than one instance.
    """
    groups = json.loads(args["model_config"]).get("instance_group", [])
    count = sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", []))) for group in groups)
    if count > 1:
        raise ConfigError(
            f"{args['model_name']} would have {count} instances, and a control request reaches only one of them; run "
            "one server per GPU, each with its own CUDA_VISIBLE_DEVICES"
        )


def warn_of_empty_rows(manifest: Manifest, max_rows: int) -> None:
    """Logs a warning where a stage cannot fill the calls of its engine, which cost the same whether full or not.

    Args:
        manifest: Of the engine.
        max_rows: Images that the stage samples at a time.
    """
    most = max_rows * manifest.unet.evaluations_per_step
    if manifest.target not in CPU_TARGETS and manifest.buckets == "exact" and most < manifest.max_batch:
        logger.warning(
            "every call of this engine computes %d rows, and max_rows=%d in config.pbtxt fills %d at the most; raise "
            "max_rows, or build with --max-batch %d",
            manifest.max_batch,
            max_rows,
            most,
            most,
        )


def threads() -> int | None:
    """CPU threads per engine, from the environment; `None` (unset) is all cores.

    Raises:
        ConfigError: The variable is not a positive whole number.
    """
    value = os.environ.get(THREADS_VARIABLE)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"{THREADS_VARIABLE}={value!r}: must be a whole number of at least 1")
    return int(value)


def compute_lock(target: str, stage: int, stages: int) -> ComputeLock:
    """The lock that a stage shares with the others on a CPU, if the launcher named a file for it.

    If there is no space for the file, the stages run without it: slower for short requests, but correct.

    Args:
        target: Target of the engine.
        stage: Number of the stage, from 0.
        stages: How many there are.
    """
    file = os.environ.get(COMPUTE_LOCK_VARIABLE)
    if not file or target not in CPU_TARGETS:
        return NoComputeLock()
    try:
        return SharedComputeLock(Path(file), stage, stages)
    except OSError as error:
        logger.warning("no compute lock between the stages: %s", error.strerror)
        return NoComputeLock()


def parameter(args: Mapping[str, str], name: str) -> int:
    """A whole-number entry under `parameters` of the model's config.pbtxt.

    Raises:
        ConfigError: It is missing or not a positive whole number.
    """
    entry = json.loads(args["model_config"])["parameters"].get(name, {})
    value = entry.get("string_value", "")
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"config.pbtxt: parameter {name}={value!r}: must be a whole number of at least 1")
    return int(value)
