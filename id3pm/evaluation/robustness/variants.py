"""The variants of a portrait: families of changes, in the order of the report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from id3pm.evaluation.robustness import drawings as drawn
from id3pm.evaluation.robustness import light, noise, occlusion, style, warp
from id3pm.evaluation.robustness.portrait import Pixels, Portrait

Make = Callable[[Portrait], Pixels]
part = functools.partial

VARIANTS: Mapping[str, Mapping[str, Make]] = MappingProxyType(
    {
        "light": {
            "two stops darker": part(light.exposed, stops=-2.0),
            "over-exposed": part(light.exposed, stops=1.5),
            "haze": light.low_contrast,
            "lamp on the left": part(light.side_light, direction=-1),
            "lamp on the right": part(light.side_light, direction=1),
            "green lamp": part(light.tinted, gains=(0.45, 1.2, 0.55)),
            "night": light.night,
        },
        "occlusion": {
            "sunglasses": occlusion.sunglasses,
            "mask": occlusion.mask,
            "hat": occlusion.hat,
            "headband": occlusion.headband,
            "hand": occlusion.hand,
            "half a face": occlusion.half_face,
        },
        "noise": {
            "grain": noise.grain,
            "dead pixels": noise.dead_pixels,
            "JPEG, quality 4": noise.jpeg,
            "out of focus": noise.blur,
            "motion": noise.motion_blur,
            "eyes 6 px apart": noise.low_resolution,
        },
        "pose": {
            "30° left": part(warp.turned, yaw=-30),
            "15° left": part(warp.turned, yaw=-15),
            "15° right": part(warp.turned, yaw=15),
            "30° right": part(warp.turned, yaw=30),
            "20° up": part(warp.turned, pitch=-20),
            "20° down": part(warp.turned, pitch=20),
            "tilted by 30°": part(warp.tilted, degrees=30),
        },
        "expression": {
            "smile": warp.smile,
            "frown": warp.frown,
            "raised brows": warp.raised_brows,
            "open mouth": warp.open_mouth,
        },
        "style": {
            "grey": style.greyscale,
            "negative": style.inverted,
            "pencil": style.pencil,
            "ink": style.ink,
            "posterised": style.posterised,
            "oil": style.oil,
            "cartoon": style.cartoon,
            "mosaic": style.mosaic,
            "heat": style.heat,
            "line drawing": drawn.line_drawing,
            "cartoon figure": drawn.avatar,
            "rendering": drawn.rendering,
        },
    }
)
"""Family -> label -> how it is made. The last family is out of distribution: no camera takes such pictures."""

STYLE = "style"
ORIGINAL, PHOTOGRAPHS, MEAN = "original", "photographs", "mean"
"""Families that are not generated: the portrait itself, other photographs of the person, the mean of all ID vectors."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One column of the report.

    Attributes:
        family: One of `VARIANTS`, or `ORIGINAL`, `PHOTOGRAPHS`, `MEAN`.
        label: Name of the change.
        image: uint8 [SIZE, SIZE, 3]; `None` for the mean, which has no picture.
    """

    family: str
    label: str
    image: Pixels | None


def variants_of(portrait: Portrait, families: Sequence[str]) -> list[Picture]:
    """Every variant of these families, in the order of `VARIANTS`; the same pixels each time."""
    return [
        Picture(family, label, make(portrait))
        for family, made in VARIANTS.items()
        if family in families
        for label, make in made.items()
    ]
