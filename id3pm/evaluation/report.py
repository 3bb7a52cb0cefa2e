"""Reports of the evaluation: JSON for programs, markdown tables and plots for people."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import MissingExtraError
from id3pm.evaluation.identity import Baseline, Measurement, SettingResult
from id3pm.evaluation.superresolution import Comparison, Enlarged
from id3pm.evaluation.verification import BINS, QUANTILES, Distribution, Floats

SCHEMA = 1
SHOWN = 4  # pictures of each set in the super-resolution plot


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityReport:
    """All that `id3pm evaluate identity` found so far.

    Attributes:
        subject: What was evaluated: bundle, engine, data, image size.
        identities: Number of people.
        images_per_identity: Seeds for each of them.
        at_guidance: The guidance scale at which steps are compared.
        at_steps: The steps at which guidance scales are compared.
        baselines: One per judge.
        results: One per finished setting.
        settings: Number of settings that were asked for.
    """

    subject: dict[str, Any]
    identities: int
    images_per_identity: int
    at_guidance: float
    at_steps: int
    baselines: tuple[Baseline, ...]
    results: tuple[SettingResult, ...]
    settings: int

    @property
    def samplers(self) -> list[str]:
        """In the order of the results."""
        return list(dict.fromkeys(result.setting.sampler for result in self.results))

    def by_guidance(self, sampler: str) -> list[SettingResult]:
        """The guidance sweep of a sampler, in order."""
        rows = [row for row in self.results if row.setting.sampler == sampler and row.setting.steps == self.at_steps]
        return sorted(rows, key=lambda row: row.setting.guidance_scale)

    def by_steps(self, sampler: str) -> list[SettingResult]:
        """The steps sweep of a sampler, in order."""
        fixed = self.at_guidance
        rows = [row for row in self.results if row.setting.sampler == sampler and row.setting.guidance_scale == fixed]
        return sorted(rows, key=lambda row: row.setting.steps)


def write_identity_report(folder: Path, report: IdentityReport) -> None:
    """Writes identity.json, identity.md and identity.png; what was there before is replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "schema": SCHEMA,
        "quantiles": QUANTILES,
        "histogram_edges": BINS.round(6).tolist(),
        **dataclasses.asdict(report),
    }
    write_json(folder / "identity.json", data)
    write_text(folder / "identity.md", identity_markdown(report))
    plot_identity(folder / "identity.png", report)


def identity_markdown(report: IdentityReport) -> str:
    """The report as tables."""
    lines = [
        "# Identity of generated faces",
        "",
        ", ".join(f"{name} {value}" for name, value in report.subject.items()),
        "",
        f"{report.identities} people held out from training, {report.images_per_identity} image(s) of each. Cosine "
        "similarity of generated image and target; the target flipped, slightly blurred and brightened is the "
        "same-face bound. Recovered: where the mean lies between impostors (0) and bound (1). Verification: LFW "
        "protocol, 10 folds; an image without a face is a wrong decision.",
        "",
        f"{len(report.results)} of {report.settings} settings done.",
        "",
        "| judge | impostors | same-face bound | verification with the bound's pictures |",
        "|---|---|---|---|",
        *(
            f"| {_judge(base)} | {_spread(base.impostors)} | {_spread(base.bound)} | {_accuracy(base)} |"
            for base in report.baselines
        ),
    ]
    for sampler in report.samplers:
        lines += ["", f"## {sampler}, {report.at_steps} steps, by guidance scale", ""]
        lines += _table("guidance", [(f"{row.setting.guidance_scale:g}", row) for row in report.by_guidance(sampler)])
        lines += ["", f"## {sampler}, guidance scale {report.at_guidance:g}, by steps", ""]
        lines += _table("steps", [(str(row.setting.steps), row) for row in report.by_steps(sampler)])
    return "\n".join(lines) + "\n"


