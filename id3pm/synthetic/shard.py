"""One shard: images are made, judged and encoded at the same time, and made again with further seeds where rejected."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import decode
from id3pm.pipeline import ImageJob
from id3pm.sampling.receipt import Receipt
from id3pm.synthetic.generators import Generator, MadeImage
from id3pm.synthetic.judging import SECOND, ImageJudges, Verdict
from id3pm.synthetic.plan_file import PlannedImage
from id3pm.synthetic.plan_header import PlanHeader
from id3pm.synthetic.shard_files import (
    KEPT,
    REJECTED,
    encode_picture,
    kept_name,
    rejected_name,
    sha256,
    table_bytes,
    tar_bytes,
    tar_name,
)
from id3pm.synthetic.variations import retry_seed

CHUNK = 32
"""Images that are judged together: always the same ones, whatever order they are done in."""
ENCODERS = min(4, os.cpu_count() or 1)
OnImage = Callable[[bool], object]
"""Told of each image whether it was kept by the filters that need it alone."""


@dataclasses.dataclass(eq=False)
class _Candidate:
    """An image that was made."""

    position: int
    planned: PlannedImage
    attempt: int
    seed: int
    receipt: Receipt
    verdict: Verdict
    pixels_sha256: str
    picture: concurrent.futures.Future[bytes] | None
    second_similarity: float = math.nan


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """A shard that is made.

    Attributes:
        number: Of the shard.
        files: Name -> content, in the order in which they are to be written.
        kept: Images in it.
        rejected: Images that were made in vain.
        missing: Planned images without an attempt that was kept.
        receipts: Of the images that were made.
    """

    number: int
    files: dict[str, bytes]
    kept: int
    rejected: int
    missing: int
    receipts: list[Receipt]


def job_of(header: PlanHeader, planned: PlannedImage, attempt: int = 0) -> ImageJob:
    """What to generate for a row of the plan."""
    return ImageJob(
        embedding=planned.vector,
        seed=retry_seed(planned.seed, attempt),
        attributes=planned.attributes,
        options={**header.options, "guidance_scale": planned.guidance_scale},
    )


def make_shard(
    number: int,
    header: PlanHeader,
    rows: Sequence[PlannedImage],
    generator: Generator,
    judges: ImageJudges,
    on_image: OnImage = lambda kept: None,
) -> Shard:
    """Makes a shard: a pure function of the plan, as long as engines and FR models are the same.

    Args:
        number: Of the shard.
        header: Of the plan.
        rows: The shard's.
        generator: Makes the images.
        judges: Judges them.
        on_image: Told of each image.
    """
    kept: dict[int, _Candidate] = {}
    rejected: list[tuple[_Candidate, str]] = []
    receipts: list[Receipt] = []
    waiting: Sequence[int] = range(len(rows))
    with concurrent.futures.ThreadPoolExecutor(ENCODERS, "id3pm-encode") as encoders:
        for attempt in range(header.filters.attempts):
            candidates = _made(header, rows, waiting, attempt, generator, judges, encoders, on_image)
            receipts += [candidate.receipt for candidate in candidates]
            turned_down = _turned_down(candidates, kept.values(), judges)
            rejected += turned_down
            bad = {candidate.position for candidate, _ in turned_down}
            kept |= {candidate.position: candidate for candidate in candidates if candidate.position not in bad}
            waiting = sorted(bad)
            if not waiting:
                break
        files = _files(number, header, [kept[position] for position in sorted(kept)], rejected)
    return Shard(
        number=number, files=files, kept=len(kept), rejected=len(rejected), missing=len(waiting), receipts=receipts
    )


def _made(
    header: PlanHeader,
    rows: Sequence[PlannedImage],
    positions: Sequence[int],
    attempt: int,
    generator: Generator,
    judges: ImageJudges,
    encoders: concurrent.futures.Executor,
    on_image: OnImage,
) -> list[_Candidate]:
    """One attempt at each of these rows, judged."""
    jobs = [job_of(header, rows[position], attempt) for position in positions]
    found: list[_Candidate] = []
    for chunk in _chunks(generator.generate(jobs), len(jobs)):
        planned = [rows[positions[made.position]] for made in chunk]
        verdicts = judges.judge(
            np.stack([made.image for made in chunk]),
            [row.identity for row in planned],
            np.stack([row.vector for row in planned]),
        )
        for made, row, verdict in zip(chunk, planned, verdicts, strict=True):
            picture = None
            if verdict.reason is None:
                picture = encoders.submit(encode_picture, made.image, header.image_format, made.receipt)
            found.append(
                _Candidate(
                    position=positions[made.position],
                    planned=row,
                    attempt=attempt,
                    seed=retry_seed(row.seed, attempt),
                    receipt=made.receipt,
                    verdict=verdict,
                    pixels_sha256=_pixels_sha256(made.image),
                    picture=picture,
                )
            )
            on_image(verdict.reason is None)
    return sorted(found, key=lambda candidate: candidate.position)


def _chunks(images: Iterable[MadeImage], count: int) -> Iterator[list[MadeImage]]:
    """The images in chunks of neighbours, each as soon as all of it is there."""
    chunks: dict[int, list[MadeImage]] = collections.defaultdict(list)
    for made in images:
        number = made.position // CHUNK
        chunks[number].append(made)
        if len(chunks[number]) == min(CHUNK, count - number * CHUNK):
            yield sorted(chunks.pop(number), key=lambda made: made.position)


def _turned_down(
    candidates: Sequence[_Candidate], kept: Iterable[_Candidate], judges: ImageJudges
) -> list[tuple[_Candidate, str]]:
    """The rejected ones with the reason; sets the similarity of the second model on the others."""
    by_identity: dict[int, list[_Candidate]] = collections.defaultdict(list)
    for candidate in (*kept, *candidates):
        if candidate.verdict.second_vector is not None:
            by_identity[candidate.planned.identity].append(candidate)
    least, found = judges.filters.least_second, []
    for candidate in candidates:
        reason, vector = candidate.verdict.reason, candidate.verdict.second_vector
        if vector is not None:
            others = [other for other in by_identity[candidate.planned.identity] if other is not candidate]
            vectors = [other.verdict.second_vector for other in others if other.verdict.second_vector is not None]
            candidate.second_similarity = judges.agreement(vector, vectors)
            if least is not None and candidate.second_similarity < least:  # false for NaN
                reason = SECOND
        if reason is not None:
            found.append((candidate, reason))
    return found


def _files(
    number: int, header: PlanHeader, kept: Sequence[_Candidate], rejected: Sequence[tuple[_Candidate, str]]
) -> dict[str, bytes]:
    rows, members = [], []
    for candidate in kept:
        assert candidate.picture is not None
        picture, key = candidate.picture.result(), f"{candidate.planned.image:09d}"
        row = _kept_row(header, candidate, key, picture)
        about = {name: row[name] for name in ("identity", "seed", "guidance_scale", "similarity")}
        about["similarity"] = None if math.isnan(about["similarity"]) else about["similarity"]
        about["attributes"] = None if row["attributes"] is None else json.loads(row["attributes"])
        rows.append(row)
        members += [
            (f"{key}.{header.image_format}", picture),
            (f"{key}.cls", str(candidate.planned.identity).encode()),
            (f"{key}.json", json.dumps(about).encode()),
        ]
    refused = [{**_common(candidate), "reason": reason} for candidate, reason in rejected]
    return {
        rejected_name(number): table_bytes(refused, REJECTED),
        kept_name(number): table_bytes(rows, KEPT),
        tar_name(number): tar_bytes(members),
    }


def _common(candidate: _Candidate) -> dict[str, Any]:
    verdict = candidate.verdict
    return {
        "image": candidate.planned.image,
        "identity": candidate.planned.identity,
        "attempt": candidate.attempt,
        "seed": candidate.seed,
        "guidance_scale": candidate.planned.guidance_scale,
        "similarity": verdict.similarity,
        "other_similarity": verdict.other_similarity,
        "other_identity": verdict.other_identity,
        "second_similarity": candidate.second_similarity,
    }


def _kept_row(header: PlanHeader, candidate: _Candidate, key: str, picture: bytes) -> dict[str, Any]:
    planned, detection = candidate.planned, candidate.verdict.detection
    attributes = None
    if planned.attributes is not None and header.attribute_set is not None:
        attributes = json.dumps(decode(planned.attributes, header.attribute_set))
    return {
        "key": key,
        **_common(candidate),
        "origin": planned.origin,
        "attributes": attributes,
        "id_vector": planned.vector.tolist(),
        "detection": None if detection is None else detection.tolist(),
        "receipt": json.dumps(candidate.receipt),
        "sha256": sha256(picture),
        "pixels_sha256": candidate.pixels_sha256,
    }


def _pixels_sha256(image: NDArray[np.uint8]) -> str:
    return sha256(np.ascontiguousarray(image).tobytes())
