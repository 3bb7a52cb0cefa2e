"""The source of a face engine folder: models, hashes, preprocessing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from id3pm.face.manifest import FaceManifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceSource:
    """One FR model: found and hashed, not yet built.

    Attributes:
        id_vector_model: What bundles call its ID vectors.
        recipe: Version of the export or clean-up; 0 where files are taken as they are.
        sha256: Over all source files and descriptions.
        build: (folder, sha256) -> manifest: writes the models into the empty folder, and refuses those that
            differ from their source.
    """

    id_vector_model: str
    recipe: int
    sha256: str
    build: Callable[[Path, str], FaceManifest]
