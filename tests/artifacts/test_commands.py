"""`id3pm pull` and `push`, and addresses in place of folders."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from fake_hub import FakeHub
from pulling import bytes_of

from id3pm.artifacts.commands import pull_command, push_command
from id3pm.artifacts.pull import cache_folder
from id3pm.cli import COMMANDS
from id3pm.command_options import BUNDLE, REPOSITORY, FolderOrAddress
from id3pm.formats.bundle import read_bundle

WRITTEN = {("build", "repository"), ("build-faces", "repository"), ("evaluate card", "bundle")}
"""Options of folders that a command changes."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ID3PM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(command: click.Command, *words: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def refused(command: click.Command, *words: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 1 and not result.stdout
    return result.stderr


def test_what_is_pushed_is_pulled_by_the_printed_address(hub: FakeHub, bundle: Path, tmp_path: Path) -> None:
    address = run(push_command, bundle, "hf://lab/faces", "--create")
    assert run(pull_command, "--resolve", "hf://lab/faces") == address
    assert run(pull_command, address, tmp_path / "new") == str(tmp_path / "new")
    assert read_bundle(tmp_path / "new") == read_bundle(bundle)
    folder = Path(run(pull_command, address))
    assert folder.is_relative_to(tmp_path / "cache")
    assert bytes_of(folder) == bytes_of(tmp_path / "new")


def test_an_option_takes_an_address_as_it_takes_a_folder(hub: FakeHub, bundle: Path, tmp_path: Path) -> None:
    @click.command()
    @click.option("--bundle", type=BUNDLE)
    def command(bundle: Path) -> None:
        click.echo(str(bundle))

    address = run(push_command, bundle, "hf://lab/faces")
    folder = Path(run(command, "--bundle", address))
    assert read_bundle(folder) == read_bundle(bundle)
    hub.requests.clear()
    assert run(command, "--bundle", address) == str(folder)
    assert hub.requests == [], "it is in the cache"
    (folder / "sr.safetensors").write_bytes(b"x")
    assert "sr.safetensors is not the file of" in refused(command, "--bundle", address)
    assert run(command, "--bundle", bundle) == str(bundle)


def test_a_bundle_is_no_engine_set(hub: FakeHub, bundle: Path) -> None:
    @click.command()
    @click.option("--repository", type=REPOSITORY)
    def command(repository: Path) -> None: ...

    address = run(push_command, bundle, "hf://lab/faces")
    assert "is a bundle, needed here is an engine set" in refused(command, "--repository", address)
    assert "no version is named" in refused(command, "--repository", "hf://lab/faces")
    run(pull_command, address)
    assert "is a bundle, needed here is an engine set" in refused(command, "--repository", address)


def test_each_address_has_its_place_in_the_cache(cache: Path) -> None:
    from id3pm.artifacts.address import parse_address

    places = {
        cache_folder(parse_address(text))
        for text in (
            "hf://a/b@" + "0" * 40,
            "hf://a/b@" + "1" * 40,
            "oci://a.b/b@sha256:" + "0" * 64,
            "oci://a.b:5/b@sha256:" + "0" * 64,
            "oci://a.b/b/c@sha256:" + "0" * 64,
        )
    }
    assert len(places) == 5
    assert all(place.is_relative_to(cache) and ".." not in place.parts for place in places)


def options() -> Iterator[tuple[str, click.Parameter]]:
    """Every option of every command, with the command's name."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
        for parameter in command.params:
            yield name, parameter
        if isinstance(command, click.Group):
            for word, below in command.commands.items():
                yield from walk(f"{name} {word}", below)

    for name, (target, _, _) in COMMANDS.items():
        module, attribute = target.split(":")
        yield from walk(name, getattr(importlib.import_module(module), attribute))


def test_addresses_are_taken_wherever_a_folder_is_only_read() -> None:
    found = {}
    for command, parameter in options():
        for option in ("bundle", "repository"):
            if f"--{option}" in parameter.opts:
                found[command, option] = isinstance(parameter.type, FolderOrAddress)
    assert len(found) > 10
    assert {where for where, takes in found.items() if not takes} == WRITTEN
