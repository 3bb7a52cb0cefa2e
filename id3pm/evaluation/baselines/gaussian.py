"""Gaussian sampling (Razzhigaev et al. 2020, "Black-Box Face Recovery from Identity Features").

A grey, mirror-symmetric crop of 112 px grows from black by Gaussian blobs: of a batch of candidates, each the present
picture with one blob and its mirror image, the one most like the target is the next picture. Ten short starts, then on
from the best of them. Written from the published maths; the differences from the authors' code are in `DEVIATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines.black_box import BlackBox, Floats, Reconstruction

SIDE, EDGE, TOP = 112, 20, 5  # pixels: of the crop; without a blob's centre at either side; above
BATCH, STARTS, START_SHARE = 80, 10, 1 / 30  # the paper's 100 of 3000 iterations for each start
AMPLITUDE = 0.02  # of the authors' notebook; grey is 0 .. 1
DEVIATIONS = (
    "unit ID vectors: no term for their norm",
    "the black box takes 8-bit pictures",
    "the width of blobs follows the best cosine of this start; with --authors-code that of the last batch",
)


class GaussianSampling:
    """See the module.

    Args:
        authors_code: The width of blobs follows the best cosine of the last batch, as in the authors' code.
    """

    name = "Gaussian sampling"
    aligned = True

    def __init__(self, *, authors_code: bool = False) -> None:
        self._authors_code = authors_code
        self.key = f"gaussian {BATCH} {STARTS} {AMPLITUDE}{' as in the code' if authors_code else ''}"

    def reconstruct(
        self, target: Floats, black_box: BlackBox, budget: int, seed: int, on_queries: Callable[[int], object]
    ) -> Reconstruction:
        """See `Search.reconstruct`.

        Raises:
            InvalidInputError: The budget is below one iteration of each start and one more.
        """
        iterations = budget // BATCH
        if iterations <= STARTS:
            raise InvalidInputError(
                f"{budget} queries: Gaussian sampling needs {(STARTS + 1) * BATCH}, a batch for each start and one more"
            )
        random = np.random.default_rng(seed)
        per_start = max(1, round(iterations * START_SHARE))
        walks = [_Walk(target, black_box, random, on_queries, self._authors_code) for _ in range(STARTS)]
        for walk in walks:
            walk.go(per_start)
        best = max(walks, key=lambda walk: walk.best_cosine)
        best.go(iterations - STARTS * per_start)
        return Reconstruction(best.best, best.best_cosine, iterations * BATCH)


class _Walk:
    """One start and where it has come to."""

    def __init__(
        self,
        target: Floats,
        black_box: BlackBox,
        random: np.random.Generator,
        on_queries: Callable[[int], object],
        forgets: bool,
    ) -> None:
        self._target, self._black_box, self._random, self._on_queries = target, black_box, random, on_queries
        self._grey = np.zeros((SIDE, SIDE), np.float32)
        self._forgets = forgets
        self._last_cosine = self.best_cosine = -1.0
        self.best = _picture(self._grey)

    def go(self, iterations: int) -> None:
        for _ in range(iterations):
            reached = self._last_cosine if self._forgets else self.best_cosine
            candidates = np.clip(self._grey + blobs(self._random, reached), 0.0, 1.0)
            pictures = [_picture(grey) for grey in candidates]
            cosines = self._black_box.similarities(pictures, self._target, aligned=True)
            self._on_queries(len(pictures))
            taken = int(cosines.argmax())
            self._grey, self._last_cosine = candidates[taken], float(cosines[taken])
            if cosines[taken] > self.best_cosine:
                self.best_cosine, self.best = float(cosines[taken]), pictures[taken]


def blobs(random: np.random.Generator, cosine: float, count: int = BATCH) -> NDArray[np.float32]:
    """Blobs with their mirror images, float32 [count, 112, 112].

    Their width falls with the cosine c that was reached: sigma = sqrt(10 + U(0, 150) + max(0, 300 - 550 c^0.3)) / 2.
    """
    spread = 10.0 + random.uniform(0.0, 150.0, count) + max(0.0, 300.0 - 550.0 * max(0.0, cosine) ** 0.3)
    variance = (spread / 4.0)[:, None]  # sigma squared
    amplitude = AMPLITUDE * (random.random(count) - 0.5)
    x, y = random.uniform(EDGE, SIDE - EDGE, count)[:, None], random.uniform(TOP, SIDE, count)[:, None]
    pixels = np.linspace(0.0, SIDE, SIDE)[None]
    across, down = (np.exp(-((pixels - centre) ** 2) / (2.0 * variance)) for centre in (x, y))
    one = amplitude[:, None, None] * down[:, :, None] * across[:, None, :]
    mirrored: NDArray[np.float32] = (one + one[:, :, ::-1]).astype(np.float32)
    return mirrored


def _picture(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.repeat(np.rint(grey * 255.0).astype(np.uint8)[:, :, None], 3, axis=2)
