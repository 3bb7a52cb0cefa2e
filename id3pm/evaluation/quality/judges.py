"""FR models beside the training one as judges of ID distances."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.verification.fr_models import PairModel


class PairJudge:
    """See `id3pm.evaluation.judges.Judge`: any FR model of the verification protocols, as vectors to compare by cosine.

    Args:
        model: The FR model.
        others: Pictures of people that are not judged, uint8 [N, S, S, 3]: their mean vector is subtracted where the
            model needs it (`PairModel.centred`).
    """

    independent = True
    centred = False  # what `embed` gives has the mean subtracted already

    def __init__(self, model: PairModel, others: NDArray[np.uint8]) -> None:
        self._model = model
        self.name = model.name
        self.key = f"{model.key}, first view"
        self._centre: NDArray[np.float32] | float = 0.0
        if model.centred:
            self._centre = np.nanmean(model.views(list(others), False)[:, 0], axis=0)
            self.key += f", less the mean of {hashlib.sha256(others.tobytes()).hexdigest()}"

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors of the main face in each picture; see `Judge.embed`."""
        vectors: NDArray[np.float32] = self._model.views(list(images), False)[:, 0] - self._centre
        return vectors
