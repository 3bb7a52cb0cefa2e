"""`id3pm latent`: from vectors and labels to files, and from files to vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from id3pm.errors import InvalidInputError
from id3pm.formats import datasets as shards
from id3pm.idspace.commands import latent_group
from id3pm.idspace.directions import Directions
from id3pm.idspace.files import labelled, read_labels, read_vectors
from id3pm.idspace.pca import Pca
from id3pm.idspace.vectors import lerp, mean_vector, slerp

DIM, PEOPLE = 8, 120
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.standard_normal((PEOPLE, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
TALL = VECTORS[:, 2] > 0


def run(*words: object) -> str:
    result = CliRunner().invoke(latent_group, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    np.save(tmp_path / "vectors.npy", VECTORS)
    return tmp_path / "vectors.npy"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = [f"{row},{int(tall)}" for row, tall in enumerate(TALL)]
    (tmp_path / "labels.csv").write_text("\n".join(["index,label", *lines[:100]]))
    return tmp_path / "labels.csv"


@pytest.fixture
def directions(vectors: Path, table: Path, tmp_path: Path) -> Path:
    out = tmp_path / "directions.npz"
    run("fit-direction", vectors, "--labels", table, "--name", "tall", "--id-vector-model", "sface", "--out", out)
    return out


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Drawn faces whose skin is as light as the third number of their ID vector says; every 20th is for tests."""
    folder = tmp_path / "faces"
    text = {"id_vector_model": "sface", "identity_dim": DIM, "attribute_set": 1}
    shards.begin(folder, text)
    grey = np.clip(128 + 200 * VECTORS[:, 2], 0, 255).astype(np.uint8)
    images = np.broadcast_to(grey[:, None, None, None], (PEOPLE, 64, 64, 3)).copy()
    face = np.array([12, 8, 40, 50, 22, 28, 42, 28, 32, 38, 22, 48, 42, 48, 0.9], np.float32)
    attributes = np.zeros((PEOPLE, 11), np.float32)
    attributes[:, 4] = VECTORS[:, 3]  # happiness
    attributes[1] = -1.0
    arrays = {
        "images": images,
        "vectors": VECTORS,
        "flipped_vectors": VECTORS,
        "detections": np.tile(face, (PEOPLE, 1)),
        "index": np.arange(PEOPLE),
        "attributes": attributes,
    }
    shards.write_shard(folder, 0, arrays)
    return folder


def test_axes_of_a_file_and_of_a_data_set(vectors: Path, dataset: Path, tmp_path: Path) -> None:
    told = run("fit-pca", vectors, "--id-vector-model", "sface", "--out", tmp_path / "a" / "pca.npz")
    assert "8 axes of sface vectors" in told and "100.0%" in told
    assert Pca.load(tmp_path / "a" / "pca.npz").count == PEOPLE
    run("fit-pca", dataset, "--out", tmp_path / "pca.npz")
    pca = Pca.load(tmp_path / "pca.npz")
    assert (pca.count, pca.space.id_vector_model) == (114, "sface")  # without the test half
    assert "8 axes" in run("show", tmp_path / "pca.npz")


def test_a_direction_from_a_table(directions: Path) -> None:
    found = Directions.load(directions)["tall"]
    assert found.vector[2] > 0.8 and found.card.model == "logistic"
    assert found.card.score is not None and found.card.score.count == 100
    shown = run("show", directions)
    assert "tall" in shown and "less tall" in shown


