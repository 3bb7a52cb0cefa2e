"""The paper's base network (295 M parameters) in fp16, built for GPUs that are not here: minutes and gigabytes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny_engines
import torch
from test_half import random_inputs, relative_error, trained_ranges
from tiny_bundle import write_paper_bundle

from id3pm.config import PAPER_BASE_64
from id3pm.export.unet import emulate_half as rounded

ROOT = Path(__file__).parents[2]
PEAK_MEMORY = 12 * 2**30
SR = dataclasses.replace(tiny_engines.SR, low_res_size=64, image_size=128)  # not built

CONVERT = """
import sys, types
from pathlib import Path
from id3pm.export.unet import mixed_precision as half, onnx_export as to_onnx
from id3pm.export.engine_folder import ConversionJob
bundle, graph = map(Path, sys.argv[1:])
to_onnx.export_onnx(bundle, "base", graph)
spec = types.SimpleNamespace(precision="fp16")
job = ConversionJob(graph=graph, bundle=bundle, repository=graph.parent, spec=spec)
return_value = half.convert(job, lambda _: None)
"""
BUILD = """
import dataclasses, sys
from pathlib import Path
import tiny_engines
from id3pm.export.tensorrt import build_plan as to_tensorrt
from id3pm.config import PAPER_BASE_64
graph, gpu = Path(sys.argv[1]), sys.argv[2]
manifest = tiny_engines.manifest_of(PAPER_BASE_64, graph, max_batch=1)
manifest = dataclasses.replace(manifest, precision="fp16", device=gpu)
return_value = to_tensorrt.build_plan(graph, graph.with_name(f"{gpu}.plan"), manifest)
"""
MEASURE = """
import json, resource, time
start = time.monotonic()
{}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([return_value, time.monotonic() - start, peak]))
"""


def measured(script: str, *arguments: str | Path) -> tuple[dict[str, int], float, int]:
    """What a script's `return_value` is in a process of its own, its seconds and its peak memory."""
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "export", "tests"))
    command = [sys.executable, "-c", MEASURE.format(script), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=True, stdout=subprocess.PIPE)
    value, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return value, seconds, peak


def say(capsys: pytest.CaptureFixture[str], what: str, seconds: float, peak: int) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{what} in {seconds:.0f} s, {peak / 2**30:.1f} GiB at most\n")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_papers_base_network_in_fp16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="not installed: the extra tensorrt")
    unet = trained_ranges(PAPER_BASE_64)
    write_paper_bundle(tmp_path / "bundle", unet, tiny_engines.random_unet(SR), storage="fp32")
    graph = tmp_path / "engine" / "model.onnx"
    graph.parent.mkdir()
    notes, seconds, peak = measured(CONVERT, tmp_path / "bundle", graph)
    say(capsys, f"exported and converted to fp16 ({graph.stat().st_size / 2**20:.0f} MiB)", seconds, peak)
    assert peak < PEAK_MEMORY
    for gpu in ("sm86", "sm89", "sm120"):
        layers, seconds, peak = measured(BUILD, graph, gpu)
        plan = graph.with_name(f"{gpu}.plan")
        say(capsys, f"{gpu}: plan of {plan.stat().st_size / 2**20:.0f} MiB", seconds, peak)
        assert layers["CONVOLUTION HALF"] == notes["in_half_precision"]["Conv"]  # type: ignore[index]
        assert layers["NORMALIZATION FLOAT"] == notes["in_fp32"]["InstanceNormalization"]  # type: ignore[index]
        assert plan.stat().st_size > graph.stat().st_size
        assert peak < PEAK_MEMORY
        plan.unlink()
    (tmp_path / "rounded").mkdir()
    rounded.write_rounded(graph, tmp_path / "rounded" / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "rounded" / "model.onnx"))
    for timestep in (0.0, 500.0, 999.0):
        inputs = random_inputs(PAPER_BASE_64, 1) | {"timesteps": np.array([timestep], dtype=np.float32)}
        actual = session.run(None, inputs)[0]
        with torch.inference_mode():
            expected = unet(**{name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
        error = relative_error(actual, expected)
        with capsys.disabled():
            sys.stdout.write(f"t={timestep:g}: relative error {error:.1e}\n")
        assert np.isfinite(actual).all() and error < 1e-2
