"""Disk cache for arrays, keyed by a hash of everything that determines them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


class Cache:
    """A folder of .npy files. Each is named by a hash of everything that determines it, so none is out of date.

    Args:
        folder: Made on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def array(self, key: object, make: Callable[[], NDArray[Scalar]]) -> NDArray[Scalar]:
        """The array of this key, made if it has not been made before.

        Args:
            key: JSON value with everything the array depends on.
            make: Makes it.
        """
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        file = self._folder / f"{digest}.npy"
        if file.exists():
            kept: NDArray[Scalar] = np.load(file)
            return kept
        made = make()
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("wb") as stream:
            np.save(stream, made)
        partial.replace(file)
        return made