def test_directions_from_the_pictures_and_attributes_of_a_data_set(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "directions.npz"
    run("fit-direction", dataset, "--attribute", "cheek_brightness", "--out", out)
    run(
        "fit-direction",
        dataset,
        "--attribute",
        "happiness",
        "--orthogonal-to",
        "cheek_brightness",
        "--high",
        "smiling",
        "--out",
        out,
    )
    found = Directions.load(out)
    assert list(found) == ["cheek_brightness", "happiness"]
    assert found["cheek_brightness"].vector[2] > 0.95 and found["happiness"].vector[3] > 0.95
    assert abs(found["cheek_brightness"].vector @ found["happiness"].vector) < 1e-6
    assert found["happiness"].card.orthogonal_to == ("cheek_brightness",) and found["happiness"].card.high == "smiling"
    assert found["cheek_brightness"].card.score is not None and found["cheek_brightness"].card.score.count == 114
    assert found["happiness"].card.score is not None and found["happiness"].card.score.count == 113  # one is unknown


def test_vectors_are_moved_as_the_library_does(vectors: Path, directions: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "face.npy", VECTORS[:2])
    np.save(tmp_path / "one.npy", VECTORS[0])
    np.save(tmp_path / "other.npy", VECTORS[1])
    run("fit-pca", vectors, "--id-vector-model", "sface", "--out", tmp_path / "pca.npz")
    pca, tall, out = Pca.load(tmp_path / "pca.npz"), Directions.load(directions)["tall"], tmp_path / "out.npy"
    face = ("--vector", tmp_path / "face.npy", "--out", out)
    run("apply", directions, "--name", "tall", "--strength", "-2", "--strength", "3", *face)
    assert np.array_equal(np.load(out), np.concatenate([tall.apply(one, [-2, 3]) for one in VECTORS[:2]]))
    run("walk", tmp_path / "pca.npz", "--axis", 1, "--amount", 0.5, *face)
    assert np.array_equal(np.load(out), pca.walk(VECTORS[:2], 1, 0.5))
    run("project", tmp_path / "pca.npz", "--k", 2, "--k", 8, *face)
    assert np.load(out)[[1, 3]] == pytest.approx(VECTORS[:2], abs=1e-6)
    run("blend", tmp_path / "one.npy", tmp_path / "other.npy", "--t", 0.2, "--t", 0.6, "--out", out)
    assert np.array_equal(np.load(out), slerp(VECTORS[0], VECTORS[1], [0.2, 0.6]))
    run("blend", tmp_path / "one.npy", tmp_path / "other.npy", "--linear", "--out", out)
    assert np.array_equal(np.load(out), lerp(VECTORS[0], VECTORS[1], [0.5]))
    told = run("mean", tmp_path / "one.npy", tmp_path / "other.npy", "--out", out)
    assert np.array_equal(np.load(out), mean_vector(VECTORS[:2])) and told.count("degrees") == 2


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Two photographs, and an FR model `dlib` that reads which of `VECTORS` is theirs from their bytes."""

    class Stage:
        id_vector_model = "dlib"

        @classmethod
        def load(cls, folder: Path) -> Stage:
            assert folder == Path("engines/face_embedding/1/engine")
            return cls()

        def embed(self, photo: bytes) -> Any:
            return type("Result", (), {"embedding": VECTORS[int(photo)]})

    monkeypatch.setattr("id3pm.idspace.files.FaceStage", Stage)
    files = [tmp_path / "3.jpg", tmp_path / "4.jpg"]
    for file in files:
        file.write_bytes(file.stem.encode())
    return files


def test_photographs_go_through_the_face_stage(photographs: list[Path], tmp_path: Path) -> None:
    run("mean", *photographs, "--repository", "engines", "--out", tmp_path / "mean.npy")
    assert np.array_equal(np.load(tmp_path / "mean.npy"), mean_vector(VECTORS[3:5]))


def test_vectors_of_another_model_are_refused_though_their_length_fits(
    photographs: list[Path], vectors: Path, directions: Path, tmp_path: Path
) -> None:
    engines = ("--repository", "engines", "--out", tmp_path / "x.npy")
    run("mean", *photographs, "--repository", "engines", "--out", tmp_path / "dlib.npz")  # a file with the model's name
    assert np.array_equal(read_vectors(tmp_path / "dlib.npz").vectors[0], mean_vector(VECTORS[3:5]))
    pca, ours = tmp_path / "pca.npz", tmp_path / "sface.npz"
    run("fit-pca", vectors, "--id-vector-model", "sface", "--out", pca)
    run("walk", pca, "--axis", 0, "--amount", 0.5, "--vector", vectors, "--out", ours)  # what moves along it is of it
    assert read_vectors(ours).id_vector_model == "sface"
    for source in (photographs[0], tmp_path / "dlib.npz"):
        for words in (
            ("walk", pca, "--axis", 0, "--amount", 1, "--vector", source),
            ("project", pca, "--k", 2, "--vector", source),
            ("apply", directions, "--name", "tall", "--strength", 1, "--vector", source),
        ):
            with pytest.raises(InvalidInputError, match="is for sface vectors of 8 numbers, not for dlib"):
                run(*words, *engines)
    for words in (("blend", photographs[0], ours), ("mean", ours, photographs[1])):
        with pytest.raises(InvalidInputError, match="vectors of different FR models"):
            run(*words, *engines)
    assert not (tmp_path / "x.npy").exists()
    run("walk", pca, "--axis", 0, "--amount", 1, "--vector", ours, *engines)
    run("fit-pca", ours, "--out", tmp_path / "again.npz")  # the name needs no repeating
    assert Pca.load(tmp_path / "again.npz").space.id_vector_model == "sface"
    with pytest.raises(InvalidInputError, match="SOURCE has vectors of sface"):
        run("fit-pca", ours, "--id-vector-model", "dlib", "--out", tmp_path / "again.npz")


def test_vectors_of_another_length_are_refused_though_their_model_is_unknown(vectors: Path, tmp_path: Path) -> None:
    run("fit-pca", vectors, "--id-vector-model", "sface", "--out", tmp_path / "pca.npz")
    np.save(tmp_path / "short.npy", np.ones((2, 3), np.float32))
    with pytest.raises(InvalidInputError, match="is for sface vectors of 8 numbers, not for sface vectors of 3"):
        run("project", tmp_path / "pca.npz", "--k", 2, "--vector", tmp_path / "short.npy", "--out", tmp_path / "x.npy")


def test_the_name_of_an_unknown_model_is_not_made_up(vectors: Path, photographs: list[Path], tmp_path: Path) -> None:
    engines = ("--repository", "engines")
    for words in (("mean", vectors), ("mean", vectors, photographs[0])):
        with pytest.raises(InvalidInputError, match=r"x\.npz: \.npz names the FR model .* write \.npy"):
            run(*words, *engines, "--out", tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()
    for description in ("{", "[]", '{"kind": "pca", "id_vector_model": "sface"}', '{"kind": "vectors"}'):
        np.savez(tmp_path / "v.npz", description=np.array(description), vectors=VECTORS)
        with pytest.raises(InvalidInputError, match=r"v\.npz: need \.npy"):
            read_vectors(tmp_path / "v.npz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit-pca", "vectors.npy", "--out", "x.npz"], "--id-vector-model: say which"),
        (["fit-pca", "faces", "--id-vector-model", "arcface", "--out", "x.npz"], "SOURCE has vectors of sface"),
        (["fit-direction", "vectors.npy", "--out", "x.npz"], "either --labels or --attribute"),
        (
            ["fit-direction", "vectors.npy", "--attribute", "cheek_brightness", "--out", "x.npz"],
            "needs a data set's folder",
        ),
        (
            ["fit-direction", "faces", "--attribute", "beard", "--out", "x.npz"],
            "choose one of anger,.*cheek_brightness",
        ),
        (
            ["apply", "directions.npz", "--name", "x", "--strength", "1", "--vector", "vectors.npy", "--out", "x"],
            "are tall",
        ),
        (["blend", "vectors.npy", "vectors.npy", "--out", "x.npy"], "need one each"),
        (["show", "vectors.npy"], "damaged, or no file"),
    ],
)
def test_mistakes_are_named(
    words: list[str],
    message: str,
    vectors: Path,
    directions: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        CliRunner().invoke(latent_group, words, catch_exceptions=False)
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index;label\n1;2", "must name the columns"),
        ("index,label\n1,2\n1.5,2", "line 3"),
        ("index,label\n1,2\n2", "line 3"),
        ("index,label\n1,0\n1,1", "different rows"),
        ("index,label\n-1,0", "different rows"),
        (f"index,label\n{PEOPLE},0", "different rows"),
    ],
)
def test_a_wrong_table_is_refused(content: str, message: str, vectors: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        labelled(read_vectors(vectors), tmp_path / "labels.csv", None)


def test_labels_in_arrays(vectors: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", vectors=VECTORS, labels=TALL)
    rows, labels = labelled(read_vectors(tmp_path / "all.npz"), None, None)
    assert np.array_equal(rows, VECTORS) and np.array_equal(labels, TALL)
    np.savez(tmp_path / "labels.npz", labels=[5.0, 6.0, np.nan], index=[7, 3, 2])
    rows, labels = labelled(read_vectors(vectors), tmp_path / "labels.npz", None)
    assert np.array_equal(rows, VECTORS[[3, 7]]) and labels.tolist() == [6.0, 5.0]
    np.savez(tmp_path / "short.npz", labels=[1.0, 2.0])
    with pytest.raises(InvalidInputError, match="2 labels for 120 vectors: give an index"):
        labelled(read_vectors(vectors), tmp_path / "short.npz", None)
    with pytest.raises(InvalidInputError, match="need CSV"):
        read_labels(vectors)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", json.dumps({"vectors": [1]}).encode()])
def test_a_file_without_vectors_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"v\.npz: need \.npy"):
        read_vectors(tmp_path / "v.npz")
