"""The parts of `gpu.py`. Each writes its tables as it goes, so that what was measured before a limit is not lost."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_SR_256,
    PAPER_SR_DIFFUSION,
    DiffusionConfig,
    SamplingOptions,
    UNetConfig,
)
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.engines.arrays import HOST, Arrays
from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_arrays import TorchArrays
from id3pm.engines.torch_engine import TorchPrecision, UNetEngine
from id3pm.formats.bundle import load_weights, read_bundle
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.sampling.scheduler import StepScheduler
from id3pm.unet.model import UNet, load_unet
from networks import TINY_16, TINY_SR, random_unet, unet_flops

BUNDLE = Path(__file__).parents[1] / "bundles" / "demo"
Table = list[dict[str, Any]]


@dataclasses.dataclass
class Report:
    """Where a part writes, and what it may use.

    Attributes:
        file: Its JSON file.
        device: A torch device.
        limit_s: Seconds after which the part is ended.
    """

    file: Path
    device: str
    limit_s: float
    tables: list[Table] = dataclasses.field(default_factory=list)
    start: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        """Whether this is a test on the CPU."""
        return torch.device(self.device).type == "cpu"

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.limit_s - (time.monotonic() - self.start)

    def table(self) -> Callable[..., None]:
        """A new table; call it with the cells of a line."""
        lines: Table = []
        self.tables.append(lines)

        def add(**cells: object) -> None:
            lines.append({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in cells.items()})
            self.file.write_text(json.dumps({"tables": [table for table in self.tables if table]}))

        return add

    def synchronize(self) -> None:
        """Waits for the device."""
        if not self.small:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], least: int = 3, most_s: float = 3.0) -> float:
        """Median seconds of a call, after one that warms up."""
        most_s = 0.0 if self.small else most_s
        work()
        self.synchronize()
        times: list[float] = []
        while len(times) < least or (sum(times) < most_s and len(times) < 30):
            start = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A network with its process and its number in the seed contract."""

    name: str
    config: UNetConfig
    diffusion: DiffusionConfig
    number: int
    weights: Callable[[UNetConfig], UNet]

    def engine(self, report: Report, precision: TorchPrecision, rows: int, arrays: Arrays | None = None) -> UNetEngine:
        """The network on the device, for at most so many evaluations."""
        here = arrays or TorchArrays(report.device)
        return UNetEngine(self.weights(self.config), rows, report.device, precision, here, buckets=[rows])


def demo(small: bool) -> list[Stage]:
    """The stages of the demo bundle; for a test the paper's stand-ins, of which one evaluation is cheap."""
    if small:
        return paper(small)
    bundle = read_bundle(BUNDLE)

    def base_weights(config: UNetConfig) -> UNet:
        return load_unet(config, load_weights(BUNDLE, "base"))

    def sr_weights(config: UNetConfig) -> UNet:
        return load_unet(config, load_weights(BUNDLE, "sr"))

    return [
        Stage("demo 64 px", bundle.base, bundle.base_diffusion, STAGE_BASE, base_weights),
        Stage("demo 256 px", bundle.sr, bundle.sr_diffusion, STAGE_SR, sr_weights),
    ]


def paper(small: bool) -> list[Stage]:
    """The paper's networks with random weights."""
    base, sr = (TINY_16, TINY_SR.at_size(32)) if small else (PAPER_BASE_64, PAPER_SR_256)
    return [
        Stage("paper 64 px", base, PAPER_BASE_DIFFUSION, STAGE_BASE, random_unet),
        Stage("paper 256 px", sr, PAPER_SR_DIFFUSION, STAGE_SR, random_unet),
    ]


def conditions(config: UNetConfig, seed: int) -> dict[str, np.ndarray]:
    """ID vector and small image of an image."""
    rng = np.random.default_rng(seed)
    shapes = {name: shape[1:] for name, shape in input_shapes(config, 1).items() if name not in ("x", "timesteps")}
    made = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    if "identity" in made:
        made["identity"] /= np.linalg.norm(made["identity"])
    if "low_res" in made:
        made["low_res"] = np.tanh(made["low_res"])
    return made


