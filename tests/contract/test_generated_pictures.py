"""Files that show generated faces say so: IPTC digital source type `trainedAlgorithmicMedia`."""

from __future__ import annotations

import ast
from pathlib import Path

from PIL import Image

from id3pm.evaluation.files import new_figure, save_figure
from id3pm.formats.images import GENERATED_XMP, XMP_KEY

ROOT = Path(__file__).parents[2]
PLOTS = {"docs/benchmarks.png"}
"""Pictures in the repository without faces."""
WRITERS = {
    "id3pm/formats/images.py": {"save"},  # encode_png, marked where its callers say so
    "id3pm/evaluation/figures/sheet.py": {"save"},
    "id3pm/evaluation/figures/table.py": {"save"},
    "id3pm/evaluation/files.py": {"save", "savefig"},
    "id3pm/evaluation/robustness/report.py": {"save"},  # JPEG thumbnails of what was shown, none of them generated
    "client/src/id3pm_client/_images.py": {"save"},
    "client/src/id3pm_client/_cli.py": {"save"},  # GeneratedImage.save
    "id3pm/synthetic/shard_files.py": {"save"},  # JPEG with the same XMP: tests/synthetic/test_shard.py
    "demo/run.py": {"save"},
    "id3pm/page/html.py": {"save"},  # data URIs, in the page; downloads are the bytes of `GeneratedImage.png`
}
"""Files that write pictures of faces, and by which method."""
NO_FACES = {
    "id3pm/training/preview.py": {"savefig"},
    "benchmarks/plot.py": {"savefig"},
    "benchmarks/load/charts.py": {"savefig"},
}
"""Files that write plots only."""
PLOT_WRITERS = ("savefig", "imsave", "imwrite")
PICTURES = ("image", "picture", "sheet", "figure", "resize")
"""Words in the name of what is saved as a picture."""


def is_marked(file: Path) -> bool:
    with Image.open(file) as image:
        return bool(image.info.get(XMP_KEY) == GENERATED_XMP)


def pictures() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT)) for folder in ("docs", "id3pm/samples") for path in (ROOT / folder).rglob("*.png")
    )


def test_the_repositorys_own_pictures_of_generated_faces_are_marked() -> None:
    for name in pictures():
        assert is_marked(ROOT / name) == (name not in PLOTS), name


def test_a_figure_is_marked_where_it_shows_faces(tmp_path: Path) -> None:
    for generated in (True, False):
        save_figure(tmp_path / "figure.png", new_figure(1, 1), generated=generated)
        assert is_marked(tmp_path / "figure.png") == generated


def test_pictures_are_written_in_known_places_alone() -> None:
    """A new place that saves pictures must be looked at: does it mark generated faces?"""
    for path in sorted(
        path for folder in ("id3pm", "client/src", "demo", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ):
        name = str(path.relative_to(ROOT))
        known = WRITERS.get(name, set()) | NO_FACES.get(name, set())
        source = path.read_text()
        if not any(f".{way}" in source for way in ("save", *PLOT_WRITERS)):
            continue
        for call in ast.walk(ast.parse(source)):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            way = call.func.attr
            if way in PLOT_WRITERS or (way == "save" and any(word in ast.unparse(call.func) for word in PICTURES)):
                assert way in known, f"{name} writes a picture by {ast.unparse(call.func)}"
