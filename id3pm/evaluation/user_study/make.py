"""Makes the study: one page that needs no server, and the key from pictures to methods."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from id3pm.errors import InvalidInputError, MissingExtraError
from id3pm.evaluation.files import write_json, write_text
from id3pm.formats.images import encode_png
from id3pm.formats.photo_decoding import decode_photo
from id3pm.formats.picture_files import SUFFIXES
from id3pm.installation import how_to_install

TARGETS = "targets"
SCHEMA, KEY_SCHEMA = 1, 2  # of the page and the answers; of the key
QUESTIONS = (
    {"id": "identity", "text": "Which picture shows the person best?", "target": True},
    {"id": "realism", "text": "Which picture looks most like a photograph?", "target": False},
)
PAGE, KEY = "study.html", "study_key.json"


def make_study(folders: Sequence[Path], out: Path, title: str) -> dict[str, tuple[int, list[str]]]:
    """Writes the page and the key.

    Args:
        folders: Each is a set: it has `targets/NAME.png` and, for every method, `METHOD/NAME.png` of the same names.
            Participants get the targets of all sets in one mixed order.
        out: Gets study.html, which goes to the participants, and study_key.json, which does not: the page names no
            method, and the order of the pictures is drawn anew for every participant.
        title: Of the page.

    Returns:
        By set (name of its folder): number of targets, and the names of the methods.

    Raises:
        InvalidInputError: A picture is missing, a set has fewer than two methods, or two sets have one name.
        ImageError: A picture cannot be decoded.
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError(f"the study needs jinja2: {how_to_install('evaluate')}") from error
    names = [folder.resolve().name for folder in folders]
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise InvalidInputError(f"two sets have the name {twice[0]!r}, which is that of their folder: rename one")
    study: dict[str, Any] = {"schema": SCHEMA, "id": secrets.token_hex(8), "questions": QUESTIONS, "items": []}
    key: dict[str, Any] = {"schema": KEY_SCHEMA, "study": study["id"], "sets": {}}
    found = {}
    for name, folder in zip(names, folders, strict=True):
        methods, items, owners = _items(folder)
        study["items"] += items
        key["sets"][name] = {"methods": methods, "items": owners}
        found[name] = (len(items), methods)
    # Sorted by tokens, so that no order in the file gives a set away.
    study["items"].sort(key=lambda each: each["id"])
    source = resources.files("id3pm.evaluation.user_study").joinpath("page.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / PAGE, template.render(title=title, study=study))
    write_json(out / KEY, key)
    return found


def _items(folder: Path) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """The methods of a set, its items as the page has them, and who made their pictures."""
    targets = _pictures(folder / TARGETS)
    methods = sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name != TARGETS)
    if len(methods) < 2 or not targets:
        raise InvalidInputError(
            f"{folder} has {len(targets)} pictures in {TARGETS} and {len(methods)} other folders: need targets, and a "
            "folder for each of two methods or more"
        )
    items, owners = [], {}
    for name, file in targets.items():
        candidates, tokens = [], {}
        for method in methods:
            found = _pictures(folder / method).get(name)
            if found is None:
                raise InvalidInputError(f"{method} has no picture {name}, which {TARGETS} has")
            token = secrets.token_hex(8)
            candidates.append({"id": token, "image": _data_uri(found)})
            tokens[token] = method
        # Sorted by tokens, so that no order in the file gives a method away.
        candidates.sort(key=lambda each: each["id"])
        item = secrets.token_hex(8)
        items.append({"id": item, "target": _data_uri(file), "candidates": candidates})
        owners[item] = {"name": name, "candidates": tokens}
    return methods, items, owners


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by name without suffix."""
    if not folder.is_dir():
        return {}
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}


def _data_uri(file: Path) -> str:
    """The picture alone, written anew: metadata would tell who made it."""
    return "data:image/png;base64," + base64.b64encode(encode_png(decode_photo(file.read_bytes()))).decode()
