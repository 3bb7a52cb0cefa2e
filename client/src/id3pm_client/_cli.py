"""The command `id3pm-client`: paths of pictures on stdout, progress and errors on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from id3pm_client._connection import DEFAULT_URL
from id3pm_client._contract import OPTIONS
from id3pm_client._errors import ClientError, DeadlineExceededError, InvalidRequestError, UnavailableError
from id3pm_client._images import GeneratedImage
from id3pm_client._sync import Client
from id3pm_client._version import __version__

INTERRUPTED = 130
EPILOG = "exit codes: 0 done, 1 other failure, 2 bad input, 3 server unavailable, 4 time limit passed, 130 interrupted"
_PARSERS: Mapping[str, type[Any]] = MappingProxyType({"BYTES": str, "INT32": int, "FP32": float})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: Command line without the program's name; `None` for the process's own.
    """
    args = _parser().parse_args(arguments)
    try:
        with _client(args) as client:
            args.command(client, args)
    except KeyboardInterrupt:
        _tell("interrupted: the server was told to stop")
        return INTERRUPTED
    except (ClientError, OSError) as error:
        _tell(f"id3pm-client: {error}")
        return _exit_code(error)
    return 0


def generate(client: Client, args: argparse.Namespace) -> None:
    """Writes one PNG per image to a folder, each as soon as it arrives."""
    args.out.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {name: getattr(args, name) for name in OPTIONS}
    seeds = args.seed[0] if len(args.seed) == 1 else args.seed
    arrived = 0

    def on_image(position: int, image: GeneratedImage) -> None:
        nonlocal arrived
        arrived += 1
        path = args.out / f"{position:03d}_seed-{image.seed}.png"
        image.save(path)
        if image.image_64 is not None:
            image.image_64.save(path.with_stem(f"{path.stem}_64"))
        sys.stdout.write(f"{path}\n")
        sys.stdout.flush()
        _tell(f"{arrived}: image {position}, seed {image.seed}, {image.seconds:.2f} s")

    if args.photo is not None:
        client.generate_from_photo(
            args.photo, seeds, face=args.face, with_64=args.with_64, on_image=on_image, **options
        )
    else:
        client.generate(_read_vectors(args.embedding), seeds, with_64=args.with_64, on_image=on_image, **options)


def embed(client: Client, args: argparse.Namespace) -> None:
    """Writes the ID vector of a photograph as .npy."""
    found = client.embed(args.photo, face=args.face)
    with args.out.open("wb") as file:  # np.save would add an extension of its own to a path
        np.save(file, found.vector)
    sys.stdout.write(f"{args.out}\n")
    _tell(f"{found.faces} face(s), detection score {found.score:.2f}, vector of {found.vector.size}")


def ping(client: Client, args: argparse.Namespace) -> None:
    """Prints what the stages' schedulers say about themselves, as JSON."""
    sys.stdout.write(json.dumps(client.ping(), indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("id3pm-client", description="Client of an ID3PM server.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--url", default=DEFAULT_URL, help="host:port of the gRPC endpoint (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds per request (%(default)s)")
    parser.add_argument("--max-in-flight", type=int, default=16, metavar="N", help="requests at once (%(default)s)")
    parser.add_argument("--ssl", action="store_true", help="encrypt the connection")
    parser.add_argument("--root-certificates", metavar="PEM", help="certificates to trust; implies --ssl")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("generate", help="photograph or ID vectors, and seeds, to faces", epilog=EPILOG)
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--photo", help="JPEG or PNG file")
    source.add_argument("--embedding", metavar="NPY", help="ID vectors [D] or [N, D], as `embed` writes them")
    command.add_argument("--seed", type=int, nargs="+", required=True, help="one image per seed")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    command.add_argument("--with-64", action="store_true", help="write the 64 px images as well")
    _add_face(command)
    group = command.add_argument_group("sampling; what is left out takes the server's default")
    for name, option in OPTIONS.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=_PARSERS[option.datatype],
            nargs="+" if name == "attributes" else None,
            metavar="X",
            help=option.help,
        )
    command.set_defaults(command=generate)

    command = commands.add_parser("embed", help="photograph to ID vector", epilog=EPILOG)
    command.add_argument("--photo", required=True, help="JPEG or PNG file")
    command.add_argument("--out", type=Path, required=True, metavar="NPY", help="file for the vector")
    _add_face(command)
    command.set_defaults(command=embed)

    command = commands.add_parser("ping", help="is the server working?", epilog=EPILOG)
    command.set_defaults(command=ping)
    return parser


def _client(args: argparse.Namespace) -> Client:
    return Client(
        args.url,
        timeout_s=args.timeout,
        max_in_flight=args.max_in_flight,
        ssl=args.ssl or args.root_certificates is not None,
        root_certificates=args.root_certificates,
    )


def _add_face(command: argparse.ArgumentParser) -> None:
    command.add_argument("--face", default="largest", help="largest, or only: refuse several faces (%(default)s)")


def _read_vectors(path: str) -> Any:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidRequestError(f"{path}: not a .npy file: {error}") from None
    if isinstance(vectors, np.ndarray) and vectors.size == 0:
        raise InvalidRequestError(f"{path}: holds no vector, its shape is {vectors.shape}")
    return vectors


def _exit_code(error: Exception) -> int:
    if isinstance(error, UnavailableError):
        return 3
    if isinstance(error, DeadlineExceededError):
        return 4
    # The remaining OSErrors are files that the user named.
    return 2 if isinstance(error, (InvalidRequestError, OSError)) else 1


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