def images(stage: Stage, engine: UNetEngine, count: int, steps: int, max_rows: int) -> tuple[np.ndarray, float]:
    """Images of the seeds 0, 1, ..., and the seconds that they took together."""
    scheduler = StepScheduler(engine, stage.diffusion, stage.number, max_rows=max_rows, max_waiting=count)
    options = SamplingOptions(steps=steps, guidance_scale=2.0 if stage.config.identity_dim else 1.0)
    done: dict[str, Any] = {}
    left = threading.Semaphore(0)

    def receiver(name: str) -> Callable[[object], None]:
        def receive(outcome: object) -> None:
            done[name] = outcome
            left.release()

        return receive

    requests = [SampleRequest(id=str(n), seed=n, options=options, **conditions(stage.config, n)) for n in range(count)]
    start = time.perf_counter()
    scheduler.submit_all([(request, receiver(request.id)) for request in requests])
    for _ in range(count):
        assert left.acquire(timeout=600)
    seconds = time.perf_counter() - start
    scheduler.close()
    for outcome in done.values():
        assert isinstance(outcome, Sample), outcome
    return np.stack([done[str(n)].image for n in range(count)]), seconds


def machine(report: Report) -> None:
    """What the device is, and its peaks."""
    add = report.table()
    add(what="torch", value=torch.__version__)
    if not report.small:
        properties = torch.cuda.get_device_properties(report.device)
        add(what="device", value=f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        add(what="CUDA", value=str(torch.version.cuda))
    size = 256 if report.small else 8192
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size, size, device=report.device).to(dtype) for _ in range(2))
        seconds = report.seconds(functools.partial(torch.matmul, a, b), most_s=0.5)
        add(what=f"matrix product {name}, TFLOP/s", value=2 * size**3 / seconds / 1e12)
    count = (1 << 20) if report.small else (1 << 28)
    host = torch.empty(count, dtype=torch.uint8, pin_memory=not report.small)
    there = host.to(report.device)
    for what, work in (
        ("copy to the device, GB/s", lambda: there.copy_(host, non_blocking=True)),
        ("copy from the device, GB/s", lambda: host.copy_(there, non_blocking=True)),
        ("copy on the device, GB/s", lambda: there.clone()),
    ):
        add(what=what, value=count / report.seconds(work, most_s=0.5) / 1e9)


def parity(report: Report) -> None:
    """Every precision beside fp32 on the CPU: one evaluation, and images after a trajectory."""
    add = report.table()
    steps, count = (2, 1) if report.small else (10, 4)
    for stage in demo(report.small):
        cpu = UNetEngine(stage.weights(stage.config), 2 * count)
        expected, _ = images(stage, cpu, count, steps, count)
        given = {n: np.ascontiguousarray(np.stack([a] * 2)) for n, a in conditions(stage.config, 0).items()}
        shape = input_shapes(stage.config, 2)["x"]
        x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        precisions: Sequence[TorchPrecision] = ("fp32",) if report.small else ("fp32", "fp16", "bf16")
        for precision in precisions:
            engine = stage.engine(report, precision, 2 * count)
            errors = []
            for t in (0.0, 500.0, 999.0):
                inputs = {"x": x, "timesteps": np.full(2, t, np.float32), **given}
                there = {name: engine.arrays.from_host(array) for name, array in inputs.items()}
                output, wanted = engine.arrays.to_host(engine.run(there))(), cpu.run(inputs)
                errors.append(float(np.abs(output - wanted).max() / np.abs(wanted).max()))
            made, _ = images(stage, engine, count, steps, count)
            mse = float(np.mean((made.astype(float) - expected) ** 2))
            psnr = 10 * np.log10(255**2 / mse) if mse else float("inf")
            add(network=stage.name, precision=precision, forward_error=max(errors), images_psnr_db=float(psnr))
            engine.close()


