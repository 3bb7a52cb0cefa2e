"""GAN search ("StyleGAN search": Vendrow and Vendrow 2021, "Realistic Face Reconstruction from Deep Embeddings").

A bank of latents and the ID vectors of their images gives the start; then a search around it, with simulated annealing.
Without another one the generator is the 64 px GAN that made the embedded data set: it is at home on that set's people,
though those that are held out are not in the bank. The authors' code does not shrink the neighbourhood (its line lies
outside of the loop) and anneals only on request; this follows the paper, unless asked to follow the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines.black_box import BlackBox, Floats, Reconstruction

NEIGHBOURS, SIGMA, DECAY = 16, 1.0, 0.98


class Generator(Protocol):
    """A GAN's generator: latents z [N, Z] -> uint8 [N, H, W, 3], RGB."""

    def images(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Its images."""
        ...


class GanSearch:
    """See the module.

    Args:
        generator: Makes images.
        bank_z: Latents of the bank, [B, Z].
        bank_vectors: Their unit ID vectors, [B, D]; NaN where no face was found.
        generator_key: Hash of its weights.
        authors_code: No shrinking and no annealing, as in the authors' code.

    Raises:
        InvalidInputError: No image of the bank has a face.
    """

    name = "GAN search"
    aligned = False

    def __init__(
        self,
        generator: Generator,
        bank_z: NDArray[np.float32],
        bank_vectors: Floats,
        generator_key: str,
        *,
        authors_code: bool = False,
    ) -> None:
        seen = np.isfinite(bank_vectors).all(axis=1)
        if not seen.any():
            raise InvalidInputError(f"no face in the {len(bank_z)} images of the bank: the generator makes no faces")
        self._generator = generator
        self._bank_z, self._bank_vectors = bank_z[seen], bank_vectors[seen]
        self._authors_code = authors_code
        how = " as in the code" if authors_code else ""
        self.key = f"gan {generator_key} bank {len(bank_z)} {NEIGHBOURS} {SIGMA} {DECAY}{how}"

    def reconstruct(
        self, target: Floats, black_box: BlackBox, budget: int, seed: int, on_queries: Callable[[int], object]
    ) -> Reconstruction:
        """See `Search.reconstruct`. The bank's queries are not counted here: all targets share them.

        Raises:
            InvalidInputError: The budget is below one iteration.
        """
        iterations = budget // NEIGHBOURS
        if not iterations:
            raise InvalidInputError(f"{budget} queries: GAN search needs {NEIGHBOURS} for one iteration")
        random = np.random.default_rng(seed)
        unit = target / np.linalg.norm(target)
        nearest = int((self._bank_vectors @ unit).argmax())
        current = best = self._bank_z[nearest]
        current_distance = best_distance = _distance(float(self._bank_vectors[nearest] @ unit))
        sigma = SIGMA
        for iteration in range(iterations):
            temperature = 0.0 if self._authors_code else 1.0 - (iteration + 1) / iterations
            noise = random.standard_normal((NEIGHBOURS, len(current)), dtype=np.float32)
            around = (current + np.float32(sigma) * noise).astype(np.float32)
            cosines = black_box.similarities(list(self._generator.images(around)), target, aligned=False)
            on_queries(NEIGHBOURS)
            taken = int(cosines.argmax())
            distance = _distance(float(cosines[taken]))
            if _accepted(distance - current_distance, temperature, random):
                current, current_distance = around[taken], distance
            if distance < best_distance:
                best, best_distance = around[taken], distance
            sigma *= 1.0 if self._authors_code else DECAY
        image = self._generator.images(best[None])[0]
        return Reconstruction(image, 1.0 - best_distance**2 / 2.0, iterations * NEIGHBOURS)


def _distance(cosine: float) -> float:
    """Euclidean distance of unit vectors."""
    return math.sqrt(max(0.0, 2.0 - 2.0 * cosine))


def _accepted(worse: float, temperature: float, random: np.random.Generator) -> bool:
    """Always where it is no worse, else with probability exp(-worse / T)."""
    if worse <= 0.0:
        return True
    return temperature > 0.0 and random.random() < math.exp(-worse / temperature)
