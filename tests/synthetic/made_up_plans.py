"""Plans, generators and FR models with known answers: the colour of a picture is its ID vector."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from id3pm.errors import FaceError, NoFaceError
from id3pm.face.stage import FaceResult
from id3pm.pipeline import ImageJob
from id3pm.synthetic.generators import MadeImage
from id3pm.synthetic.judging import ImageJudges
from id3pm.synthetic.plan_file import Plan, write_plan
from id3pm.synthetic.plan_header import Filters, PlanHeader
from id3pm.synthetic.variations import Variation

DIM = 3
OFF = Filters(least_similarity=None, most_other=None, second=None, least_second=None, attempts=1, models={})
AXES = np.eye(DIM, dtype=np.float32)


def filters(**changes: Any) -> Filters:
    values = {
        "least_similarity": 0.9,
        "most_other": None,
        "second": None,
        "least_second": None,
        "attempts": 3,
        "models": {},
    }
    return Filters(**{**values, **changes})


def header(images: int, identities: int, shards: int, **changes: Any) -> PlanHeader:
    values: dict[str, Any] = {
        "bundle": "made up",
        "weights_sha256": {"base": "0" * 64, "sr": "1" * 64},
        "id_vector_model": "color",
        "identity_dim": DIM,
        "l2_normalised": True,
        "attribute_set": None,
        "seed": 0,
        "source": "axes",
        "options": {"steps": 4},
        "image_format": "png",
        "filters": OFF,
    }
    return PlanHeader(images=images, identities=identities, shards=shards, **{**values, **changes})


def plan_data(images: int = 2, vectors: np.ndarray = AXES, per_shard: int = 1, **changes: Any) -> bytes:
    """A plan with `images` of each identity; the seed of image k of identity i is 10 i + k."""
    count = len(vectors)
    described = header(images * count, count, -(-count // per_shard), **changes)
    file = io.BytesIO()
    write_plan(
        file,
        described,
        vectors,
        [f"axis {i}" for i in range(count)],
        lambda identity: [
            Variation(seed=10 * identity + k, guidance_scale=2.0, attributes=None) for k in range(images)
        ],
        per_shard,
    )
    return file.getvalue()


def opened(data: bytes) -> Plan:
    return Plan(lambda: io.BytesIO(data))


class ColorGenerator:
    """Makes the target's picture; with the seeds in `bad` (seed -> vector) that of another vector, black for `None`.

    Args:
        bad: What goes wrong.
        backwards: Images arrive in reverse order.
    """

    def __init__(self, bad: dict[int, np.ndarray | None] | None = None, backwards: bool = False) -> None:
        self.bad = bad or {}
        self.backwards = backwards
        self.asked: list[int] = []

    def generate(self, jobs: Sequence[ImageJob]) -> Iterator[MadeImage]:
        order = range(len(jobs))
        for position in reversed(order) if self.backwards else order:
            job = jobs[position]
            self.asked.append(job.seed)
            vector = self.bad.get(job.seed, np.asarray(job.embedding))
            image = np.zeros((64, 64, 3), np.uint8)
            if vector is not None:
                image[:] = np.rint(128 + 90 * np.asarray(vector))
            yield MadeImage(position, image, receipt(job.seed))

    def close(self) -> None:
        pass


def receipt(seed: int, engine: str = "e", weights: str = "0") -> dict[str, Any]:
    stages = {
        stage: {"options": {"steps": 4}, "engine_sha256": engine, "weights_sha256": sha, "engine": "made up"}
        for stage, sha in (("base", weights * 64), ("sr", "1" * 64))
    }
    return {"schema": 1, "id3pm": "1", "bundle": "made up", "seed": seed, "id_vector_sha256": "v", "stages": stages}


class ColorStage:
    """Reads the ID vector off the colour; black pictures show no face."""

    identity_dim = DIM

    def embed_images(self, images: np.ndarray) -> list[FaceResult | FaceError]:
        return [self._one(image) for image in images]

    def _one(self, image: np.ndarray) -> FaceResult | FaceError:
        if not image.any():
            return NoFaceError("black")
        vector = image[0, 0].astype(np.float32) - 128
        landmarks = [20, 24, 44, 24, 32, 34, 24, 44, 40, 44]
        detection = np.array([12, 12, 40, 40, *landmarks, 1], np.float32)
        return FaceResult(vector / np.linalg.norm(vector), detection, 1)


class ColorSecond:
    """A second model whose vectors are the colours."""

    def chip(self, image: np.ndarray, detection: np.ndarray) -> np.ndarray:
        return image

    def describe(self, chip: np.ndarray) -> np.ndarray:
        return (chip[0, 0].astype(np.float32) - 128) / 90


def judges(plan: Plan) -> ImageJudges:
    second = ColorSecond() if plan.header.filters.second else None
    return ImageJudges(plan.header.filters, cast(Any, ColorStage()), cast(Any, second), plan.targets())


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
