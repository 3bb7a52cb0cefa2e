"""`id3pm`: the command line. Each command is defined in its own package and imported on use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from id3pm import __version__
from id3pm.errors import Id3pmError, MissingExtraError, os_reason
from id3pm.installation import how_to_install


class Command(NamedTuple):
    """Where a command is defined, its line in the overview, and the extra that brings what it imports."""

    target: str
    help: str
    extra: str


_TRAINING = "id3pm.training.commands:"
_DATA = "id3pm.training.data_commands:"
_DISTILLATION = "id3pm.training.distillation.commands:"
COMMANDS = {
    "analyse": Command(
        "id3pm.evaluation.robustness.commands:analyse_command",
        "measure what a face-recognition model is robust against",
        "evaluate",
    ),
    "baseline": Command(
        "id3pm.evaluation.baselines.commands:baseline_group",
        "other methods to invert an FR model, to compare",
        "evaluate",
    ),
    "build": Command("id3pm.export.build:main", "a bundle -> verified engines in a model repository", "export"),
    "build-faces": Command("id3pm.export.face.build:main", "face-recognition model -> the server's face stage", "face"),
    "card": Command("id3pm.formats.model_card:card_command", "write or renew a bundle's MODEL_CARD.md", "export"),
    "convert": Command("id3pm.training.convert:convert_command", "guided-diffusion checkpoints -> a bundle", "export"),
    "dataset": Command(
        "id3pm.synthetic.commands:dataset_group", "synthetic data sets: plan, run, check, export", "dataset"
    ),
    "demo-dataset": Command(_DATA + "demo_dataset_command", "make the embedded training set", "train"),
    "distill": Command(_DISTILLATION + "distill_command", "a bundle -> a student of 1, 2 or 4 evaluations", "train"),
    "embed-dataset": Command(_DATA + "embed_dataset_command", "a folder of images -> crops and ID vectors", "train"),
    "evaluate": Command(
        "id3pm.evaluation.commands:evaluate_group", "measure identity and super-resolution", "evaluate"
    ),
    "export-bundle": Command(
        _TRAINING + "export_bundle_command", "EMA weights of two training runs -> a bundle", "train"
    ),
    "export-student": Command(_DISTILLATION + "export_student_command", "distillation runs -> a bundle", "train"),
    "latent": Command("id3pm.idspace.commands:latent_group", "axes and directions of ID vectors", "face"),
    "measure-dataset": Command(
        _DATA + "measure_dataset_command", "head pose and expression of a data set's faces", "attributes"
    ),
    "page": Command("id3pm.page.command:page_command", "a web page to try a service", "web"),
    "pull": Command("id3pm.artifacts.commands:pull_command", "a bundle or engines from a hub or registry", "hub"),
    "push": Command("id3pm.artifacts.commands:push_command", "a bundle or engines to a hub or registry", "hub"),
    "serve": Command("id3pm.serving.command:serve_command", "serve built engines with Triton", "serve"),
    "sheet": Command(
        "id3pm.evaluation.figures.commands:sheet_group", "images and measured effect of a control", "face"
    ),
    "study": Command(
        "id3pm.evaluation.user_study.command:study_group",
        "a user study: make its page, collect the answers",
        "evaluate",
    ),
    "train": Command(_TRAINING + "train_command", "train the 64 px model or the super-resolution model", "train"),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported on use, so that `id3pm --help` is instant and needs no extra."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        target, _, extra = COMMANDS[cmd_name]
        module, attribute = target.split(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"{cmd_name} needs {error.name}, which is not installed; run: {how_to_install(extra)}"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line, _) in sorted(COMMANDS.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="id3pm")
def cli() -> None:
    """ID3PM in production: ID vector and seed in, faces of that identity out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an expected error is one line on stderr and exit status 1, never a traceback.

    Args:
        arguments: Words of the command line; those that the program was started with, if `None`.
    """
    try:
        result = cli.main(arguments, prog_name="id3pm", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except Id3pmError as error:
        click.echo(f"id3pm: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a file or folder that was named cannot be read or written
        click.echo(f"id3pm: {os_reason(error)}", err=True)
        sys.exit(1)
    else:
        sys.exit(result if isinstance(result, int) else 0)
