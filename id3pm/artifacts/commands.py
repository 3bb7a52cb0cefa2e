"""`id3pm pull` and `id3pm push`, and the folders that other commands take by address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from id3pm.artifacts.address import parse_address
from id3pm.artifacts.contents import Kind
from id3pm.artifacts.download import OnBytes
from id3pm.artifacts.pull import OnTotal, cache_folder, local_folder, pull, remote_at
from id3pm.artifacts.push import push
from id3pm.command_options import FOLDER
from id3pm.errors import Id3pmError, os_reason


@click.command("pull")
@click.argument("address")
@click.argument("folder", required=False, type=FOLDER)
@click.option("--resolve", is_flag=True, help="Print the pinned address of a branch or a tag; pull nothing.")
def pull_command(address: str, folder: Path | None, resolve: bool) -> None:
    """Pull a bundle or an engine set: hf://OWNER/NAME@COMMIT or oci://REGISTRY/NAME@sha256:DIGEST.

    FOLDER must not exist, or be empty; without it the cache is used (ID3PM_CACHE). Every file is compared with its
    hash before it is used. Nothing that is pulled is executed. The folder is printed.
    """
    at = parse_address(address)
    if resolve:
        click.echo(str(remote_at(at).resolve()))
        return
    at.require_pinned()
    target = cache_folder(at) if folder is None else folder
    with _progress(address) as on_total:
        pulled = pull(at, target, on_total)
    click.echo(f"{'pulled' if pulled else 'was there already, and is intact'}: {address}", err=True)
    click.echo(str(target))


@click.command("push")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("address")
@click.option("--create", is_flag=True, help="Make the hub's repository if there is none; a private one.")
def push_command(folder: Path, address: str, create: bool) -> None:
    """Push a bundle, or the engines of a model repository: hf://OWNER/NAME[@BRANCH] or oci://REGISTRY/NAME[:TAG].

    The pinned address of what was pushed is printed.
    """
    at = push(folder, parse_address(address), create, lambda line: click.echo(line, err=True))
    click.echo(str(at))


def folder_of(address: str, kind: Kind) -> Path:
    """The folder in the cache of a bundle or an engine set; for options that take a folder or an address.

    Raises:
        click.ClickException: It cannot be pulled, or is not what is needed.
    """
    try:
        with _progress(address) as on_total:
            return local_folder(address, kind, on_total)
    except (Id3pmError, OSError) as error:
        raise click.ClickException(os_reason(error) if isinstance(error, OSError) else str(error)) from error


@contextlib.contextmanager
def _progress(what: str) -> Iterator[OnTotal]:
    """A bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def on_total(total: int) -> OnBytes:
            task = bar.add_task(what.rpartition("@")[0], total=total)
            return lambda count: bar.advance(task, count)

        yield on_total
