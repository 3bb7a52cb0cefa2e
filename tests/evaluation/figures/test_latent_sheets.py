"""The sheets of the ID-vector space: they measure what a face generator does, and see one that does nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from fake_generator import DIM, PEOPLE, install, people_vectors
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures import directions, interpolation, mean, pca, projection, sheet
from id3pm.evaluation.figures.commands import SHEETS, sheet_group
from id3pm.evaluation.figures.directions import crosstalk
from id3pm.evaluation.figures.interpolation import pairs_of, pairs_shown
from id3pm.evaluation.figures.mean import ALTERED, agreement
from id3pm.evaluation.figures.projection import powers
from id3pm.idspace.directions import Card, Direction, Directions
from id3pm.idspace.pca import fit_pca
from id3pm.idspace.space import Space

SPACE = Space(id_vector_model="sface", identity_dim=DIM)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose latent/ has axes and directions; that it is no whole bundle is not the sheets' business."""
    folder = tmp_path / "bundle" / "latent"
    crowd = np.random.default_rng(0).standard_normal((300, DIM))
    crowd[:, 0] += 1.5
    fit_pca(crowd, id_vector_model="sface", trained_on="a crowd").save(folder / "pca.npz")
    found = [
        Direction(
            SPACE,
            np.eye(DIM)[axis] if name != "hat" else np.eye(DIM)[axis] * 0.8 + np.eye(DIM)[2] * 0.6,
            Card(name=name, label=name, low="-", high="+", step=0.1, model="linear", score=None, trained_on="given"),
        )
        for axis, name in ((2, "cheek_brightness"), (5, "hat"))
    ]
    Directions(SPACE, tuple(found)).save(folder / "directions.npz")
    monkeypatch.setattr(sheet, "latent_file", lambda path, kind: path / "latent" / f"{kind}.npz")
    return tmp_path / "bundle"


