"""Preprocessing of an FR model: crop, channel order, range; and normalisation of its output.

An ID vector is only comparable with others that were made the same way, so this belongs to the FR model.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from id3pm.config import require
from id3pm.face.align import ARCFACE_TEMPLATE, align_face, box_crop

BOX = "box"
TEMPLATES: Mapping[str, tuple[tuple[int, int], NDArray[np.float64]]] = types.MappingProxyType(
    {
        "arcface-112": ((112, 112), ARCFACE_TEMPLATE),
        # The older form of the template: 8 columns less on either side.
        "arcface-112x96": ((112, 96), ARCFACE_TEMPLATE - (8.0, 0.0)),
    }
)
"""Named alignments: (height, width) of the crop, and the positions of the five landmarks in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a photograph with a known face to the network's input, and from its output to the ID vector.

    Attributes:
        input_size: Height and width of the crop, in pixels.
        alignment: A name of `TEMPLATES`; or five (x, y) in pixels of the crop, where right eye, left eye, nose tip,
            right and left corner of the mouth come to lie (right and left are the person's); or `box`: the detector's
            box, stretched to the crop without a rotation, as facenet-pytorch does.
        margin: With `box`: pixels of the crop that lie outside of the box, half of them on either side.
        fit: With landmarks, where the transform has least squared error: in the `crop` (insightface, OpenCV) or in the
            `photo` (MATLAB's `cp2tform`, whose ports many FR models use). The scales differ by some percent.
        antialias: With landmarks: average before sampling where the face is more than twice the crop's size; see
            `id3pm.face.align.align_face`. Off is what the published code of most FR models does.
        channel_order: Of the network's input.
        mean: Subtracted from the pixels, 0..255: one number, or one per channel in `channel_order`.
        std: The difference is then divided by this: one number, or one per channel.
        flip_average: The network gets the crop and its mirror image, and the mean of both outputs is used.
        l2_normalise: Scale ID vectors to L2 norm 1. FR models are trained on the angle alone, so the norm carries no
            identity; off is for generators that were trained on the raw output of the network.
    """

    input_size: tuple[int, ...] = (112, 112)
    alignment: str | tuple[tuple[float, ...], ...] = "arcface-112"
    margin: float = 0.0
    fit: Literal["crop", "photo"] = "crop"
    antialias: bool = True
    channel_order: Literal["RGB", "BGR"] = "RGB"
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    flip_average: bool = False
    l2_normalise: bool = True

    def __post_init__(self) -> None:
        size, alignment = tuple(self.input_size), self.alignment
        require(
            len(size) == 2 and all(8 <= side <= 1024 for side in size), f"input_size={size}: need [H, W] in 8 .. 1024"
        )
        if isinstance(alignment, str):
            known = (*TEMPLATES, BOX)
            require(alignment in known, f"alignment={alignment!r}: choose {', '.join(known)} or give five [x, y]")
            expected = TEMPLATES[alignment][0] if alignment in TEMPLATES else size
            require(size == expected, f"input_size={list(size)}: {alignment} has {list(expected)}")
        else:
            five = len(alignment) == 5 and all(len(point) == 2 for point in alignment)
            require(five and bool(np.isfinite(alignment).all()), f"alignment={alignment}: need five finite [x, y]")
            spread = bool((np.ptp(np.array(alignment), axis=0) >= 1.0).all())
            require(spread, f"alignment={alignment}: the points must differ by a pixel or more in x and in y")
        self._check_numbers()

    def _check_numbers(self) -> None:
        most = min(self.input_size) if self.alignment == BOX else 1e-9
        require(0.0 <= self.margin < most, f"margin={self.margin}: from 0 to below the size with box, 0 without")
        for name in ("mean", "std"):
            values = np.atleast_1d(getattr(self, name))
            require(len(values) in (1, 3), f"{name}={getattr(self, name)}: need one number, or three")
            require(bool(np.isfinite(values).all()), f"{name}={getattr(self, name)}: must be finite")
        require(bool((np.atleast_1d(self.std) > 0.0).all()), f"std={self.std}: must be above 0")

    def crop(self, image: NDArray[np.uint8], detection: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """The aligned face.

        Args:
            image: uint8 [H, W, 3], RGB.
            detection: [15], pixels of `image`; see `id3pm.face.detect.DETECTION_SIZE`.

        Returns:
            uint8 [*input_size, 3], RGB.
        """
        height, width = self.input_size
        if self.alignment == BOX:
            return box_crop(image, detection[:4], (height, width), self.margin)
        landmarks = detection[4:14].reshape(5, 2)
        return align_face(image, landmarks, self.antialias, self.template, (height, width), self.fit)

    @property
    def template(self) -> NDArray[np.float64]:
        """Where the landmarks lie in the crop, float64 [5, 2]; not with `box`."""
        if isinstance(self.alignment, str):
            assert self.alignment in TEMPLATES
            return TEMPLATES[self.alignment][1]
        return np.array(self.alignment, dtype=np.float64)

    def network_input(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops [N, H, W, 3], RGB, as the network takes them: float32 [N, 3, H, W].

        Raises:
            ValueError: Another dtype or shape.
        """
        height, width = self.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (height, width, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}: need uint8 [N, {height}, {width}, 3]")
        if self.channel_order == "BGR":
            crops = crops[..., ::-1]
        mean, std = (np.array(value, dtype=np.float32).reshape(-1, 1, 1) for value in (self.mean, self.std))
        return np.ascontiguousarray((crops.transpose(0, 3, 1, 2).astype(np.float32) - mean) / std)
