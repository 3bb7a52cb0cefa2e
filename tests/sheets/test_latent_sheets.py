"""The sheets of the ID-vector space: they measure what a generator does, and see one that does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fake_studio import DIM, PEOPLE, install, people_vectors
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.latent.directions import Card, Direction, Directions
from id3pm.latent.pca import fit_pca
from id3pm.latent.vectors import Space
from id3pm.sheets import directions, interpolation, latent, mean, pca, projection
from id3pm.sheets.commands import SHEETS, sheet_group
from id3pm.sheets.directions import crosstalk
from id3pm.sheets.interpolation import pairs_of
from id3pm.sheets.mean import ALTERED, agreement
from id3pm.sheets.projection import powers

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
        for axis, name in ((2, "skin"), (5, "hat"))
    ]
    Directions(SPACE, tuple(found)).save(folder / "directions.npz")
    monkeypatch.setattr(latent, "latent_file", lambda path, kind: path / "latent" / f"{kind}.npz")
    return tmp_path / "bundle"


def report(tmp_path: Path, command: str, *words: object) -> dict[str, Any]:
    out = tmp_path / "out"
    words = (command, "--photo", tmp_path, "--out", out, *words)
    result = CliRunner().invoke(sheet_group, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    file = Path(result.output.strip())
    with Image.open(file) as image:
        assert image.width > 500 and "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    data: dict[str, Any] = json.loads(file.with_suffix(".json").read_text())
    assert all(effect["kept"] and effect["moved"] for effect in data["effects"])
    return data


def test_every_sheet_has_its_command() -> None:
    for name in SHEETS:
        result = CliRunner().invoke(sheet_group, [name, "--help"], catch_exceptions=False)
        assert result.exit_code == 0 and "Usage" in result.output


def test_interpolation_falls_from_the_first_and_rises_to_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, interpolation)
    data = report(tmp_path, "interpolation")
    assert data["monotonic"] == {"to_first_falls": 1.0, "to_second_rises": 1.0}
    assert data["correlation_with_t"]["to_first"] < -0.95 < 0.95 < data["correlation_with_t"]["to_second"]
    assert len(data["pairs"]) == PEOPLE and np.array(data["to_first"])[:, 0] == pytest.approx(np.ones(PEOPLE))
    install(monkeypatch, interpolation, fidelity=1e-4)
    stuck = np.array(report(tmp_path, "interpolation")["to_first"])
    assert np.abs(stuck[:, -1] - stuck[:, 0]).max() < 0.01


@pytest.mark.parametrize("fidelity", [1.0, 0.5, 0.0])
def test_the_axis_sheet_measures_how_much_of_the_step_arrives(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, fidelity: float
) -> None:
    install(monkeypatch, pca, fidelity=fidelity)
    data = report(tmp_path, "pca", "--bundle", bundle)
    got = np.array(data["got_of_asked"])
    if fidelity == 0.5:
        assert np.all((got > 0.2) & (got < 0.8))
    else:
        assert got == pytest.approx(np.full(3, fidelity), abs=1e-3)
    assert len(data["effects"]) == 3 and f"{got[0]:.0%} of what was asked" in data["effects"][0]["moved"]


def test_images_without_a_face_are_left_out(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, pca, faceless=(0, 1))
    data = report(tmp_path, "pca", "--bundle", bundle)
    assert data["moved_along_axis"][0][0][0] is None
    assert data["got_of_asked"] == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)


def test_projection_comes_nearer_with_every_doubling(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, projection)
    data = report(tmp_path, "projection", "--bundle", bundle)
    assert data["k"] == [1, 2, 4, 8, 16]
    near = np.array(data["to_target"])
    assert np.mean(np.diff(near, axis=1) > 0) > 0.9 and near[:, -1] == pytest.approx(np.ones(PEOPLE), abs=1e-3)
    assert data["enough"] in (8, 16)


def test_directions_move_their_label_and_orthogonal_ones_no_other(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, directions)
    data = report(tmp_path, "directions", "--bundle", bundle)
    skin, hat = data["directions"]["skin"], data["directions"]["hat"]
    assert skin["measured"].startswith("brightness") and "ID vectors" in hat["measured"]
    for found in (skin, hat):
        assert found["correlation_with_strength"] > 0.98 and found["right_way"] == [PEOPLE, PEOPLE]
    assert 0.3 < data["crosstalk"]["hat"]["skin"] < 0.9
    apart = report(tmp_path, "directions", "--bundle", bundle, "--orthogonal")
    assert abs(apart["crosstalk"]["hat"]["skin"]) < 0.15
    assert (tmp_path / "out" / "directions.json").exists() and "without the others" in apart["effects"][0]["control"]
    one = report(tmp_path, "directions", "--bundle", bundle, "--name", "hat", "--strengths", "-1,0,1")
    assert list(one["directions"]) == ["hat"]
    wrong = CliRunner().invoke(sheet_group, ["directions", "--bundle", str(bundle), "--name", "beard"])
    assert wrong.exit_code == 2 and "choose one of skin, hat" in wrong.output


def test_crosstalk_is_a_share_of_what_the_labels_own_direction_does() -> None:
    still, moving = np.zeros((2, 3)), np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]])
    values = {
        "skin": {"skin": moving, "hair": 0.5 * moving},
        "hair": {"skin": still, "hair": -2.0 * moving},
        "age": {"skin": moving, "hair": still},
    }
    assert crosstalk(values) == {
        "skin": {"hair": pytest.approx(-0.25)},
        "hair": {"skin": 0.0},
        "age": {"skin": pytest.approx(1.0), "hair": 0.0},
    }


def test_the_mean_is_nearer_than_single_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mean)
    first = report(tmp_path, "mean")["people"][0]
    assert first["no_face"] == ["blurred"] and len(first["vectors"]) == len(ALTERED) - 1
    assert first["mean_vector"] > max(first["vectors"])
    assert first["image_of_mean"] == pytest.approx(first["mean_vector"], abs=1e-3)
    people = report(tmp_path, "mean", "--one-person")["people"]
    assert len(people) == 1 and people[0]["pictures"] == [f"{row:02d}" for row in range(PEOPLE)]
    assert people[0]["mean_vector"] > np.mean(people[0]["vectors"])


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
    install(monkeypatch, pca)
    fit_pca(np.random.default_rng(0).standard_normal((9, DIM)), id_vector_model="arcface", trained_on="").save(
        bundle / "latent" / "pca.npz"
    )
    with pytest.raises(InvalidInputError, match="for arcface vectors of 16 numbers, not for sface"):
        report(tmp_path, "pca", "--bundle", bundle)
    monkeypatch.setattr(latent, "latent_file", lambda path, kind: None)
    with pytest.raises(InvalidInputError, match=r"no latent/pca\.npz: make it with id3pm latent fit-pca"):
        report(tmp_path, "pca", "--bundle", bundle)
