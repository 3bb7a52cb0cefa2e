"""Advice to install an extra works where it is given: in a checkout, from a wheel, from an index."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from id3pm import installation
from id3pm.installation import checkout, how_to_install

ROOT = Path(__file__).parents[1]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes the package look as pip installed it, with this record (PEP 610) or none."""

    def look(record: dict[str, Any] | None) -> None:
        folder = tmp_path / "id3pm-1.2.3.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: id3pm\nVersion: 1.2.3\n")
        if record is not None:
            (folder / "direct_url.json").write_text(json.dumps(record))
        monkeypatch.setattr(
            importlib.metadata, "distribution", lambda name: importlib.metadata.PathDistribution(folder)
        )
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.3")
        monkeypatch.setattr(installation, "checkout", lambda: None)

    return look


def test_in_a_checkout_it_is_the_checkout() -> None:
    assert checkout() == ROOT
    assert shlex.split(how_to_install("web,face")) == ["pip", "install", "-e", f"{ROOT}[web,face]"]


def test_from_a_wheel_it_is_the_wheel(installed: Any, tmp_path: Path) -> None:
    wheel = tmp_path / "my wheels" / "id3pm-1.2.3-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert shlex.split(how_to_install("web")) == ["pip", "install", f"id3pm[web] @ {wheel.as_uri()}"]


def test_a_wheel_that_is_gone_is_named_without_its_folder(installed: Any) -> None:
    installed({"url": "file:///gone/id3pm-1.2.3-py3-none-any.whl", "archive_info": {}})
    assert how_to_install("web") == "pip install 'id3pm[web] @ file:///FOLDER/id3pm-1.2.3-py3-none-any.whl'"


def test_a_wheel_from_a_server_is_its_address(installed: Any) -> None:
    installed({"url": "https://wheels.example/id3pm-1.2.3-py3-none-any.whl", "archive_info": {}})
    assert how_to_install("web") == "pip install 'id3pm[web] @ https://wheels.example/id3pm-1.2.3-py3-none-any.whl'"


def test_from_an_index_the_name_is_enough(installed: Any) -> None:
    installed(None)
    assert how_to_install("web") == "pip install 'id3pm[web]'"


def test_no_message_is_written_by_hand() -> None:
    """`pip install 'id3pm[...]'` works from an index alone: messages ask `how_to_install`."""
    for path in sorted((ROOT / "id3pm").rglob("*.py")):
        assert "pip install 'id3pm" not in path.read_text() or path.name == "installation.py", path
