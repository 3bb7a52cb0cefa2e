"""The report on identity: JSON, markdown tables and plots."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.files import SCHEMA, new_figure, save_figure, save_sheet, write_json, write_text
from id3pm.evaluation.identity.study import ALWAYS, Setting, SettingResult
from id3pm.evaluation.identity.targets import Baseline, Measurement
from id3pm.evaluation.markdown import head, table
from id3pm.evaluation.verification.similarities import BINS, QUANTILES, Distribution, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityReport:
    """The results of `id3pm evaluate identity` so far.

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

    subject: dict[str, object]
    identities: int
    images_per_identity: int
    at_guidance: float
    at_steps: int
    baselines: tuple[Baseline, ...]
    results: tuple[SettingResult, ...]
    settings: int

    @property
    def series(self) -> list[str]:
        """In the order of the results."""
        return list(dict.fromkeys(result.setting.series for result in self.results))

    def by_guidance(self, series: str) -> list[SettingResult]:
        """The guidance sweep of a series, in order."""
        rows = [row for row in self._guided_always(series) if row.setting.steps == self.at_steps]
        return sorted(rows, key=lambda row: row.setting.guidance_scale)

    def by_steps(self, series: str) -> list[SettingResult]:
        """The steps sweep of a series, in order."""
        rows = [row for row in self._guided_always(series) if row.setting.guidance_scale == self.at_guidance]
        return sorted(rows, key=lambda row: row.setting.steps)

    def by_interval(self, series: str) -> list[SettingResult]:
        """The guidance intervals of a series, in order, with guidance at every step; empty if none was measured."""
        fixed = (self.at_steps, self.at_guidance)
        rows = [row for row in self.results if row.setting.series == series]
        rows = [row for row in rows if (row.setting.steps, row.setting.guidance_scale) == fixed]
        ordered = sorted(rows, key=lambda row: row.setting.interval)
        return ordered if any(row.setting.interval != ALWAYS for row in rows) else []

    def _guided_always(self, series: str) -> list[SettingResult]:
        rows = [row for row in self.results if row.setting.series == series]
        return [row for row in rows if row.setting.interval == ALWAYS]


def write_identity_report(folder: Path, report: IdentityReport) -> None:
    """Writes identity.json, identity.md and identity.png; existing files are replaced.

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
        *head("Identity of generated faces", report.subject),
        f"{report.identities} people held out from training, {report.images_per_identity} image(s) of each. Cosine "
        "similarity of generated image and target; the target flipped, slightly blurred and brightened is the "
        "same-face bound. Recovered: where the mean lies between impostors (0) and bound (1). Verification: LFW "
        "protocol, 10 folds; an image without a face is a wrong decision.",
        "",
        f"{len(report.results)} of {report.settings} settings done.",
        "",
        *table(
            ("judge", "impostors", "same-face bound", "verification with the bound's pictures"),
            [
                (_judge(base), _spread(base.impostors), _spread(base.bound), _accuracy(base))
                for base in report.baselines
            ],
        ),
    ]
    for series in report.series:
        lines += ["", f"## {series}, {report.at_steps} steps, by guidance scale", ""]
        lines += _table("guidance", [(f"{row.setting.guidance_scale:g}", row) for row in report.by_guidance(series)])
        lines += ["", f"## {series}, guidance scale {report.at_guidance:g}, by steps", ""]
        lines += _table("steps", [(str(row.setting.steps), row) for row in report.by_steps(series)])
        if rows := report.by_interval(series):
            where = f"{report.at_steps} steps, guidance scale {report.at_guidance:g}"
            lines += ["", f"## {series}, {where}, by the timesteps with guidance", ""]
            lines += _table("timesteps", [(_interval(row.setting), row) for row in rows])
    return "\n".join(lines) + "\n"


def _table(heading: str, rows: Sequence[tuple[str, SettingResult]]) -> list[str]:
    judges = [measurement.judge for measurement in rows[0][1].measurements] if rows else []
    names = [f"{judge}: {column}" for judge in judges for column in ("similarity", "recovered", "verification")]
    return table((heading, "evaluations", *names, "no face"), [(label, *_row(row)) for label, row in rows])


def _row(row: SettingResult) -> list[str]:
    cells = [cell for found in row.measurements for cell in _cells(found)]
    return [str(row.evaluations), *cells, f"{row.measurements[0].no_face:.1%}"]


def _interval(setting: Setting) -> str:
    return "all" if setting.interval == ALWAYS else f"{setting.guidance_low} .. {setting.guidance_high}"


def _cells(found: Measurement) -> tuple[str, str, str]:
    recovered = f"{found.recovered:.2f}" if found.similarity.count else "no face"
    return _spread(found.similarity), recovered, _accuracy(found)


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
        for series in report.series:
            _plot_means(panels[1], series, row, report.by_guidance(series), lambda r: r.setting.guidance_scale)
            _plot_means(panels[2], series, row, report.by_steps(series), lambda r: r.setting.steps)
        panels[1].set(xlabel="guidance scale", title=f"{report.at_steps} steps")
        panels[2].set(xlabel="steps", xscale="log", title=f"guidance scale {report.at_guidance:g}")
        ticks = sorted({r.setting.steps for r in report.results if r.setting.guidance_scale == report.at_guidance})
        panels[2].set_xticks(ticks, [str(tick) for tick in ticks])
        panels[2].minorticks_off()
        for panel in panels:
            panel.legend(fontsize=8)
    save_figure(file, figure)


def _plot_distributions(panel: Axes, report: IdentityReport, judge: int) -> None:
    base = report.baselines[judge]
    shown = [("impostors", base.impostors), ("same-face bound", base.bound)]
    reference = [r for r in report.by_steps(report.series[0]) if r.setting.steps == report.at_steps]
    shown[1:1] = [("generated", r.measurements[judge].similarity) for r in reference]
    for label, values in shown:
        share = np.array(values.histogram) / max(values.count, 1)
        panel.stairs(share, BINS, fill=True, alpha=0.5, label=f"{label} ({_mean(values)})")
    panel.set(xlabel=f"cosine similarity ({base.judge})", ylabel="share of pairs")
    panel.set(title=f"guidance scale {report.at_guidance:g}, {report.at_steps} steps")


def _plot_means(
    panel: Axes, series: str, judge: int, rows: Sequence[SettingResult], place: Callable[[SettingResult], float]
) -> None:
    similarity = [row.measurements[judge].similarity for row in rows]
    # Two standard errors over people.
    errors = [2 * values.std / math.sqrt(max(values.count, 1)) for values in similarity]
    panel.errorbar(
        [place(row) for row in rows],
        [values.mean for values in similarity],
        errors,
        marker="o",
        capsize=3,
        label=series,
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
    """
    rows = [[Tile(target, "target") for target in targets]]
    for seed in range(generated.shape[1]):
        rows.append(
            [
                Tile(images[seed], "\n".join(_similarity(*pair) for pair in zip(judges, found[:, seed], strict=True)))
                for images, found in zip(generated, np.stack(similarities, axis=1), strict=True)
            ]
        )
    save_sheet(file, grid(rows))


def _similarity(judge: str, value: float) -> str:
    return f"{judge} {value:.2f}" if np.isfinite(value) else f"{judge}: no face"