def _table(heading: str, rows: Sequence[tuple[str, SettingResult]]) -> list[str]:
    judges = [measurement.judge for measurement in rows[0][1].measurements] if rows else []
    names = [f"{judge}: {column}" for judge in judges for column in ("similarity", "recovered", "verification")]
    return [
        f"| {' | '.join([heading, *names, 'no face'])} |",
        "|---" * (len(names) + 2) + "|",
        *(
            f"| {' | '.join([label, *(cell for found in row.measurements for cell in _cells(found)), _no_face(row)])} |"
            for label, row in rows
        ),
    ]


def _cells(found: Measurement) -> tuple[str, str, str]:
    recovered = f"{found.recovered:.2f}" if found.similarity.count else "no face"
    return _spread(found.similarity), recovered, _accuracy(found)


def _no_face(row: SettingResult) -> str:
    return f"{row.measurements[0].no_face:.1%}"


def _spread(values: Distribution) -> str:
    return f"{values.mean:.3f} ± {values.std:.3f}" if values.count else "no face"


def _mean(values: Distribution) -> str:
    return f"{values.mean:.2f}" if values.count else "no face"


def _accuracy(found: Baseline | Measurement) -> str:
    return f"{found.verification.accuracy:.1%} ± {found.verification.standard_error:.1%}"


def _judge(base: Baseline) -> str:
    return f"{base.judge} ({'never seen in training' if base.independent else 'gave the ID vectors'})"


