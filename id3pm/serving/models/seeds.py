"""Seeds of images for which none was sent."""

from __future__ import annotations

import hashlib
import secrets

from id3pm.diffusion import noise

_KEY = secrets.token_bytes(32)  # of this process, so that no id has a seed that others can know


def drawn_seed(request_id: str, row: int) -> int:
    """A random seed, 0 .. 2^32 - 1; the same for the same id, so that a request which comes again is still equal.

    Args:
        request_id: The request's id; empty where it has none.
        row: Number of the image in the request.
    """
    if not request_id:
        return noise.drawn_seed()
    digest = hashlib.blake2b(f"{row}/{request_id}".encode(), key=_KEY, digest_size=noise.DRAWN_BITS // 8)
    return int.from_bytes(digest.digest(), "little")