def bits(report: Report) -> None:
    """Whether a row's bits depend on its company, and on its place among the rows of a call."""
    add = report.table()
    rows = 4 if report.small else 16
    for stage in demo(report.small):
        precisions: Sequence[TorchPrecision] = ("fp32",) if report.small else ("fp32", "fp16")
        for precision in precisions:
            alone = UNetEngine(stage.weights(stage.config), rows, report.device, precision, TorchArrays(report.device))
            given = [conditions(stage.config, n) for n in range(rows)]
            rng = np.random.default_rng(0)
            stacked = {name: np.stack([one[name] for one in given]) for name in given[0]}
            stacked |= {
                "x": rng.standard_normal(input_shapes(stage.config, rows)["x"], dtype=np.float32),
                "timesteps": np.linspace(0, 999, rows, dtype=np.float32),
            }

            def outputs(which: Sequence[int], alone: UNetEngine = alone, stacked: Any = stacked) -> np.ndarray:
                there = {n: alone.arrays.from_host(np.ascontiguousarray(a[list(which)])) for n, a in stacked.items()}
                return alone.arrays.to_host(alone.run(there))()

            first = outputs([0])[0]
            equal = [n for n in range(1, rows + 1) if np.array_equal(outputs(range(n))[0], first)]
            whole, turned = outputs(range(rows)), outputs(range(rows)[::-1])
            worst = max(float(np.abs(outputs(range(n))[0] - first).max()) for n in range(1, rows + 1))
            add(
                network=stage.name,
                precision=precision,
                equal_in_companies=f"{len(equal)} of {rows}",
                largest_difference=worst,
                place_matters=not np.array_equal(whole, turned[::-1]),
            )
            alone.close()


def rows(report: Report) -> None:
    """Rows in host memory beside rows on the device: images per second."""
    add = report.table()
    steps = 2 if report.small else 10
    for stage in paper(True) if report.small else [*demo(False), *paper(False)]:
        for count in (1, 4) if report.small else (1, 16):
            evaluations = 2 * count if stage.config.identity_dim else count
            rates = {}
            for name, arrays in (("host", HOST), ("device", TorchArrays(report.device))):
                engine = stage.engine(report, "fp32" if report.small else "fp16", evaluations, arrays)
                images(stage, engine, count, steps, count)
                rates[name] = count / min(images(stage, engine, count, steps, count)[1] for _ in range(3))
                engine.close()
            add(
                network=stage.name,
                rows=count,
                images_per_s_host=rates["host"],
                images_per_s_device=rates["device"],
                ratio=rates["device"] / rates["host"],
            )
            if report.left_s < 20 and not report.small:
                return


def paper_speed(report: Report) -> None:
    """The paper's networks: a call beside eager PyTorch and torch.compile, and the seconds of an image."""
    add, count = report.table(), 2 if report.small else 16
    precision: TorchPrecision = "fp32" if report.small else "fp16"
    calls: dict[str, float] = {}
    for stage in paper(report.small):
        flops = unet_flops(stage.config)
        given = {n: np.stack([a] * count) for n, a in conditions(stage.config, 0).items()}
        shapes = input_shapes(stage.config, count)
        given |= {name: np.zeros(shapes[name], np.float32) for name in ("x", "timesteps")}
        there = {name: torch.from_numpy(array).to(report.device) for name, array in given.items()}

        def line(name: str, work: Callable[[], object], stage: Stage = stage, flops: int = flops) -> None:
            seconds = report.seconds(work)
            calls.setdefault(stage.name, seconds)
            add(network=stage.name, way=name, rows=count, ms=1e3 * seconds, tflop_s=flops * count / seconds / 1e12)

        engine = stage.engine(report, precision, count)
        line(f"our engine {precision}", lambda engine=engine, there=there: engine.run(there))  # type: ignore[misc]
        engine.close()
        unet = stage.weights(stage.config).to(report.device).eval()
        if precision == "fp16":
            unet.convert(torch.float16)
        with torch.inference_mode():
            line(f"eager {precision}", lambda unet=unet, there=there: unet(**there))  # type: ignore[misc]
            if not report.small and report.left_s > 60:
                compiled = torch.compile(unet)
                line(f"torch.compile {precision}", lambda c=compiled, there=there: c(**there))  # type: ignore[misc]
    add = report.table()
    base, sr = (calls[stage.name] for stage in paper(report.small))
    for steps in (250, 10, 8):
        seconds = steps * (2 * base + sr) / count
        add(steps=f"{steps} + {steps}, guidance 2", seconds_per_image_from_calls=seconds, images_per_s=1 / seconds)
    measured, steps = report.table(), 2 if report.small else 10
    for stage in paper(report.small):
        evaluations = 2 * count if stage.config.identity_dim else count
        engine = stage.engine(report, precision, evaluations)
        images(stage, engine, count, 1, count)
        _, seconds = images(stage, engine, count, steps, count)
        ideal = steps * calls[stage.name] * evaluations / count
        measured(network=stage.name, steps=steps, images=count, seconds=seconds, share_of_engine=ideal / seconds)
        engine.close()


