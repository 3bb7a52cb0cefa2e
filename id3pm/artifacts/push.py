"""Pushes a bundle or the engines of a model repository: listed, checked, and with its card where the hub shows it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from id3pm.artifacts.address import Address
from id3pm.artifacts.contents import CARD_ON_HUB, Contents, FileEntry
from id3pm.artifacts.pull import remote_at
from id3pm.artifacts.requirements import STAGE_MODELS, engine_files, engine_folder, requirements, stage_manifests
from id3pm.engines.manifest import verify_engine_file
from id3pm.errors import TransferError
from id3pm.formats.bundle import CONFIG_FILE, LATENT, STAGES, latent_file, verify, weights_file
from id3pm.formats.hashing import file_sha256
from id3pm.formats.model_card import card_for_hub


def push(folder: Path, address: Address, create: bool, report: Callable[[str], None]) -> Address:
    """Uploads what a folder holds, after checking it; returns the pinned address.

    Args:
        folder: A bundle, or a model repository with engines.
        address: Where to; a branch or a tag, not a commit or a digest.
        create: Make the hub's repository if there is none; a private one.
        report: Called with a line for each file.

    Raises:
        TransferError: The folder is neither, or the upload was refused.
        Id3pmError: Something in the folder is damaged.
        OSError: The connection broke.
    """
    if address.is_pinned:
        raise TransferError(
            f"{address} is pinned: push to a branch or a tag; the address of what was pushed is printed"
        )
    with contextlib.ExitStack() as held:
        if (folder / CONFIG_FILE).is_file():
            contents, files = held.enter_context(_bundle(folder))
        elif all((engine_folder(folder, model) / "manifest.json").is_file() for model in STAGE_MODELS):
            contents, files = _engines(folder)
        else:
            raise TransferError(f"{folder} is neither a bundle (bundle.json) nor a model repository with engines")
        return remote_at(address).push(contents, files, create, report)


@contextlib.contextmanager
def _bundle(folder: Path) -> Iterator[tuple[Contents, Mapping[str, Path]]]:
    bundle = verify(folder)
    names = [CONFIG_FILE, *(weights_file(stage) for stage in STAGES)]
    latent = [file.relative_to(folder).as_posix() for kind in LATENT if (file := latent_file(folder, kind)) is not None]
    files = {name: folder / name for name in (*names, *latent)}
    with tempfile.TemporaryDirectory() as temporary:
        files[CARD_ON_HUB] = Path(temporary) / CARD_ON_HUB
        files[CARD_ON_HUB].write_text(card_for_hub(folder), encoding="utf-8")
        about = {"name": bundle.name, "id_vector_model": bundle.id_vector_model, "licence": bundle.licence}
        yield Contents("bundle", _entries(files), about), files


def _engines(repository: Path) -> tuple[Contents, Mapping[str, Path]]:
    for model, manifest in stage_manifests(repository).items():
        verify_engine_file(engine_folder(repository, model), manifest)
    files = {name: repository / name for name in engine_files(repository)}
    return Contents("engines", _entries(files), requirements(repository)), files


def _entries(files: Mapping[str, Path]) -> dict[str, FileEntry]:
    return {name: FileEntry(file.stat().st_size, file_sha256(file)) for name, file in files.items()}
