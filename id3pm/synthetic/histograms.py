"""The picture of a data set's similarities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.files import new_figure, save_figure
from id3pm.synthetic.plan_header import Filters

LOWEST = -0.2
"""Where the axes begin, unless there are smaller values: all plots have one scale."""
TITLES = {
    "similarity": "image and its target",
    "other_similarity": "image and the nearest other identity",
    "second_similarity": "second model: image and the identity's others",
}
LIMITS = {"similarity": "least_similarity", "other_similarity": "most_other", "second_similarity": "least_second"}


def draw_similarities(file: Path, similarities: Mapping[str, NDArray[np.float64]], filters: Filters) -> None:
    """One histogram for each similarity that was measured, with the limit of its filter.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    measured = {name: values for name, values in similarities.items() if len(values)}
    figure = new_figure(7.0, 0.6 + 2.4 * max(len(measured), 1))
    if not measured:
        figure.text(0.5, 0.5, "no similarities were measured", ha="center", va="center")
    plots: Any = figure.subplots(len(measured), squeeze=False)[:, 0] if measured else []
    for axes, (name, values) in zip(plots, measured.items(), strict=True):
        axes.hist(values, bins=np.linspace(min(LOWEST, float(values.min())), 1.0, 121).tolist(), color="#4477aa")
        limit = getattr(filters, LIMITS[name])
        if limit is not None:
            axes.axvline(limit, color="#cc3311", label=f"limit {limit:g}")
            axes.legend(frameon=False, loc="upper left")
        axes.set_title(f"{TITLES[name]} ({len(values)} images, median {np.median(values):.3f})", fontsize=10)
        axes.set_ylabel("images")
    if measured:
        plots[-1].set_xlabel("similarity")
    save_figure(file, figure)
