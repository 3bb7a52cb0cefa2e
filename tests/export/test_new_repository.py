"""A repository for another bundle: all models of the first, none of its engines."""

from __future__ import annotations

from pathlib import Path

from id3pm.export.repository import TEMPLATE, ensure_repository


def test_a_missing_folder_becomes_a_repository_with_all_models_and_no_engine(tmp_path: Path) -> None:
    new = tmp_path / "build" / "attributes"
    assert ensure_repository(new)
    models = {file.parent.name for file in TEMPLATE.glob("*/config.pbtxt")}
    assert {folder.name for folder in new.iterdir()} == models and len(models) >= 7
    for model in models:
        assert (new / model / "config.pbtxt").read_bytes() == (TEMPLATE / model / "config.pbtxt").read_bytes()
        assert (new / model / "1").is_dir() and not (new / model / "1" / "engine").exists()
        for code in (TEMPLATE / model / "1").glob("*.py"):
            assert (new / model / "1" / code.name).read_bytes() == code.read_bytes()


def test_a_repository_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert not ensure_repository(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