def report(tmp_path: Path, command: str, *words: object) -> dict[str, Any]:
    out = tmp_path / "out"
    words = (command, "--photo", tmp_path, "--out", out, *words)
    result = CliRunner().invoke(sheet_group, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    file = Path(result.output.strip())
    with Image.open(file) as image:
        assert image.width > 500 and "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    data: dict[str, Any] = json.loads(file.with_suffix(".json").read_text(), parse_constant=not_json)
    assert all(effect["kept"] and effect["moved"] for effect in data["effects"])
    assert not any("nan" in text for effect in data["effects"] for text in effect.values())
    return data


def not_json(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_every_sheet_has_its_command() -> None:
    for name in SHEETS:
        result = CliRunner().invoke(sheet_group, [name, "--help"], catch_exceptions=False)
        assert result.exit_code == 0 and "Usage" in result.output


def test_interpolation_falls_from_the_first_and_rises_to_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    data = report(tmp_path, "interpolation")
    assert data["monotonic"] == {"to_first_falls": 1.0, "to_second_rises": 1.0}
    assert data["correlation_with_t"]["to_first"] < -0.95 < 0.95 < data["correlation_with_t"]["to_second"]
    assert len(data["pairs"]) == PEOPLE and np.array(data["to_first"])[:, 0] == pytest.approx(np.ones(PEOPLE))
    install(monkeypatch, fidelity=1e-4)
    stuck = np.array(report(tmp_path, "interpolation")["to_first"])
    assert np.abs(stuck[:, -1] - stuck[:, 0]).max() < 0.01


def test_interpolation_shows_the_row_between_the_two_people_that_are_named() -> None:
    people, circle = ["01", "02", "03", "04"], pairs_of(4)
    drawn, shown = pairs_shown(people, circle, 2, ("04", "02"))
    assert [drawn[row] for row in shown] == [(3, 1)] and drawn[:4] == circle, "what is measured stays the same"
    drawn, shown = pairs_shown(people, circle, 2, ("04", "02", "01", "02"))
    assert [drawn[row] for row in shown] == [(3, 1), (1, 0), (0, 1)]
    drawn, shown = pairs_shown(people, circle, 2, ("03",))
    assert [drawn[row] for row in shown] == [(2, 3)] and drawn == circle
    assert pairs_shown(people, circle, 2, ()) == (circle, [0, 1])
    with pytest.raises(click.BadParameter, match="from one person to another"):
        pairs_shown(people, circle, 2, ("03", "03"))
    with pytest.raises(click.BadParameter, match="choose one of 01, 02, 03, 04"):
        pairs_shown(people, circle, 2, ("03", "09"))


@pytest.mark.parametrize(
    ("sheet", "words", "message"),
    [
        ("interpolation", ("--photo", "nosuch"), "there is no nosuch in .*: give a portrait"),
        ("pca", ("--photo", "."), "there is no bundles/demo in .*: give the bundle"),
    ],
)
def test_outside_a_checkout_a_sheet_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sheet: str, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(sheet_group, [sheet, *words])
    assert result.exit_code == 2 and re.search(message, " ".join(result.output.split())), result.output


@pytest.mark.parametrize("fidelity", [1.0, 0.5, 0.0])
def test_the_axis_sheet_measures_how_much_of_the_step_arrives(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, fidelity: float
) -> None:
    install(monkeypatch, fidelity=fidelity)
    data = report(tmp_path, "pca", "--bundle", bundle)
    got = np.array(data["got_of_asked"])
    if fidelity == 0.5:
        assert np.all((got > 0.2) & (got < 0.8))
    else:
        assert got == pytest.approx(np.full(3, fidelity), abs=1e-3)
    assert len(data["effects"]) == 3 and f"{got[0]:.0%} of what was asked" in data["effects"][0]["moved"]


@pytest.mark.parametrize("axes", [1, 2])
def test_an_axis_alone_has_no_others_to_move_along(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, axes: int
) -> None:
    install(monkeypatch)
    data = report(tmp_path, "pca", "--bundle", bundle, "--axes", axes)
    assert len(data["moved_along_others"]) == (axes if axes > 1 else 0)
    assert ("along the other" in data["effects"][0]["moved"]) == (axes > 1)


def test_words_for_the_ends_of_axes_are_for_axes_that_are_shown(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    report(tmp_path, "pca", "--bundle", bundle, "--ends", "bare forehead,long hair over the face")
    for words in (("--ends", "long hair"), ("--axes", 1, "--ends", "a,b", "--ends", "c,d")):
        wrong = CliRunner().invoke(sheet_group, ["pca", "--bundle", str(bundle), *map(str, words)])
        assert wrong.exit_code == 2 and "give LOW,HIGH" in wrong.output


def test_only_what_is_shown_is_enlarged(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, words, count in (
        (pca, ("pca", "--bundle", bundle), 3 * 4 + 1),
        (projection, ("projection", "--bundle", bundle), 5),
        (directions, ("directions", "--bundle", bundle), 2 * 4 + 1),
        (interpolation, ("interpolation",), 7),
        (mean, ("mean",), 1 + (len(ALTERED) - 1) + 1),
    ):
        enlarged = install(monkeypatch)
        for shown, times in (("--show", "2"), 2), (("--person", "03"), 1), (("--person", "03", "--person", "00"), 2):
            report(tmp_path, *words, *shown)
            rows = 1 if module is interpolation and shown[-1] == "00" else times  # one row leads from 03 to 00
            assert sum(enlarged) == rows * count, words[0]
            enlarged.clear()
        report(tmp_path, *words, "--no-super-resolution")
        assert not enlarged
        wrong = CliRunner().invoke(sheet_group, [*map(str, words), "--person", "unknown"])
        assert wrong.exit_code == 2 and "choose one of 00, 01, 02, 03" in wrong.output


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("module", [pca, projection, directions, interpolation, mean])
def test_where_no_face_is_found_the_sheet_says_so(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    install(monkeypatch, faceless=tuple(range(1000)))
    words = ("--bundle", bundle) if module in (pca, projection, directions) else ()
    effect = report(tmp_path, module.__name__.rpartition(".")[2], *words)["effects"][0]
    assert "no face" in effect["kept"]


def test_images_without_a_face_are_left_out(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, faceless=(0, 1))
    data = report(tmp_path, "pca", "--bundle", bundle)
    assert data["moved_along_axis"][0][0][0] is None
    assert data["got_of_asked"] == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)


def test_projection_comes_nearer_with_every_doubling(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    data = report(tmp_path, "projection", "--bundle", bundle)
    assert data["k"] == [1, 2, 4, 8, 16]
    near = np.array(data["to_target"])
    assert np.mean(np.diff(near, axis=1) > 0) > 0.9 and near[:, -1] == pytest.approx(np.ones(PEOPLE), abs=1e-3)
    assert data["enough"] in (8, 16)


def test_a_projection_without_a_last_face_has_no_number_of_axes_that_is_enough(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, faceless=tuple(range(4, 5 * PEOPLE, 5)))
    data = report(tmp_path, "projection", "--bundle", bundle)
    assert data["enough"] is None and {row[-1] for row in data["to_target"]} == {None}
    assert "no face with k = 16" in data["effects"][0]["kept"]


def test_directions_move_their_label_and_orthogonal_ones_no_other(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    data = report(tmp_path, "directions", "--bundle", bundle)
    cheeks, hat = data["directions"]["cheek_brightness"], data["directions"]["hat"]
    assert cheeks["measured"].startswith("brightness") and "ID vectors" in hat["measured"]
    for found in (cheeks, hat):
        assert found["correlation_with_strength"] > 0.98 and found["right_way"] == [PEOPLE, PEOPLE]
    assert 0.3 < data["crosstalk"]["hat"]["cheek_brightness"] < 0.9
    apart = report(tmp_path, "directions", "--bundle", bundle, "--orthogonal")
    assert abs(apart["crosstalk"]["hat"]["cheek_brightness"]) < 0.15
    assert (tmp_path / "out" / "directions.json").exists() and "without the others" in apart["effects"][0]["control"]
    one = report(tmp_path, "directions", "--bundle", bundle, "--name", "hat", "--strengths", "-1,0,1")
    assert list(one["directions"]) == ["hat"]
    wrong = CliRunner().invoke(sheet_group, ["directions", "--bundle", str(bundle), "--name", "beard"])
    assert wrong.exit_code == 2 and "choose one of cheek_brightness, hat" in wrong.output


def test_crosstalk_is_a_share_of_what_the_labels_own_direction_does() -> None:
    still, moving = np.zeros((2, 3)), np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]])
    values = {
        "cheek_brightness": {"cheek_brightness": moving, "hair_brightness": 0.5 * moving},
        "hair_brightness": {"cheek_brightness": still, "hair_brightness": -2.0 * moving},
        "age": {"cheek_brightness": moving, "hair_brightness": still},
    }
    assert crosstalk(values) == {
        "cheek_brightness": {"hair_brightness": pytest.approx(-0.25)},
        "hair_brightness": {"cheek_brightness": 0.0},
        "age": {"cheek_brightness": pytest.approx(1.0), "hair_brightness": 0.0},
    }
    unmoved = {"smile": {"smile": still, "brows": moving}, "brows": {"smile": moving, "brows": moving}}
    assert np.isnan(crosstalk(unmoved)["brows"]["smile"]), "a share of nothing is no number"


def test_the_mean_is_nearer_than_single_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    first = report(tmp_path, "mean")["people"][0]
    assert first["no_face"] == ["blurred"] and len(first["vectors"]) == len(ALTERED) - 1
    assert first["mean_vector"] > max(first["vectors"])
    assert first["image_of_mean"] == pytest.approx(first["mean_vector"], abs=1e-3)
    assert first["image_of_clean"] == pytest.approx(1.0)
    people = report(tmp_path, "mean", "--one-person", "--person", "one person")["people"]
    assert len(people) == 1 and people[0]["pictures"] == [f"{row:02d}" for row in range(PEOPLE)]
    assert people[0]["mean_vector"] > np.mean(people[0]["vectors"])
    # A generator that keeps everything gives faces as alike as the vectors: none is compared with what it was made of.
    assert people[0]["images"] == pytest.approx(people[0]["vectors"], abs=2e-3)
    assert people[0]["image_of_mean"] == pytest.approx(people[0]["mean_vector"], abs=1e-3)
    assert people[0]["image_of_clean"] is None


def test_agreement_without_a_truth_leaves_each_picture_out() -> None:
    vectors = people_vectors()
    single, whole = agreement(vectors, None)
    others = [np.delete(vectors, row, axis=0) for row in range(PEOPLE)]
    assert single == pytest.approx(
        [float(np.mean(rest @ one)) for rest, one in zip(others, vectors, strict=True)], abs=1e-6
    )
    sums = [rest.sum(axis=0) / np.linalg.norm(rest.sum(axis=0)) for rest in others]
    assert whole == pytest.approx(np.mean([float(a @ b) for a, b in zip(sums, vectors, strict=True)]), abs=1e-6)


@pytest.mark.parametrize("name", ALTERED)
def test_alterations_change_a_picture_and_keep_its_shape(name: str) -> None:
    for size in (64, 300):
        picture = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
        altered = ALTERED[name](picture)
        assert altered.shape == picture.shape and altered.dtype == np.uint8
        assert np.abs(altered.astype(int) - picture).mean() > 5
        assert np.array_equal(altered, ALTERED[name](picture))


def test_pairs_and_powers() -> None:
    assert pairs_of(4) == [(0, 1), (2, 3), (1, 2), (3, 0)] and pairs_of(2) == [(0, 1)]
    assert {len(pairs_of(count)) for count in (3, 5, 8)} == {3, 5, 8}
    assert powers(1) == [1] and powers(128) == [1, 2, 4, 8, 16, 32, 64, 128] and powers(100)[-2:] == [64, 100]
    with pytest.raises(InvalidInputError, match="two people"):
        pairs_of(1)


def test_axes_of_another_model_are_refused(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    fit_pca(np.random.default_rng(0).standard_normal((9, DIM)), id_vector_model="arcface", trained_on="").save(
        bundle / "latent" / "pca.npz"
    )
    with pytest.raises(InvalidInputError, match="for arcface vectors of 16 numbers, not for sface"):
        report(tmp_path, "pca", "--bundle", bundle)
    monkeypatch.setattr(sheet, "latent_file", lambda path, kind: None)
    with pytest.raises(InvalidInputError, match=r"no latent/pca\.npz: make it with id3pm latent fit-pca"):
        report(tmp_path, "pca", "--bundle", bundle)
