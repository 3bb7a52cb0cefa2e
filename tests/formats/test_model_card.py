"""MODEL_CARD.md: says what bundle.json says, and keeps what its author wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_bundle import write_tiny_bundle

from id3pm.errors import BundleError
from id3pm.formats.bundle import read_bundle, replace_card
from id3pm.formats.model_card import CARD_FILE, TO_DO, card_command, is_current, to_fill_in, write_card

BUNDLES = Path(__file__).parents[2] / "bundles"
DEMO = BUNDLES / "demo"
SECTIONS = (
    "Model details",
    "Intended use",
    "Out-of-scope use",
    "Training data",
    "Training",
    "Evaluation",
    "Limitations",
    "Bias and risks",
    "Environmental impact",
    "Licence",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path)
    return tmp_path


def text_of(folder: Path) -> str:
    return (folder / CARD_FILE).read_text(encoding="utf-8")


def sections(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"^## (.+)$", text, re.MULTILINE))


def test_the_demo_bundle_has_a_whole_card_that_is_current() -> None:
    for bundle in (DEMO, BUNDLES / "demo_attributes", BUNDLES / "demo_student"):
        assert is_current(bundle), f"run: id3pm card bundles/{bundle.name}"
    text = text_of(DEMO)
    assert sections(text) == SECTIONS
    assert to_fill_in(DEMO) == 0
    assert set(re.findall(r"<!-- (\w+) -->", text)) == {"details", "data", "training", "figures", "compute", "licence"}


def test_the_figures_are_those_of_bundle_json() -> None:
    text = text_of(DEMO)
    measured = read_bundle(DEMO).training_card["measured"]
    for setting in measured["identity"]["settings"]:
        (line,) = re.findall(
            rf"^\| {setting['sampler']}, {setting['steps']} steps, guidance {setting['guidance_scale']:g} \|.*$",
            text,
            re.M,
        )
        cells = [cell.strip() for cell in line.split("|")[2:-1]]
        for judge in measured["identity"]["yardsticks"]:
            found, cells = cells[:3], cells[3:]
            assert found[0] == f"{setting[judge]['similarity']:.3f}"
            assert found[1] == f"{setting[judge]['verification']:.1%}"
        assert not cells
    for stage in ("base", "sr"):  # images of all runs of a stage
        card = read_bundle(DEMO).training_card[stage]
        assert f"| {card['images_seen'] + card['started_from']['images_seen']:,} |" in text


def test_a_new_card_says_what_is_known_and_leaves_the_rest_to_its_author(bundle: Path) -> None:
    write_card(bundle)
    text = text_of(bundle)
    assert text.startswith("---\nlicense: mit\n") and sections(text) == SECTIONS
    assert "# Model card: tiny" in text and "| ID vectors | sface, 8 numbers |" in text
    assert "the paper's set 1" in text and "Weights: MIT." in text
    assert to_fill_in(bundle) == text.count(TO_DO) == 7


def test_what_the_author_wrote_stays_and_what_the_bundle_knows_is_renewed(bundle: Path) -> None:
    write_card(bundle)
    text = text_of(bundle).replace(f"{TO_DO} whose faces", "My own face, three times;", 1)
    (bundle / CARD_FILE).write_text(text + "\nAn appendix.\n", encoding="utf-8")
    card = {"base": {"training_seconds": 7200, "hardware": "an abacus"}}
    replace_card(bundle, card)
    assert not is_current(bundle)
    write_card(bundle)
    assert is_current(bundle)
    text = text_of(bundle)
    assert "My own face, three times;" in text and text.endswith("An appendix.\n")
    assert "- the 64 px network: the run took 2.0 h on an abacus" in text


def test_an_author_may_take_marks_away(bundle: Path) -> None:
    (bundle / CARD_FILE).write_text("# Mine\n\n<!-- licence -->\nold\n<!-- /licence -->\n", encoding="utf-8")
    write_card(bundle)
    assert text_of(bundle) == "# Mine\n\n<!-- licence -->\nWeights: MIT.\n<!-- /licence -->\n"


def test_text_of_the_bundle_is_not_taken_for_a_pattern(bundle: Path) -> None:
    data = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    (bundle / "bundle.json").write_text(json.dumps({**data, "licence": r"mine \1 \g<0>"}), encoding="utf-8")
    write_card(bundle)
    assert r"Weights: mine \1 \g<0>." in text_of(bundle) and "license: other" in text_of(bundle)


@pytest.mark.parametrize("card", [{"base": "secret"}, {"measured": {"identity": []}}, {"converted_from": 3}])
def test_a_training_card_of_another_form_is_left_to_the_author(bundle: Path, card: dict[str, object]) -> None:
    replace_card(bundle, card)
    write_card(bundle)
    assert "has a form of its own" in text_of(bundle)


def test_command(bundle: Path) -> None:
    run = CliRunner().invoke(card_command, [str(bundle), "--check"])
    assert run.exit_code == 1 and "does not say what bundle.json says" in run.output
    assert not (bundle / CARD_FILE).exists()
    run = CliRunner().invoke(card_command, [str(bundle)])
    assert run.exit_code == 0 and "7 paragraphs to be filled in" in run.output
    assert CliRunner().invoke(card_command, [str(bundle), "--check"]).exit_code == 0


def test_without_a_bundle_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        write_card(tmp_path)
    assert not (tmp_path / CARD_FILE).exists()
