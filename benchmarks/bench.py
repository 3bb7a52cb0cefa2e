"""`make bench`: sampling speed of our engines and of PyTorch and diffusers, each in a process of its own.

    python benchmarks/bench.py                    # the demo bundle, an 18 M-parameter network, presets, Triton
    python benchmarks/bench.py --full-size        # and the paper's base network: 10 GB of memory
    python benchmarks/bench.py --quick            # a network of no use, to see that it runs

All sample the same number of guided images with the same number of ancestral steps, taking turns; the tables show
medians. Writes bench.json, bench.md and bench.png.
"""

from __future__ import annotations

from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--bundle", type=FOLDER, default=ROOT / "bundles" / "demo")
@click.option(
    "--repository", type=FOLDER, default=ROOT / "triton_repo", help="Its built engines, as make engines does."
)
@click.option("--out", type=FOLDER, default=Path("out/bench"), show_default=True)
@click.option("--engines", help="Which to build and measure, such as onnx-cpu-fp32,onnx-cpu-int8; all if not given.")
@click.option("--full-size", is_flag=True, help="Measure the paper's base network too (295 M parameters).")
@click.option("--quick", is_flag=True, help="Only a tiny network; seconds.")
@click.option("--docs", type=click.Path(path_type=Path, dir_okay=False), help="Page to put the tables into as well.")
def main(
    bundle: Path, repository: Path, out: Path, engines: str | None, full_size: bool, quick: bool, docs: Path | None
) -> None:
    """Command line; see the module's text."""
    import suite  # here: workers import this file too, and should weigh no more than what they measure

    wanted = None if engines is None else engines.split(",")
    suite.run(bundle, repository, out, wanted, full_size=full_size, quick=quick, docs=docs)


if __name__ == "__main__":
    main()
