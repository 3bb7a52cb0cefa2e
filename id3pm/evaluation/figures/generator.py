"""People to invert, and a pipeline that generates faces and compares them with their targets."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.config import SamplingOptions
from id3pm.diffusion.plans import plan
from id3pm.errors import Id3pmError
from id3pm.evaluation.faces import HEAD_MARGIN, face_square, largest_faces
from id3pm.formats.photo_decoding import decode_photo
from id3pm.formats.picture_files import picture_files
from id3pm.pipeline import Pipeline
from id3pm.sampling.options import base_stage
from id3pm.sampling.presets import PRESETS


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """A person whose ID vector is inverted.

    Attributes:
        name: For labels: the file's name without its suffix.
        image: The square around the face, uint8 [S, S, 3], RGB.
        vector: The ID vector, float32 [D], L2 norm 1.
    """

    name: str
    image: NDArray[np.uint8]
    vector: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class GeneratedFaces:
    """Generated faces.

    Attributes:
        images: uint8 [N, S, S, 3]: 256 px, or 64 px without super-resolution.
        similarity: Cosine between each image's ID vector and the vector it was made from, float32 [N]; NaN where no
            face was found.
        vectors: ID vectors of the images, float32 [N, D]; NaN where no face was found.
        detections: The faces, float32 [N, 15] (`id3pm.face.detect.DETECTION_SIZE`); NaN where none was found.
        seconds: Processor time that generating all of them took, of all threads: other work on the machine adds none.
    """

    images: NDArray[np.uint8]
    similarity: NDArray[np.float32]
    vectors: NDArray[np.float32]
    detections: NDArray[np.float32]
    seconds: float = 0.0

    def shaped(self, shape: tuple[int, ...]) -> GeneratedFaces:
        """The same with N divided into several axes."""
        arrays = {name: getattr(self, name) for name in ("images", "similarity", "vectors", "detections")}
        return dataclasses.replace(
            self, **{name: values.reshape(*shape, *values.shape[1:]) for name, values in arrays.items()}
        )


class FaceGenerator:
    """Generates faces in this process and compares them with their targets by the bundle's own FR model."""

    def __init__(self, pipeline: Pipeline, super_resolution: bool = False) -> None:
        """Uses a pipeline, which stays the caller's to close.

        Args:
            pipeline: Generates and embeds.
            super_resolution: Whether sheets show 256 px instead of 64 px images.
        """
        self.pipeline = pipeline
        self._super_resolution = super_resolution

    def people(self, files: Sequence[Path]) -> list[Person]:
        """The largest face in each of these photographs, or in those of folders, by name.

        Raises:
            InvalidInputError: A folder has no photographs.
            FaceError: A photograph shows no face that can be used; the message names the file.
            ImageError: A file is not a picture.
        """
        return [self._person(file) for file in picture_files(files)]

    def generate(self, vectors: NDArray[np.float32], seeds: int | Sequence[int], **options: Any) -> GeneratedFaces:
        """Generates one face per ID vector [N, D] and seed, and embeds it.

        Args:
            vectors: See `Pipeline.generate`.
            seeds: See `Pipeline.generate`.
            **options: See `Pipeline.generate`; those of super-resolution only if the generator has it.
        """
        start = time.process_time()
        if self._super_resolution:
            images = self.pipeline.generate(vectors, seeds, **options).images
        elif isinstance(seeds, int):  # the same vector and seed give the same image: once is enough
            different, rows = np.unique(np.atleast_2d(vectors), axis=0, return_inverse=True)
            images = self.pipeline.generate_64(different, seeds, **options)[rows.reshape(-1)]
        else:
            images = self.pipeline.generate_64(vectors, seeds, **options)
        seconds = time.process_time() - start
        found, detections = self.look(images)
        requested = np.broadcast_to(np.atleast_2d(vectors), found.shape)
        cosines = np.einsum("nd,nd->n", found, requested / np.linalg.norm(requested, axis=1, keepdims=True))
        return GeneratedFaces(images, cosines.astype(np.float32), found, detections, seconds)

    def sampling(self, **options: Any) -> SamplingOptions:
        """Sampling options of the 64 px stage; those of super-resolution are not accepted."""
        return base_stage(self.pipeline.base_manifest.sampling, options)

    def evaluations(self, **options: Any) -> int:
        """Rows that the 64 px U-Net computes for one image: one a step, two where the step has guidance."""
        manifest = self.pipeline.base_manifest
        return plan(manifest.diffusion, self.sampling(**options), manifest.unet.learn_sigma).evaluations

    def enlarge(self, images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Super-resolution of images of `generate`, for display, in as few steps as preset `fast`, or a student's own.

        Args:
            images: uint8 [N, 64, 64, 3].
            seed: That of the images.

        Returns:
            uint8 [N, 256, 256, 3].
        """
        student = self.pipeline.sr_manifest.diffusion.student_timesteps is not None
        return self.pipeline.enlarge(images, seed, **({} if student else {"sr_steps": PRESETS["fast"].sr.steps}))

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """ID vectors [N, D] of the largest faces in pictures uint8 [N, H, W, 3]; NaN where there is none."""
        return self.look(images)[0]

    def look(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """ID vectors [N, D] and detections [N, 15] of the largest faces in pictures uint8 [N, H, W, 3], or NaN."""
        return largest_faces(self.pipeline.face_stage, images)

    def _person(self, file: Path) -> Person:
        photo = file.read_bytes()
        try:
            result = self.pipeline.embed(photo)
        except Id3pmError as error:
            raise type(error)(f"{file}: {error}") from error
        return Person(
            file.stem, face_square(decode_photo(photo), result.detection[:4], HEAD_MARGIN, "constant"), result.embedding
        )
