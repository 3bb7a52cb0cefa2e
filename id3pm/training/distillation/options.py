"""Options of one session of distillation: where things lie and when to stop; none of them changes what is learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Options of one session.

    Attributes:
        teacher: The teacher's bundle.
        out: Folder of the run.
        data: Data set whose ID vectors (or images, for super-resolution) the teacher is given; `None` with a stream.
        stream: Seed of generated people instead; see `id3pm.training.stream`.
        faces: Face engine folder.
        repository: Model repository: an engine of the teacher's there makes its results, which is faster.
        resume: Go on from the run's checkpoint.
        start_from: A student's bundle whose weights a new run starts from, instead of the teacher's.
        max_minutes: Stop with a checkpoint after this long, counted from the first optimiser step; `None` for no limit.
        save_minutes: Time between checkpoints (with pictures).
        log_every: Steps per line of the history.
        threads: CPU threads of each process; `None` for PyTorch's choice.
        cpu: Train on the CPU even where there is a GPU.
    """

    teacher: Path
    out: Path
    data: Path | None = None
    stream: int | None = None
    faces: Path = Path("triton_repo/face_embedding/1/engine")
    repository: Path = Path("triton_repo")
    resume: bool = False
    start_from: Path | None = None
    max_minutes: float | None = None
    save_minutes: float = 10.0
    log_every: int = 20
    threads: int | None = None
    cpu: bool = False
