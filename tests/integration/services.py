"""Services of a test's own, and what tests of the client ask of a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from id3pm.serving.gateway.auth import Access, read_tokens
from id3pm.serving.service import Service, ServiceSettings
from id3pm_client import Client, GeneratedImage

# Each keeps one stage busy for many seconds if it is not stopped.
LONG: dict[str, dict[str, Any]] = {
    "denoiser_64": {"steps": 1000, "sampler": "ddpm"},
    "super_resolution": {"steps": 1, "sr_steps": 1000, "sr_sampler": "ddpm"},
}


def service_on(repository: Path, **settings: Any) -> Service:
    """A service on free ports that has not begun; `settings` are those of `ServiceSettings`."""
    quick = {"threads": 1, "start_timeout_s": 60, "drain_timeout_s": 5}
    return Service(repository, ServiceSettings.on_free_ports(**{**quick, **settings}))


@contextlib.contextmanager
def running(repository: Path, **settings: Any) -> Iterator[Service]:
    """The same while it runs; ended, if need be by force."""
    service = service_on(repository, **settings)
    try:
        with service:
            yield service
    finally:
        service.kill()


def access_of(folder: Path, tokens: str) -> Access:
    """What a file of tokens allows."""
    file = folder / "tokens.toml"
    file.write_text(tokens)
    return read_tokens(file)


def same(first: GeneratedImage, second: GeneratedImage) -> bool:
    """Whether two images and their receipts are the same to the bit."""
    assert first.image_64 is not None and second.image_64 is not None
    return (
        first.seed == second.seed
        and first.receipt == second.receipt
        and first.image.tobytes() == second.image.tobytes()
        and first.image_64.tobytes() == second.image_64.tobytes()
    )


def idle(client: Client) -> bool:
    """Whether no stage has work."""
    return all(status["active"] == status["waiting"] == 0 for status in client.ping().values())
