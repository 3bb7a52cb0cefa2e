"""The command line of `id3pm-client`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from id3pm_client._arguments import OTHER_NAMES
from id3pm_client._connection import DEFAULT_URL
from id3pm_client._contract import OPTIONS
from id3pm_client._errors import InvalidRequestError
from id3pm_client._seeds import parse_seeds
from id3pm_client._version import __version__

EPILOG = (
    "exit codes: 0 done, 1 other failure, 2 bad input, 3 server unavailable, 4 time limit passed, "
    "5 replay is not the same image, 130 interrupted"
)
_PARSERS: Mapping[str, type[str] | type[int] | type[float]] = MappingProxyType(
    {"BYTES": str, "INT32": int, "FP32": float}
)


def make_parser(commands: Mapping[str, Callable[[argparse.Namespace], object]]) -> argparse.ArgumentParser:
    """The parser; `args.command` of what it parses is one of `commands`, by name."""
    parser = _Parser("id3pm-client", description="Client of an ID3PM server.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=__version__)
    _add_connection(parser)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (help, add_arguments) in _COMMANDS.items():
        command = subparsers.add_parser(name, help=help, epilog=EPILOG)
        command.set_defaults(command=commands[name])
        add_arguments(command)
    return parser


def _add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        action="append",
        metavar="HOST:PORT",
        help="gRPC endpoint; may be repeated for servers with the same engines; dns:///HOST:PORT is all addresses of a "
        f"name (default: {DEFAULT_URL})",
    )
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds per request (%(default)s)")
    parser.add_argument("--max-in-flight", type=int, default=16, metavar="N", help="requests at once (%(default)s)")
    parser.add_argument("--ssl", action="store_true", help="encrypt the connection")
    parser.add_argument("--root-certificates", metavar="PEM", help="certificates to trust; implies --ssl")
    parser.add_argument("--client-certificate", metavar="PEM", help="certificate of this client; implies --ssl")
    parser.add_argument("--client-key", metavar="PEM", help="its private key")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token that the server wants")


def _generate(command: argparse.ArgumentParser) -> None:
    _add_source(command)
    command.add_argument(
        "--seed",
        type=_seeds,
        nargs="+",
        metavar="SEED",
        help="one image per seed; 0-3 is four of them (default: random)",
    )
    _add_folder(command, "the pictures")
    command.add_argument("--with-64", action="store_true", help="write the 64 px images as well")
    _add_options(command)


def _stream(command: argparse.ArgumentParser) -> None:
    _add_source(command)
    command.add_argument("--seed", type=_seed, help="one seed (default: random)")
    _add_folder(command, "previews and pictures")
    command.add_argument(
        "--preview-every", type=int, default=1, metavar="N", help="steps between previews; 0 for none (%(default)s)"
    )
    _add_options(command)


def _blend(command: argparse.ArgumentParser) -> None:
    command.add_argument("first", metavar="PHOTO", help="JPEG, PNG or WebP file of the first person")
    command.add_argument("second", metavar="PHOTO", help="of the second person")
    command.add_argument(
        "--share", type=float, nargs="+", default=[0.5], metavar="X", help="share of the second person (%(default)s)"
    )
    command.add_argument("--seed", type=_seed, help="of all pictures (default: random)")
    _add_folder(command, "the pictures")
    _add_face(command)
    _add_options(command)


def _embed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--photo", required=True, help="JPEG, PNG or WebP file")
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="file for it, which only you may read: .npz, which names its FR model, or .npy",
    )
    _add_overwrite(command)
    _add_face(command)


def _replay(command: argparse.ArgumentParser) -> None:
    command.add_argument("receipt", type=Path, help="PNG that carries a receipt, or a receipt as JSON")
    _add_source(command)
    command.add_argument("--out", type=Path, required=True, metavar="PNG", help="file for the picture")
    _add_overwrite(command)


def _bench(command: argparse.ArgumentParser) -> None:
    _add_source(command)
    command.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests in flight (%(default)s)")
    length = command.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float, metavar="S", help="start no new requests after S seconds")
    length.add_argument("--images", type=int, metavar="K", help="ask for K images")
    command.add_argument("--seed", type=_seed, default=0, help="first seed; they count up (%(default)s)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_options(command)


def _nothing(command: argparse.ArgumentParser) -> None:
    """Has no arguments."""


_COMMANDS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = MappingProxyType(
    {
        "generate": ("photograph or ID vectors, and seeds, to faces", _generate),
        "stream": ("one face, with previews on the way", _stream),
        "blend": ("faces between the people of two photographs", _blend),
        "embed": ("photograph to ID vector", _embed),
        "replay": ("the image of a receipt again, or what is different now", _replay),
        "bench": ("images per second and latency with a number of requests in flight", _bench),
        "ping": ("is the server working?", _nothing),
        "describe": ("what the server serves: bundle, sizes, presets, defaults, attributes", _nothing),
    }
)
"""Command -> help, and what adds its arguments."""


class _Parser(argparse.ArgumentParser):
    """Answers an unknown option with the one that was probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse` does it."""
        known = {name for action in self._actions for name in action.option_strings}
        for word in (sys.argv[1:] if args is None else args) if known else ():
            name = str(word).partition("=")[0]
            if name.startswith("--") and name[2:].replace("-", "_") in OTHER_NAMES and name not in known:
                if "--seed" in known:  # a command that has options of its own
                    self.error(f"{name}: did you mean --{OTHER_NAMES[name[2:].replace('-', '_')].replace('_', '-')}?")
        return super().parse_known_args(args, namespace)


def _seeds(text: str) -> list[int]:
    try:
        return parse_seeds(text)
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seed(text: str) -> int:
    seeds = _seeds(text)
    if len(seeds) != 1:
        raise argparse.ArgumentTypeError(f"seed {text}: {len(seeds)} seeds, where one is needed")
    return seeds[0]


def _add_folder(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"folder for {what}")
    _add_overwrite(command)


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace files that exist; refused without this")


def _add_source(command: argparse.ArgumentParser) -> None:
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--photo", help="JPEG, PNG or WebP file")
    source.add_argument("--embedding", metavar="FILE", help="ID vectors [D] or [N, D], as `embed` writes them")
    _add_face(command)


def _add_face(command: argparse.ArgumentParser) -> None:
    command.add_argument("--face", default="largest", help="largest, or only: refuse several faces (%(default)s)")


def _add_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("sampling; what is left out takes the server's default")
    for name, option in OPTIONS.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=_PARSERS[option.datatype],
            nargs="+" if name == "attributes" else None,
            metavar="X",
            help=option.help,
        )
