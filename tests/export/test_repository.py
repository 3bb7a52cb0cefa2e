"""The files of a model repository: written from the package, renewed with it, kept where they were edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from id3pm.export import repository
from id3pm.export.repository import SIZES, write_repository
from id3pm.serving.protocol.served_models import MODELS


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_missing_folder_becomes_a_repository_with_all_models_and_no_engine(tmp_path: Path) -> None:
    new = tmp_path / "build" / "attributes"
    assert write_repository(new) == []
    assert {folder.name for folder in new.iterdir()} == set(MODELS)
    for model in MODELS:
        assert (new / model / "1").is_dir() and not (new / model / "1" / "engine").exists()
    files = content(new)
    assert set(files) == {str(name) for name, _ in repository.repository_files()}
    for name, text in repository.repository_files():
        first, _, rest = files[str(name)].partition("\n")
        assert first.startswith("# Written by id3pm build") and rest == text


def test_files_that_are_up_to_date_are_not_written_again(tmp_path: Path) -> None:
    write_repository(tmp_path, SIZES)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write_repository(tmp_path, SIZES) == []
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_an_older_versions_files_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = list(repository.repository_files())
    with monkeypatch.context() as older:
        older.setattr(repository, "repository_files", lambda sizes: [(name, f"# old\n{text}") for name, text in ours])
        write_repository(tmp_path / "old")
    write_repository(tmp_path / "new")
    assert write_repository(tmp_path / "old", SIZES) == []
    assert content(tmp_path / "old") == content(tmp_path / "new")


def test_a_bare_copy_counts_as_written(tmp_path: Path) -> None:
    for name, text in repository.repository_files():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert write_repository(tmp_path, SIZES) == []


def test_an_edited_file_is_kept_and_named(tmp_path: Path) -> None:
    write_repository(tmp_path)
    edited = tmp_path / "denoiser_64" / "config.pbtxt"
    text = edited.read_text().replace('{ string_value: "16" }', '{ string_value: "8" }')
    edited.write_text(text)
    (tmp_path / "super_resolution" / "config.pbtxt").unlink()
    assert write_repository(tmp_path, SIZES) == [edited]
    assert edited.read_text() == text and (tmp_path / "super_resolution" / "config.pbtxt").is_file()


def test_sizes_of_another_bundle_are_written_and_kept_where_none_are_named(tmp_path: Path) -> None:
    write_repository(tmp_path)
    assert write_repository(tmp_path, {"base": 32, "sr": 128}) == []
    write_repository(tmp_path)
    assert "[ 32, 32, 3 ]" in (tmp_path / "denoiser_64" / "config.pbtxt").read_text()
