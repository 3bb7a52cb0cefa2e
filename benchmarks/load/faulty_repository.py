"""A model repository with engines that can be made slow or failing, for fault tests only."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STAGE = "denoiser_64"
PRELUDE = '''\
"""As the model of the repository, with an engine that can be told to be slow or to fail: for benchmarks/loadtest.py."""

import time
from pathlib import Path

import id3pm.engines.base as engines

ORDER = Path({order!r})


class FaultyEngine:
    """An engine that reads before every call what is wrong with it: `slow SECONDS`, or `fail` for one call.

    A call with a marked image always fails: see `marked_vector`.
    """

    def __init__(self, engine):
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def run(self, inputs):
        """As the engine, unless something is wrong."""
        try:
            order, _, value = ORDER.read_text().partition(" ")
        except FileNotFoundError:
            order = ""
        if order == "slow":
            time.sleep(float(value))
        elif order == "fail":
            ORDER.unlink(missing_ok=True)
            raise MemoryError("injected")
        vectors = inputs["identity"]
        if (abs(vectors + vectors.shape[1] ** -0.5) < 1e-5).all(axis=1).any():
            raise ValueError("injected, for one image")
        return self._engine.run(inputs)


load_engine = engines.load_engine
engines.load_engine = lambda *args, **kwargs: FaultyEngine(load_engine(*args, **kwargs))

'''


def marked_vector(identity_dim: int) -> NDArray[np.float32]:
    """The ID vector of length 1 and of one negative number: every engine call that holds it fails.

    A positive one is what `id3pm serve` sends when it starts.
    """
    return np.full(identity_dim, -(identity_dim**-0.5), np.float32)


class FaultyRepository:
    """The copy, and the switch. Engines are linked, not copied.

    Args:
        folder: Where to; what is there is removed.
        repository: The one to copy.
    """

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder = folder
        self._order = folder.with_name(f"{folder.name}.order").resolve()
        self._order.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        kept = shutil.ignore_patterns("engine", "__pycache__", ".engine-*", "*.timing_cache")
        shutil.copytree(repository, folder, ignore=kept)
        for engine in sorted(repository.glob("*/1/engine")):
            (folder / engine.relative_to(repository)).symlink_to(engine.resolve())
        model = folder / STAGE / "1" / "model.py"
        model.write_text(PRELUDE.format(order=str(self._order)) + model.read_text())

    def order(self, what: str) -> None:
        """`slow SECONDS` until `recover`, or `fail` at the next call of the engine."""
        partial = self._order.with_suffix(".part")
        partial.write_text(what)
        partial.rename(self._order)

    def recover(self) -> None:
        """Nothing is wrong any more."""
        self._order.unlink(missing_ok=True)
