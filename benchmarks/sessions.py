"""Small graphs under onnxruntime: sessions, times taken in turns, errors."""

from __future__ import annotations

import collections
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import torch


def session(model: str | bytes, optimised: Path | None = None) -> tuple[Any, collections.Counter[str]]:
    """A session with as many threads as PyTorch has, and how often each operator is in the graph as it runs.

    Args:
        model: The file, or what is in it.
        optimised: Where to put the graph as it runs; without it the counts are empty.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    found = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if optimised is None:
        return found, collections.Counter()
    return found, collections.Counter(node.op_type for node in onnx_ir.load(optimised).graph)


def milliseconds(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, taken in turns."""
    times: dict[str, list[float]] = {label: [] for label in calls}
    for _ in range(repeats + 1):
        for label, call in calls.items():
            start = time.perf_counter()
            call()
            times[label].append(1e3 * (time.perf_counter() - start))
    return {label: statistics.median(values[1:]) for label, values in times.items()}  # the first warms up


def relative_error(actual: Any, expected: Any) -> float:
    """L2 norm of the difference, relative to that of what is expected."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
