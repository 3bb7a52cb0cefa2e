"""The user study: the page that is made, what a participant leaves in a real browser, and the statistics."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from id3pm.cli import cli
from id3pm.errors import InvalidInputError
from id3pm.evaluation.user_study.collect import collect, table
from id3pm.evaluation.user_study.make import QUESTIONS, make_study
from id3pm.formats.images import encode_png
from screenshots import chromium

METHODS = ("alpha", "beta", "gamma")
PEOPLE = ("ann", "bob")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of two people by three methods."""
    for number, (method, person) in enumerate(itertools.product(("targets", *METHODS), PEOPLE)):
        file = tmp_path / "pictures" / method / f"{person}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((64, 64, 3), 20 * number + 10, np.uint8)
        file.write_bytes(encode_png(image, {"receipt": f"made by {method}"}, generated=True))
    return tmp_path / "pictures"


def answers(key: dict[str, Any], participant: str, order: tuple[str, ...]) -> dict[str, Any]:
    """A participant who ranks the methods in this order everywhere."""
    rows = []
    items = {item: owners for of_set in key["sets"].values() for item, owners in of_set["items"].items()}
    for item, question in itertools.product(items, QUESTIONS):
        tokens = {method: token for token, method in items[item]["candidates"].items()}
        ranking = [tokens[method] for method in order if method in tokens]
        rows.append({"item": item, "question": question["id"], "shown": ranking, "ranking": ranking, "seconds": 1.0})
    return {"schema": 1, "study": key["study"], "participant": participant, "answers": rows}


def write(folder: Path, content: dict[str, Any], name: str) -> Path:
    file = folder / name
    file.write_text(json.dumps(content))
    return file


def test_page_names_no_method_and_keeps_no_metadata(folder: Path, tmp_path: Path) -> None:
    assert make_study([folder], tmp_path, "A <study>") == {"pictures": (2, list(METHODS))}
    page = (tmp_path / "study.html").read_text()
    assert not any(name in page for name in (*METHODS, *PEOPLE, "made by", "pictures/"))
    assert "A &lt;study&gt;" in page and "http://" not in page and "https://" not in page
    assert page.count("data:image/png;base64,") == 2 * 4


def test_ranks_of_agreeing_participants(folder: Path, tmp_path: Path) -> None:
    make_study([folder], tmp_path, "study")
    key = json.loads((tmp_path / "study_key.json").read_text())
    orders = [("beta", "alpha", "gamma")] * 4
    files = [write(tmp_path, answers(key, str(n), order), f"{n}.json") for n, order in enumerate(orders)]
    identity, realism = collect(tmp_path / "study_key.json", files)["pictures"]
    assert identity.mean_ranks == realism.mean_ranks == {"alpha": 2.0, "beta": 1.0, "gamma": 3.0}
    # Friedman's formula: 12 / (n k (k + 1)) sum R^2 - 3 n (k + 1) with n = 4, k = 3, R = 8, 4, 12.
    assert identity.friedman == pytest.approx(12 / 48 * (64 + 16 + 144) - 48)
    assert identity.kendalls_w == pytest.approx(1.0)
    assert identity.p_value == pytest.approx(np.exp(-identity.friedman / 2))  # chi-squared of two degrees of freedom
    assert "| beta | **1.00** (1.00 .. 1.00) | **1.00** (1.00 .. 1.00) |" in table({"pictures": [identity, realism]})


def test_ranks_of_disagreeing_participants_have_intervals_and_no_agreement(folder: Path, tmp_path: Path) -> None:
    make_study([folder], tmp_path, "study")
    key = json.loads((tmp_path / "study_key.json").read_text())
    orders = list(itertools.permutations(METHODS))
    files = [write(tmp_path, answers(key, str(n), order), f"{n}.json") for n, order in enumerate(orders)]
    found = collect(tmp_path / "study_key.json", files)["pictures"][0]
    assert set(found.mean_ranks.values()) == {2.0} and found.kendalls_w == pytest.approx(0.0)
    low, high = found.intervals["alpha"]
    assert 1.0 <= low < 2.0 < high <= 3.0
    alone = collect(tmp_path / "study_key.json", files[:1])
    assert np.isnan(alone["pictures"][0].friedman) and "no test with fewer than three methods" in table(alone)


