"""MODEL_CARD.md of a bundle.

Fields after Mitchell et al., "Model Cards for Model Reporting", 2019, and Hugging Face's card template. Text between
marks is rewritten from `bundle.json`; all other text is the author's and is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import click

from id3pm.formats.bundle import STAGES, Bundle, read_bundle, weights_hash
from id3pm.formats.training_card import SIZES, TO_DO, in_words, steps, table

CARD_FILE = "MODEL_CARD.md"
TEMPLATE = "model_card.md"


def write_card(folder: Path) -> Path:
    """Writes or renews a bundle's card.

    Args:
        folder: The bundle's; a card in it keeps its author's text.

    Returns:
        The card.

    Raises:
        BundleError: There is no readable bundle.
    """
    text = card_text(folder)
    file, partial = folder / CARD_FILE, folder / f".{CARD_FILE}.{os.getpid()}.tmp"
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
    return file


def is_current(folder: Path) -> bool:
    """Whether a bundle has a card that says what its `bundle.json` says.

    Raises:
        BundleError: There is no readable bundle.
    """
    file = folder / CARD_FILE
    return file.exists() and file.read_text(encoding="utf-8") == card_text(folder)


def card_text(folder: Path) -> str:
    """The current card: the existing one or a new one, with the fields of the bundle filled in.

    Raises:
        BundleError: There is no readable bundle.
    """
    bundle = read_bundle(folder)
    file = folder / CARD_FILE
    text = file.read_text(encoding="utf-8") if file.exists() else _new(bundle)
    hashes: dict[str, str] = {stage: weights_hash(folder, stage) for stage in STAGES}
    parts = {
        "details": _details(bundle, hashes),
        "licence": [f"Weights: {bundle.licence}."],
        **in_words(bundle.training_card),
    }
    for name, lines in parts.items():
        text = _replaced(text, name, lines)
    if text.startswith("---\n"):
        _, end, rest = text.partition("\n---\n")
        text = "\n".join([*_front(bundle), rest]) if end else text
    return text


def card_for_hub(folder: Path) -> str:
    """The current card with the front matter that the Hugging Face Hub reads, for its README.md.

    Raises:
        BundleError: There is no readable bundle.
    """
    text = card_text(folder)
    return text if text.startswith("---\n") else "\n".join([*_front(read_bundle(folder)), "", text])


def to_fill_in(folder: Path) -> int:
    """How many paragraphs of a bundle's card the author still has to write."""
    return (folder / CARD_FILE).read_text(encoding="utf-8").count(TO_DO)


@click.command("card")
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the card is missing or out of date.")
def card_command(bundle: Path, check: bool) -> None:
    """Write a bundle's MODEL_CARD.md, or renew what it has from bundle.json; your own text in it is kept."""
    if check:
        if not is_current(bundle):
            raise click.ClickException(f"{bundle / CARD_FILE} does not say what bundle.json says: id3pm card {bundle}")
        click.echo(f"{bundle / CARD_FILE} says what bundle.json says")
        return
    click.echo(f"{write_card(bundle)}: {to_fill_in(bundle)} paragraphs to be filled in")


def _new(bundle: Bundle) -> str:
    return (
        resources.files("id3pm.formats").joinpath(TEMPLATE).read_text(encoding="utf-8").replace("{name}", bundle.name)
    )


def _replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """The card with new text between two marks; a card without the marks is left as it is."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        return text
    return before + begin + "".join(f"{line}\n" for line in lines) + end + after


def _front(bundle: Bundle) -> list[str]:
    licence = bundle.licence.lower() if re.fullmatch(r"[A-Za-z0-9.-]+", bundle.licence) else "other"
    tags = ["face-generation", "diffusion", "id3pm", "synthetic"]
    return ["---", f"license: {licence}", "library_name: id3pm", "tags:", *(f"  - {tag}" for tag in tags), "---"]


def _details(bundle: Bundle, hashes: Mapping[str, str]) -> list[str]:
    card = bundle.training_card
    names: dict[object, str] = {None: "none", "landmarks": "set landmarks: head pose and expression, measured"}
    attributes = names.get(bundle.attribute_set, f"the paper's set {bundle.attribute_set}")
    base, sr = bundle.sampling, bundle.sr_sampling
    rows = [
        ("ID vectors", f"{bundle.id_vector_model}, {bundle.identity_dim} numbers"),
        ("attributes", attributes),
        ("exported", str(card["exported"])) if "exported" in card else None,
        *(_network(bundle, stage, hashes[stage]) for stage in STAGES),
        (
            "default sampling",
            f"{base.sampler}, {steps(base.steps)}, guidance {base.guidance_scale:g}; super-resolution {sr.sampler}, "
            f"{steps(sr.steps)}",
        ),
    ]
    return table(("", ""), [row for row in rows if row is not None])


def _network(bundle: Bundle, stage: str, sha256: str) -> tuple[str, str]:
    size = bundle.base.image_size if stage == "base" else bundle.sr.image_size
    trained = bundle.training_card.get(stage)
    parameters = trained.get("parameters") if isinstance(trained, Mapping) else None
    counted = f"{parameters / 1e6:.1f} M parameters, " if isinstance(parameters, int) else ""
    return SIZES[stage].removeprefix("the "), f"{counted}{size} px, weights `{sha256[:12]}`"
