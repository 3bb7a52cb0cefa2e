"""The files of a Triton model repository, written from the package: configurations and `model.py`, no engines.

The first line of a written file has a hash of the rest. So an older version's file is renewed, and a file that was
edited (deploy/README.md lists the settings for that) is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import id3pm.serving
from id3pm.serving.protocol.pbtxt import SIZES, config_text
from id3pm.serving.protocol.served_models import MODELS

SOURCE = Path(id3pm.serving.__file__).with_name("model_repository")
_MARK = "# Written by id3pm build; edit what you like, it is kept then. Hash of the rest: "
_MARKED = re.compile(re.escape(_MARK) + r"([0-9a-f]{16})\n")


def write_repository(repository: Path, sizes: Mapping[str, int] | None = None) -> list[Path]:
    """Writes the files of all models that are missing in a model repository, or are an older version's.

    Args:
        repository: Where to; made if need be.
        sizes: Pixels of the images of stage `base` and of stage `sr`; `None` keeps what is there, and writes missing
            files for 64 and 256 px.

    Returns:
        Files that differ from the package's and were kept, because they were edited.
    """
    kept = []
    for name, text in repository_files(sizes or SIZES):
        file = repository / name
        if file.is_file():
            found = file.read_text(encoding="utf-8")
            if sizes is None or found == _marked(text):
                continue
            if _is_edited(found, text):
                kept.append(file)
                continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_marked(text), encoding="utf-8")
    for model in MODELS:
        (repository / model / "1").mkdir(parents=True, exist_ok=True)  # Triton requires it, even for an ensemble
    return kept


def repository_files(sizes: Mapping[str, int] = SIZES) -> Iterator[tuple[Path, str]]:
    """The files of every model, by their path in a model repository, for images of these sizes."""
    for model in MODELS:
        yield Path(model, "config.pbtxt"), config_text(model, sizes)
    for file in sorted(SOURCE.glob("*/1/model.py")):
        yield file.relative_to(SOURCE), file.read_text(encoding="utf-8")


def _marked(text: str) -> str:
    return f"{_MARK}{_hash(text)}\n{text}"


def _is_edited(found: str, text: str) -> bool:
    """Whether a file was edited: it is neither the output of any version, nor a copy of this version's file."""
    marked = _MARKED.match(found)
    if marked is None:
        return found != text
    return marked[1] != _hash(found[marked.end() :])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
