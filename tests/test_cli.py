"""`id3pm`: an error is one line on stderr and an exit status, never a traceback."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from id3pm import cli
from id3pm.errors import ConfigError
from id3pm.installation import how_to_install


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, after `code`."""
    program = f"import sys; {code}; from id3pm.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    blocked = "sys.modules.update(dict.fromkeys(['torch', 'onnxruntime', 'tritonclient', 'cv2', 'accelerate']))"
    result = run(blocked, "--help")
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize(("command", "extra"), [("convert", "export"), ("train", "train"), ("demo-dataset", "train")])
def test_a_missing_library_names_the_extra_that_brings_it(command: str, extra: str) -> None:
    result = run("sys.modules['torch'] = None", command, "--help")
    assert result.returncode == 1
    expected = f"id3pm: {command} needs torch, which is not installed; run: {how_to_install(extra)}\n"
    assert result.stderr == expected


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_exists_under_its_name(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert isinstance(command, click.Command)
    assert command.name == name


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("steps=-1: must be positive"), "id3pm: steps=-1: must be positive\n"),
        (PermissionError(13, "Permission denied", "/out"), "id3pm: Permission denied: /out\n"),
        (FileNotFoundError(2, "No such file", "a", None, "b"), "id3pm: No such file: a -> b\n"),
        (OSError(28, "No space left on device"), "id3pm: No space left on device\n"),
        (OSError("the disk is gone"), "id3pm: the disk is gone\n"),
    ],
    ids=["package", "file", "two files", "no file", "system"],
)
def test_an_error_is_one_line_and_status_1(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli._LazyGroup, "get_command", lambda self, ctx, name: failing)
    monkeypatch.setattr(sys, "argv", ["id3pm", "convert"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == line
