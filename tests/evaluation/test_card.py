"""The figures of reports in a bundle's training card: whole, about these weights, and nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.evaluation.card import write_figures
from id3pm.evaluation.commands import evaluate_group
from id3pm.formats.bundle import read_bundle, verify, weights_hash
from tests.tiny_bundle import write_tiny_bundle

SPREAD = {"count": 9, "mean": 0.123456, "std": 0.1, "quantiles": [], "histogram": []}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def identity_report(folder: Path, weights: str, **changes: Any) -> Path:
    judgement = {
        "judge": "sface",
        "similarity": SPREAD,
        "recovered": 0.6,
        "no_face": 0.0,
        "verification": {"accuracy": 0.95, "standard_error": 0.01, "threshold": 0.3, "pairs": 40},
    }
    faceless = {**judgement, "similarity": {**SPREAD, "mean": None}, "recovered": None, "no_face": 1.0}
    report = {
        "schema": 1,
        "subject": {"bundle": "tiny", "weights": weights, "precision": "fp32", "size": 64},
        "identities": 20,
        "images_per_identity": 1,
        "settings": 2,
        "baselines": [{"judge": "sface", "independent": False, "impostors": SPREAD, "bound": SPREAD}],
        "results": [
            {
                "setting": {"sampler": "ddim", "steps": 10, "guidance_scale": 2.0},
                "evaluations": 20,
                "measurements": [judgement],
            },
            {
                "setting": {"sampler": "ddim", "steps": 1, "guidance_scale": 2.0},
                "evaluations": 2,
                "measurements": [faceless],
            },
        ],
        **changes,
    }
    file = folder / "identity.json"
    file.write_text(json.dumps(report), encoding="utf-8")
    return file


def super_resolution_report(folder: Path, weights: str) -> Path:
    qualities = [
        {"method": method, "psnr": psnr, "ssim": 0.8, "perceptual": 0.5, "identity": None, "no_face": None}
        for method, psnr in (("lanczos", 27.0), ("network", 28.0))
    ]
    report = {
        "schema": 1,
        "subject": {"weights": weights, "steps": 8},
        "comparisons": [{"pictures": "photographs", "count": 14, "sizes": [64, 256], "qualities": qualities}],
    }
    file = folder / "super_resolution.json"
    file.write_text(json.dumps(report), encoding="utf-8")
    return file


def test_figures_join_the_card_and_nothing_else_changes(bundle: Path, tmp_path: Path) -> None:
    before = read_bundle(bundle)
    write_figures(bundle, identity_report(tmp_path, weights_hash(bundle, "base")[:12]), None)
    write_figures(bundle, None, super_resolution_report(tmp_path, weights_hash(bundle, "sr")[:12]))
    after = verify(bundle)
    measured = after.training_card.pop("measured")
    assert after == before
    first, second = measured["identity"]["settings"]
    assert (first["sampler"], first["steps"], first["evaluations"]) == ("ddim", 10, 20)
    assert first["sface"] == {"similarity": 0.1235, "recovered": 0.6, "verification": 0.95, "no_face": 0.0}
    assert second["sface"]["similarity"] is None and second["sface"]["no_face"] == 1.0
    assert measured["identity"]["yardsticks"]["sface"]["seen_in_training"] is True
    (photographs,) = measured["super_resolution"]["pictures"]
    assert photographs["network"] == {"psnr": 28.0, "ssim": 0.8, "perceptual": 0.5, "identity": None}
    text = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| ddim, 10 steps, guidance 2 | 0.123 | 95.0% | 0.0% |" in text
    assert "| 14 photographs, 64 -> 256 px | network | 28.0 dB | 0.800 | 0.500 |  |" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": 3}, "2 of 3 settings are done"),
        ({"schema": 7}, "schema 7"),
        ({"subject": {"weights": "0123456789ab"}}, "is about weights 0123456789ab"),
        ({"subject": {}}, "is about weights None"),
    ],
)
def test_what_is_not_about_these_weights_is_refused(
    bundle: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = (bundle / "bundle.json").read_bytes()
    report = identity_report(tmp_path, weights_hash(bundle, "base")[:12], **changes)
    with pytest.raises(InvalidInputError, match=message):
        write_figures(bundle, report, None)
    assert (bundle / "bundle.json").read_bytes() == before


def test_command(bundle: Path, tmp_path: Path) -> None:
    report = super_resolution_report(tmp_path, weights_hash(bundle, "sr")[:12])
    run = CliRunner().invoke(evaluate_group, ["card", "--bundle", str(bundle), "--super-resolution", str(report)])
    assert run.exit_code == 0 and "training card has super_resolution" in run.output
    assert CliRunner().invoke(evaluate_group, ["card", "--bundle", str(bundle)]).exit_code == 2
    for text, problem in (("[]", "list indices"), ("{}", "it has no 'schema'"), ("{", "Expecting")):
        (tmp_path / "broken.json").write_text(text, encoding="utf-8")
        with pytest.raises(Id3pmError, match=rf"broken\.json is not a report of `id3pm evaluate`: {problem}"):
            write_figures(bundle, tmp_path / "broken.json", None)
