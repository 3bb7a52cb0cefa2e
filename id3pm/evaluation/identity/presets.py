"""Comparison of the sampling presets: speed, identity, and agreement with `paper`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from id3pm.config import SamplingOptions
from id3pm.diffusion.samplers import plan
from id3pm.engines.manifest import Manifest
from id3pm.evaluation.identity.study import IdentityStudy
from id3pm.evaluation.identity.targets import Baseline, Measurement, Targets
from id3pm.evaluation.markdown import head, table
from id3pm.evaluation.verification.similarities import Distribution
from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS, Preset

REFERENCE = "paper"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetResult:
    """One preset on one bundle.

    Attributes:
        preset: Its name.
        base: How the 64 px stage samples.
        sr: How super-resolution samples.
        evaluations: Rows that the 64 px U-Net computes for one image, conditional and unconditional.
        seconds_per_image: Of 256 px images made together, both stages.
        measurements: One per judge, of 64 px images.
        agreement: One per judge: cosine similarity of each 64 px image with the one that `paper` makes of the same
            ID vector and seed.
    """

    preset: str
    base: SamplingOptions
    sr: SamplingOptions
    evaluations: int
    seconds_per_image: float
    measurements: tuple[Measurement, ...]
    agreement: tuple[Distribution, ...]


def measure_preset(
    name: str,
    preset: Preset,
    study: IdentityStudy,
    manifest: Manifest,
    seconds_per_image: float,
    on_images: Callable[[int], None] = lambda count: None,
) -> PresetResult:
    """Generates and judges the images of one preset.

    Args:
        name: The preset's name.
        preset: Its options.
        study: Targets and judges, for 64 px images.
        manifest: Of the 64 px engine.
        seconds_per_image: From `seconds_by_preset`.
        on_images: Called with the number of images whenever some are done.
    """
    options = {"preset": name}
    return PresetResult(
        preset=name,
        base=preset.base,
        sr=preset.sr,
        evaluations=plan(manifest.diffusion, preset.base, manifest.unet.learn_sigma).evaluations,
        seconds_per_image=seconds_per_image,
        measurements=study.judge(options, on_images),
        agreement=study.agreement(options, {"preset": REFERENCE}),
    )


def seconds_by_preset(
    pipeline: Pipeline, targets: Targets, images: int, on_preset: Callable[[str], None] = lambda name: None
) -> dict[str, float]:
    """Seconds per 256 px image of every preset, one preset after the other in this process.

    Args:
        pipeline: Both engines.
        targets: Held-out people.
        images: How many together.
        on_preset: Called with a preset's name before its images are made.
    """
    vectors, seeds = targets.vectors[:images], targets.seeds[:images, 0].tolist()
    pipeline.generate(vectors, seeds, steps=2, sr_steps=2)  # the first calls of an engine are slower
    seconds = {}
    for name in PRESETS:
        on_preset(name)
        started = time.perf_counter()
        pipeline.generate(vectors, seeds, preset=name)
        seconds[name] = (time.perf_counter() - started) / len(seeds)
    return seconds


def presets_markdown(
    subject: Mapping[str, object], identities: int, baselines: Sequence[Baseline], results: Sequence[PresetResult]
) -> str:
    """The results as a table."""
    judges = [base.judge for base in baselines]
    reference = next(result for result in results if result.preset == REFERENCE)
    columns = [f"{judge}: {column}" for judge in judges for column in ("similarity", "verification", "agreement")]
    heads = ("preset", "64 px", "256 px", "evaluations", "s per image", "speed", *columns, "no face")
    lines = [
        *head("Sampling presets", subject),
        f"{identities} people held out from training, one 64 px image of each. Similarity: cosine of generated image "
        "and target. Verification: accuracy by the LFW protocol. Agreement: cosine of the image and what `paper` makes "
        "of the same ID vector and seed.",
        "",
        *table(
            ("judge", "different people", "the same picture, altered"),
            [(base.judge, f"{base.impostors.mean:.3f}", f"{base.bound.mean:.3f}") for base in baselines],
        ),
        "",
        *table(heads, [_row(result, reference.seconds_per_image) for result in results]),
    ]
    return "\n".join(lines) + "\n"


def _row(result: PresetResult, reference_s: float) -> tuple[str, ...]:
    """Cells of one preset; its speed against a preset that takes `reference_s` seconds for an image."""
    opinions = zip(result.measurements, result.agreement, strict=True)
    return (
        f"`{result.preset}`",
        _sampling(result.base),
        _sampling(result.sr),
        str(result.evaluations),
        f"{result.seconds_per_image:.2f}",
        f"{reference_s / result.seconds_per_image:.1f}x",
        *(
            cell
            for found, agreement in opinions
            for cell in (f"{found.similarity.mean:.3f}", f"{found.verification.accuracy:.1%}", f"{agreement.mean:.3f}")
        ),
        f"{result.measurements[0].no_face:.1%}",
    )


def _sampling(options: SamplingOptions) -> str:
    guidance = f", guidance {options.guidance_scale:g}" if options.guidance_scale != 1.0 else ""
    spacing = f", {options.spacing}" if options.spacing != "uniform" else ""
    eta = f" eta {options.eta:g}" if options.sampler == "ddim" else ""
    return f"{options.sampler}{eta}, {options.steps} steps{spacing}{guidance}"
