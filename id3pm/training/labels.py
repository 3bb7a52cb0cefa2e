"""Labels of FFHQ's metadata files: split and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import fields_of
from id3pm.attributes.ffhq import encode_ffhq
from id3pm.errors import InvalidInputError
from id3pm.formats.json_files import parse_json
from id3pm.training.sources import Source, stems

HELD_OUT = {"training": False, "validation": True}


class Split:
    """FFHQ's own split, 60 000 faces to train and 10 000 to validate, from `ffhq-dataset-v2.json`.

    Args:
        file: A JSON object: number of the picture -> {"category": "training" or "validation", ...}.

    Raises:
        InvalidInputError: The file has another form.
    """

    def __init__(self, file: Path) -> None:
        entries = _read_json(file.read_bytes(), file.name)
        if not isinstance(entries, Mapping) or not entries:
            raise InvalidInputError(f"{file.name} is not FFHQ's metadata: need an object with an entry per picture")
        self._file = file.name
        self._held_out: dict[int, bool] = {}
        for key, entry in entries.items():
            category = entry.get("category") if isinstance(entry, Mapping) else None
            if not key.isdecimal() or category not in HELD_OUT:
                raise InvalidInputError(
                    f"{file.name}, entry {key!r}: category={category!r}: need a number's entry with one of "
                    f"{', '.join(HELD_OUT)}"
                )
            self._held_out[int(key)] = HELD_OUT[category]

    def held_out(self, name: str) -> bool:
        """Whether the picture of this name (`.../00042.png`) is for validation.

        Raises:
            InvalidInputError: The metadata do not list it.
        """
        for stem in _stems(name):
            if stem.isdecimal() and int(stem) in self._held_out:
                return self._held_out[int(stem)]
        raise InvalidInputError(f"{self._file} does not list {_stems(name)[0]}")


class AttributeFiles:
    """Attribute vectors from the FFHQ features JSON files (https://github.com/DCGM/ffhq-features-dataset).

    Args:
        attribute_set: 1, 2 or 3 (`id3pm.attributes`).
        folder: Has `<stem of the picture>.json`; `None` takes the JSON file beside each picture.
    """

    def __init__(self, attribute_set: int, folder: Path | None) -> None:
        self.attribute_set = attribute_set
        self.dim = len(fields_of(attribute_set))
        self._folder = folder

    def vector(self, source: Source, index: int) -> NDArray[np.float32]:
        """The attribute vector of a picture, float32 [A].

        Raises:
            InvalidInputError: There is no metadata for it, or a field is missing or wrong.
        """
        names = [f"{stem}.json" for stem in _stems(source.name(index))]
        if self._folder is None:
            data = source.metadata(index)
        else:
            files = (self._folder / name for name in names)
            data = next((file.read_bytes() for file in files if file.is_file()), None)
        if data is None:
            raise InvalidInputError(f"no attributes: {' or '.join(names)} is missing")
        return encode_ffhq(_read_json(data, names[0]), self.attribute_set)


def _stems(name: str) -> tuple[str, ...]:
    """`part.tar:00000/00042.png` -> `00042`; see `id3pm.training.sources.stems`."""
    return stems(Path(name.rsplit(":", 1)[-1]).name)


def _read_json(data: bytes, name: str) -> Any:
    try:
        return parse_json(data, name)
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