def training(report: Report) -> None:
    """A training step of the paper's networks: images per second, memory, share of the peak, hours of the run."""
    from accelerate import Accelerator

    from id3pm.training.loop import Trainer
    from id3pm.training.presets import PAPER_BASE, PAPER_SR
    from id3pm.training.session import make_batches

    add = report.table()
    for preset in (PAPER_BASE, PAPER_SR):
        batch = 2 if report.small else (64 if preset.stage == "base" else 8)
        unet = preset.unet
        if report.small:
            unet = TINY_16 if preset.stage == "base" else TINY_SR.at_size(32)
        config = dataclasses.replace(
            preset, unet=unet, train_size=unet.image_size, batch_size=batch, precision="no" if report.small else "bf16"
        )
        accelerator = Accelerator(cpu=report.small, mixed_precision=config.precision)
        batches = make_batches(config, random_faces(config.unet, 2 * batch))
        trainer = Trainer(config, batches, report.file.parent, {}, accelerator)
        trainer.train_step()
        if not report.small:
            torch.cuda.reset_peak_memory_stats()
        seconds = report.seconds(trainer.train_step, most_s=10.0)
        memory = 0.0 if report.small else torch.cuda.max_memory_allocated() / 2**30
        add(
            network=f"paper {preset.stage}",
            precision=config.precision,
            batch=batch,
            images_per_s=batch / seconds,
            tflop_s=3 * unet_flops(unet) * batch / seconds / 1e12,
            memory_gib=memory,
            hours_of_the_papers_run=preset.total_steps * preset.batch_size * seconds / batch / 3600,
        )
        del trainer


def random_faces(config: UNetConfig, count: int) -> dict[str, np.ndarray]:
    """A training split of noise."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, config.identity_dim or 4)).astype(np.float32)
    return {
        "images": rng.integers(0, 256, (count, config.image_size, config.image_size, 3), np.uint8),
        "vectors": vectors,
        "flipped_vectors": vectors,
        "detections": np.zeros((count, 15), np.float32),
    }


def memory(report: Report) -> None:
    """Memory of the device before and after many requests."""
    add = report.table()
    count = 20 if report.small else 1000
    stage = demo(report.small)[0]
    engine = stage.engine(report, "fp32", 16)
    images(stage, engine, 8, 2, 8)
    used = [] if report.small else [torch.cuda.memory_allocated()]
    _, seconds = images(stage, engine, count, 2, 8)
    if not report.small:
        used.append(torch.cuda.memory_allocated())
    growth = (used[1] - used[0]) / 2**20 if used else 0.0
    add(requests=count, seconds=seconds, growth_mib=growth)


PARTS: dict[str, Callable[[Report], None]] = {
    "machine": machine,
    "parity": parity,
    "rows": rows,
    "paper": paper_speed,
    "training": training,
    "bits": bits,
    "memory": memory,
}
