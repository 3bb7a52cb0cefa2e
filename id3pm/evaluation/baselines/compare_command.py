"""`id3pm baseline compare`."""

from __future__ import annotations

import click

from id3pm.command_options import takes
from id3pm.evaluation import files
from id3pm.evaluation.baselines.compare_options import CompareOptions
from id3pm.evaluation.baselines.comparison import Comparison
from id3pm.evaluation.progress import progress_bar


@click.command("compare")
@takes(CompareOptions)
def compare_command(options: CompareOptions) -> None:
    """What is ID3PM worth beside older ways to invert an FR model?

    Gaussian sampling and GAN search with equal query budgets, NbNet, Vec2Face and ID3PM on the same targets:
    baselines.json, baselines.md, sheets of faces and interpolations for each set, and the images for id3pm study make
    in --out. What has been made is kept there and not made again.
    """
    files.new_figure(1, 1)  # a missing plot library is noticed now, not after hours
    with options.pipeline() as pipeline, progress_bar() as bar:
        Comparison(options, pipeline, bar).run()
    click.echo((options.out / "baselines.md").read_text(encoding="utf-8"))