def test_two_sets_with_other_methods_stand_side_by_side(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "vec2face_images"
    shutil.copytree(folder, second)
    shutil.rmtree(second / "gamma")
    (second / "beta").rename(second / "delta")
    made = make_study([folder, second], tmp_path, "study")
    assert made == {"pictures": (2, list(METHODS)), "vec2face_images": (2, ["alpha", "delta"])}
    assert "vec2face" not in (tmp_path / "study.html").read_text()
    key = json.loads((tmp_path / "study_key.json").read_text())
    file = write(tmp_path, answers(key, "one", ("gamma", "delta", "beta", "alpha")), "one.json")
    found = collect(tmp_path / "study_key.json", [file])
    assert found["vec2face_images"][0].mean_ranks == {"alpha": 2.0, "delta": 1.0}
    assert table(found).splitlines()[:5] == [
        "| pictures | identity | realism | vec2face_images | identity | realism |",
        "|---|---|---|---|---|---|",
        "| alpha | 3.00 (3.00 .. 3.00) | 3.00 (3.00 .. 3.00) | alpha | 2.00 (2.00 .. 2.00) | 2.00 (2.00 .. 2.00) |",
        "| beta | 2.00 (2.00 .. 2.00) | 2.00 (2.00 .. 2.00) | delta | **1.00** (1.00 .. 1.00) "
        "| **1.00** (1.00 .. 1.00) |",
        "| gamma | **1.00** (1.00 .. 1.00) | **1.00** (1.00 .. 1.00) |  |  |  |",
    ]
    with pytest.raises(InvalidInputError, match="two sets have the name 'pictures'"):
        make_study([folder, folder], tmp_path, "study")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(study="other"), "is of study 'other': the key is of"),
        (lambda found: found["answers"].pop(), "has 3 answers: the study has 4"),
        (lambda found: found["answers"].append(found["answers"][0]), "answer 5 of .* were answered before"),
        (lambda found: found["answers"][0]["ranking"].pop(), "answer 1 of .* does not rank each picture"),
        (lambda found: found["answers"][0].update(ranking=[[], 1, 2]), "answer 1 of .* does not rank each picture"),
        (lambda found: found["answers"][0].update(item="x"), "answer 1 of .* is on item 'x'"),
        (lambda found: found["answers"][0].update(question=[]), "answer 1 of .* question"),
        (lambda found: found.update(answers=None), "has 0 answers: the study has 4"),
        (lambda found: found.update(participant="first"), "is of participant 'first', as first.json"),
    ],
)
def test_answers_that_break_a_rule_are_named(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    make_study([folder], tmp_path, "study")
    key = json.loads((tmp_path / "study_key.json").read_text())
    good = answers(key, "first", METHODS)
    bad = copy.deepcopy({**good, "participant": "second"})
    change(bad)
    files = [write(tmp_path, good, "first.json"), write(tmp_path, bad, "second.json")]
    with pytest.raises(InvalidInputError, match=f"second.json.*{message}|{message}"):
        collect(tmp_path / "study_key.json", files)
    (tmp_path / "text.json").write_text("no JSON")
    with pytest.raises(InvalidInputError, match="text.json is not JSON"):
        collect(tmp_path / "study_key.json", [tmp_path / "text.json"])
    with pytest.raises(InvalidInputError, match="first.json is no key of a study"):
        collect(files[0], files)


def test_missing_pictures_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "beta/bob.png").unlink()
    with pytest.raises(InvalidInputError, match="beta has no picture bob, which targets has"):
        make_study([folder], tmp_path, "study")
    with pytest.raises(InvalidInputError, match="has 0 pictures in targets and 0 other folders"):
        make_study([folder / "alpha"], tmp_path, "study")


def test_a_participant_ranks_by_keyboard_and_by_dragging_in_a_browser(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["study", "make", str(folder), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    key = json.loads((tmp_path / "study_key.json").read_text())
    owners = {
        token: name for item in key["sets"]["pictures"]["items"].values() for token, name in item["candidates"].items()
    }
    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(chromium(tmp_path / "profile"))
        except FileNotFoundError as missing:
            if os.environ.get("ID3PM_REQUIRE_BROWSER"):
                pytest.fail(str(missing))
            pytest.skip(str(missing))
        browser.get((tmp_path / "study.html").as_uri())
        _rank_by_keyboard(browser, owners)
        for _ in range(3):
            _rank_by_dragging(browser, owners)
        text = browser.find_element("css selector", "#save").get_attribute("data-answers")
        assert not browser.find_element("css selector", "#task").is_displayed()
        errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    found = json.loads(text)
    assert len(found["participant"]) == 32
    saved = write(tmp_path, found, "answers.json")
    arguments = [
        "study",
        "collect",
        str(saved),
        "--key",
        str(tmp_path / "study_key.json"),
        "--out",
        str(tmp_path / "r"),
    ]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "| gamma | **1.00**" in result.output
    assert [each["mean_ranks"]["gamma"] for each in json.loads((tmp_path / "r").read_text())["pictures"]] == [1.0, 1.0]


def _cards(browser: Any, owners: dict[str, str]) -> dict[str, Any]:
    cards = browser.find_elements("css selector", "#cards li")
    return {owners[card.get_attribute("data-id")]: card for card in cards}


def _rank_by_keyboard(browser: Any, owners: dict[str, str]) -> None:
    """Moves gamma to the left end."""
    for _ in range(2):
        _cards(browser, owners)["gamma"].send_keys("\ue012")  # the left arrow key
    assert next(iter(_cards(browser, owners))) == "gamma"
    browser.find_element("css selector", "#next").click()


def _rank_by_dragging(browser: Any, owners: dict[str, str]) -> None:
    """Drops gamma on the leftmost card, by the events of a drag: headless browsers start none from the mouse."""
    cards = _cards(browser, owners)
    first = next(iter(cards.values()))
    if cards["gamma"] != first:
        script = """
        const [card, onto] = arguments, data = new DataTransfer();
        const send = (target, type) =>
          target.dispatchEvent(new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: data}));
        send(card, "dragstart"); send(onto, "dragover"); send(onto, "drop");
        """
        browser.execute_script(script, cards["gamma"], first)
    assert next(iter(_cards(browser, owners))) == "gamma"
    browser.find_element("css selector", "#next").click()
