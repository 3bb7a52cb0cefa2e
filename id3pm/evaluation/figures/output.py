"""What a sheet leaves behind: a PNG that says it was generated, and the measured effect as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

from id3pm.formats.images import png_info


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """The measured effect of one control, one row of the table in docs/control.md.

    Attributes:
        control: What was changed.
        change: From what to what.
        kept: Mean cosine similarity of the images to the identity they should show, and of how many images.
        moved: What moved, by how much, against what stands still.
    """

    control: str
    change: str
    kept: str
    moved: str


def save(folder: Path, name: str, sheet: Image.Image, effects: list[Effect], numbers: dict[str, Any]) -> Path:
    """Writes NAME.png and NAME.json into a folder.

    Args:
        folder: Made if it is missing.
        name: Of the control.
        sheet: The pictures.
        effects: What was measured, for the table.
        numbers: All that was measured, and with which options, JSON values; what is not finite becomes `null`.

    Returns:
        The PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / f"{name}.png", pnginfo=png_info(generated=True))
    report = strict({"effects": [dataclasses.asdict(effect) for effect in effects], **numbers})
    (folder / f"{name}.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return folder / f"{name}.png"


def strict(value: Any) -> Any:
    """JSON values with `None` for numbers that JSON does not have: NaN (no face was found) and infinity."""
    if isinstance(value, dict):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