def plot_identity(file: Path, report: IdentityReport) -> None:
    """One line of plots per judge: distributions, similarity by guidance scale, similarity by steps.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(width=15, height=4.2 * len(report.baselines))
    for row, base in enumerate(report.baselines):
        panels = [figure.add_subplot(len(report.baselines), 3, 3 * row + column) for column in (1, 2, 3)]
        _plot_distributions(panels[0], report, row)
        for panel in panels[1:]:
            for level, label, style in (
                (base.bound.mean, "same-face bound", "--"),
                (base.impostors.mean, "impostors", ":"),
            ):
                panel.axhline(level, color="grey", linestyle=style, label=label)
            halfway = (base.bound.mean + base.impostors.mean) / 2
            panel.axhline(halfway, color="lightgrey", linewidth=0.8, label="halfway")
            panel.set(ylabel=f"cosine similarity ({base.judge})")
        for sampler in report.samplers:
            _plot_means(panels[1], sampler, row, report.by_guidance(sampler), lambda r: r.setting.guidance_scale)
            _plot_means(panels[2], sampler, row, report.by_steps(sampler), lambda r: r.setting.steps)
        panels[1].set(xlabel="guidance scale", title=f"{report.at_steps} steps")
        panels[2].set(xlabel="steps", xscale="log", title=f"guidance scale {report.at_guidance:g}")
        ticks = sorted({r.setting.steps for r in report.results if r.setting.guidance_scale == report.at_guidance})
        panels[2].set_xticks(ticks, [str(tick) for tick in ticks])
        panels[2].minorticks_off()
        for panel in panels:
            panel.legend(fontsize=8)
    save_figure(file, figure)


def _plot_distributions(panel: Any, report: IdentityReport, judge: int) -> None:
    base = report.baselines[judge]
    shown = [("impostors", base.impostors), ("same-face bound", base.bound)]
    reference = [r for r in report.by_steps(report.samplers[0]) if r.setting.steps == report.at_steps]
    shown[1:1] = [("generated", r.measurements[judge].similarity) for r in reference]
    for label, values in shown:
        share = np.array(values.histogram) / max(values.count, 1)
        panel.stairs(share, BINS, fill=True, alpha=0.5, label=f"{label} ({_mean(values)})")
    panel.set(xlabel=f"cosine similarity ({base.judge})", ylabel="share of pairs")
    panel.set(title=f"guidance scale {report.at_guidance:g}, {report.at_steps} steps")


def _plot_means(panel: Any, sampler: str, judge: int, rows: Sequence[SettingResult], place: Any) -> None:
    similarity = [row.measurements[judge].similarity for row in rows]
    # Two standard errors: what another choice of people would change.
    errors = [2 * values.std / math.sqrt(max(values.count, 1)) for values in similarity]
    panel.errorbar(
        [place(row) for row in rows],
        [values.mean for values in similarity],
        errors,
        marker="o",
        capsize=3,
        label=sampler,
    )


def plot_faces(
    file: Path,
    targets: NDArray[np.uint8],
    generated: NDArray[np.uint8],
    judges: Sequence[str],
    similarities: Sequence[Floats],
) -> None:
    """One column per person: the target, then one generated face per seed, with its similarities.

    Args:
        file: The picture.
        targets: uint8 [N, S, S, 3].
        generated: uint8 [N, K, S', S', 3].
        judges: Names.
        similarities: For every judge, [N, K]; NaN where no face was found.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    people, seeds = generated.shape[:2]
    figure = new_figure(width=1.5 * people, height=1.75 * (seeds + 1))
    panels = figure.subplots(seeds + 1, people, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for person in range(people):
        panels[0, person].imshow(targets[person])
        panels[0, person].set_title("target", fontsize=8)
        for seed in range(seeds):
            values = [
                f"{judge} {found[person, seed]:.2f}" if np.isfinite(found[person, seed]) else f"{judge}: no face"
                for judge, found in zip(judges, similarities, strict=True)
            ]
            panels[seed + 1, person].imshow(generated[person, seed])
            panels[seed + 1, person].set_title("  ".join(values), fontsize=7)
    save_figure(file, figure)


def write_super_resolution_report(
    folder: Path, subject: dict[str, Any], comparisons: Sequence[Comparison], shown: Sequence[Enlarged]
) -> None:
    """Writes super_resolution.json, super_resolution.md and super_resolution.png.

    Args:
        folder: Made if it does not exist.
        subject: What was evaluated.
        comparisons: One per set of pictures.
        shown: The sets' pictures; some are shown.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = {"schema": SCHEMA, "subject": subject, "comparisons": [dataclasses.asdict(found) for found in comparisons]}
    write_json(folder / "super_resolution.json", data)
    write_text(folder / "super_resolution.md", super_resolution_markdown(subject, comparisons))
    figure = new_figure(width=10, height=2.3 * SHOWN * len(shown))
    panels = figure.subplots(SHOWN * len(shown), 4, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for number, enlarged in enumerate(shown):
        columns = {
            "input": enlarged.low,
            "Lanczos": enlarged.lanczos,
            "network": enlarged.network,
            "truth": enlarged.truth,
        }
        for row in range(min(SHOWN, len(enlarged.truth))):
            for column, (title, images) in enumerate(columns.items()):
                panel = panels[number * SHOWN + row, column]
                panel.imshow(images[row], interpolation="nearest")
                panel.set_title(f"{title}, {images.shape[1]} px", fontsize=8)
    save_figure(folder / "super_resolution.png", figure)


def super_resolution_markdown(subject: dict[str, Any], comparisons: Sequence[Comparison]) -> str:
    """The comparison as a table."""
    lines = [
        "# Super-resolution against Lanczos",
        "",
        ", ".join(f"{name} {value}" for name, value in subject.items()),
        "",
        "| pictures | sizes | method | PSNR (dB) | SSIM | identity | no face |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in comparisons:
        for quality in found.qualities:
            identity = "" if quality.identity is None else _identity(quality.identity)
            no_face = "" if quality.no_face is None else f"{quality.no_face:.1%}"
            lines.append(
                f"| {found.count} {found.pictures} | {found.sizes[0]} -> {found.sizes[1]} | {quality.method} "
                f"| {quality.psnr:.2f} | {quality.ssim:.3f} | {identity} | {no_face} |"
            )
    return "\n".join(lines) + "\n"


def _identity(mean: float) -> str:
    return "no face" if math.isnan(mean) else f"{mean:.3f}"


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of this size in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'id3pm[evaluate]'") from error
    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def save_figure(file: Path, figure: Any) -> None:
    """Writes a PNG that appears whole or not at all."""
    partial = _partial(file)
    figure.savefig(partial, dpi=110, format="png")
    partial.replace(file)


def write_json(file: Path, data: Any) -> None:
    """Writes JSON, with null for NaN and infinity, which JSON does not have."""
    write_text(file, json.dumps(_finite(data), indent=2, allow_nan=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes a text file that appears whole or not at all."""
    partial = _partial(file)
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.tmp")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
