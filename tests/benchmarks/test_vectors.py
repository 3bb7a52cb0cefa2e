"""What the benchmarks send is what a bundle with unit ID vectors takes."""

from __future__ import annotations

import numpy as np

from contest import identities
from id3pm.config import PAPER_BASE_64


def test_id_vectors_have_norm_one() -> None:
    np.testing.assert_allclose(np.linalg.norm(identities(PAPER_BASE_64, 5), axis=1), 1.0, rtol=1e-5)
