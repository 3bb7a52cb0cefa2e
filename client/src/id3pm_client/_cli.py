"""The command `id3pm-client`: paths of pictures and results on stdout, progress and errors on stderr."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from id3pm_client._aio import AsyncClient
from id3pm_client._arguments import as_count, as_timeout
from id3pm_client._bar import Bar
from id3pm_client._bench import Result
from id3pm_client._bench import bench as run_bench
from id3pm_client._cli_parser import make_parser
from id3pm_client._connection import DEFAULT_URL
from id3pm_client._contract import OPTIONS
from id3pm_client._errors import (
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    ReplayError,
    UnavailableError,
)
from id3pm_client._images import GeneratedImage, png_of
from id3pm_client._stream import Event, Image64, Progress
from id3pm_client._sync import Client
from id3pm_client._vectors import load_vectors, save_vectors
from id3pm_client.latent import slerp

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: Command line without the program's name; `None` for the process's own.
    """
    args = _parser().parse_args(arguments)
    try:
        code = args.command(args)
    except KeyboardInterrupt:
        _tell("interrupted: the server was told to stop")
        return INTERRUPTED
    except (ClientError, OSError) as error:
        _tell(f"id3pm-client: {error}")
        return _exit_code(error)
    return int(code or 0)


def generate(args: argparse.Namespace) -> None:
    """Writes one PNG per image to a folder, each as soon as it arrives."""
    seeds = args.seed[0] if len(args.seed) == 1 else args.seed
    arrived = 0

    def on_image(position: int, image: GeneratedImage) -> None:
        nonlocal arrived
        arrived += 1
        path = args.out / f"{position:03d}_seed-{image.seed}.png"
        image.save(path)
        if image.image_64 is not None:
            path.with_stem(f"{path.stem}_64").write_bytes(png_of(image.image_64, image.receipt))
        _print(path)
        _tell(f"{arrived}: image {position}, seed {image.seed}, {image.seconds:.2f} s")

    how: dict[str, Any] = {"with_64": args.with_64, "on_image": on_image, **_options(args)}
    with Client(**_settings(args)) as client:
        args.out.mkdir(parents=True, exist_ok=True)
        if args.photo is not None:
            client.generate_from_photo(args.photo, seeds, face=args.face, **how)
        else:
            vectors, known = _read_vectors(args)
            client.generate(vectors, seeds, **{**how, **known})


def blend(args: argparse.Namespace) -> None:
    """Writes one PNG for each share of the second person to a folder."""
    with Client(**_settings(args)) as client:
        first, second = (client.embed(photo, face=args.face) for photo in (args.first, args.second))
        vectors = slerp(first, second, args.share)
        args.out.mkdir(parents=True, exist_ok=True)
        options = {**_options(args), "id_vector_model": args.id_vector_model or first.id_vector_model}
        for position, image in enumerate(client.generate(vectors, args.seed, **options)):
            path = args.out / f"{position:03d}_share-{args.share[position]:g}.png"
            image.save(path)
            _print(path)


def stream(args: argparse.Namespace) -> None:
    """Writes previews, the 64 px image and the image to a folder, each as soon as it is there."""
    how: dict[str, Any] = {"preview_every": args.preview_every, **_options(args)}
    with Client(**_settings(args)) as client:
        args.out.mkdir(parents=True, exist_ok=True)
        if args.photo is not None:
            events = client.stream_from_photo(args.photo, args.seed, face=args.face, **how)
        else:
            vectors, known = _read_vectors(args)
            events = client.stream(_only(vectors), args.seed, **{**how, **known})
        with contextlib.closing(events):
            for name, image in _pictures(events):
                path = args.out / f"seed-{args.seed}{name}.png"
                if isinstance(image, GeneratedImage):
                    image.save(path)
                else:
                    path.write_bytes(png_of(image))
                _print(path)


def _pictures(events: Iterator[Event]) -> Iterator[tuple[str, Image.Image | GeneratedImage]]:
    """What is worth a file, with the end of its name; shows a bar meanwhile."""
    bar = Bar(1, "steps")
    try:
        for event in events:
            if isinstance(event, Progress):
                bar.update(event.step, event.steps, f"steps of {event.stage}")
                if event.preview is not None:
                    yield f"_{event.stage}_{event.step:04d}", event.preview
            elif isinstance(event, Image64):
                yield "_64", event.image
            else:
                yield "", event
    finally:
        bar.close()


def embed(args: argparse.Namespace) -> None:
    """Writes the ID vector of a photograph as .npy, or as .npz with the name of its FR model."""
    with Client(**_settings(args)) as client:
        found = client.embed(args.photo, face=args.face)
    save_vectors(args.out, found.vector, found.id_vector_model)
    _print(args.out)
    _tell(f"{found.faces} face(s), detection score {found.score:.2f}, vector of {found.vector.size}")


def replay(args: argparse.Namespace) -> None:
    """Writes the image of a receipt, made again."""
    if args.out.suffix.lower() != ".png":  # now, not after the work
        raise InvalidRequestError(f"--out {args.out}: must end in .png, which carries the receipt")
    vector = None if args.embedding is None else _only(load_vectors(args.embedding)[0])
    with Client(**_settings(args)) as client:
        image = client.replay(args.receipt, vector, photo=args.photo, face=args.face)
    image.save(args.out)
    _print(args.out)
    _tell(f"the identical image, {image.seconds:.2f} s")


def bench(args: argparse.Namespace) -> int:
    """Prints images per second, latency and errors."""
    concurrency = as_count("concurrency", args.concurrency, 1)
    images = None if args.images is None else as_count("images", args.images, 1)
    seconds = None if args.seconds is None else as_timeout("seconds", args.seconds)

    async def run() -> Result:
        async with AsyncClient(**{**_settings(args), "max_in_flight": concurrency}) as client:
            known: dict[str, Any] = {}
            if args.photo is not None:
                vectors = (await client.embed(args.photo, face=args.face)).vector
            else:
                vectors, known = _read_vectors(args)
            return await run_bench(
                client,
                np.atleast_2d(vectors),
                concurrency=concurrency,
                images=images,
                seconds=seconds,
                first_seed=args.seed,
                options={**_options(args), **known},
            )

    result = asyncio.run(run())
    _print(json.dumps(dataclasses.asdict(result), indent=2) if args.json else result.text())
    return 1 if result.errors else 0


def ping(args: argparse.Namespace) -> None:
    """Prints what the stages' schedulers say about themselves, as JSON; by server where there are several."""
    with Client(**_settings(args)) as client:
        answers = {url: client.ping(url) for url in client.urls}
    _print(json.dumps(answers if len(answers) > 1 else next(iter(answers.values())), indent=2))


def describe(args: argparse.Namespace) -> None:
    """Prints which bundle the server has and which attributes it takes, as JSON."""
    with Client(**_settings(args)) as client:
        _print(json.dumps(client.describe(), indent=2))


def _parser() -> argparse.ArgumentParser:
    commands = (generate, stream, blend, embed, replay, bench, ping, describe)
    return make_parser({command.__name__: command for command in commands})


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of a client."""
    token = None if args.token_file is None else _read_token(args.token_file)
    return {
        "url": args.url or DEFAULT_URL,
        "timeout_s": args.timeout,
        "max_in_flight": args.max_in_flight,
        "ssl": args.ssl or args.root_certificates is not None or args.client_certificate is not None,
        "root_certificates": args.root_certificates,
        "client_certificate": args.client_certificate,
        "client_key": args.client_key,
        "token": token,
    }


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in OPTIONS}


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{path}: not a token, which is printable ASCII text") from None


def _read_vectors(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The vectors of `--embedding`, and as an option the FR model that the file names, if it does.

    Raises:
        InvalidRequestError: It is no file of vectors, or `--id-vector-model` names another model.
        OSError: It cannot be read.
    """
    vectors, model = load_vectors(args.embedding)
    if model is None:
        return vectors, {}
    if args.id_vector_model not in (None, model):
        raise InvalidRequestError(f"--id-vector-model {args.id_vector_model}: {args.embedding} has vectors of {model}")
    return vectors, {"id_vector_model": model}


def _only(vectors: Any) -> Any:
    """The only vector of a file, `[D]` or `[1, D]`."""
    return vectors[0] if vectors.ndim == 2 and len(vectors) == 1 else vectors


def _exit_code(error: Exception) -> int:
    if isinstance(error, UnavailableError):
        return 3
    if isinstance(error, DeadlineExceededError):
        return 4
    if isinstance(error, ReplayError):
        return 5
    # The remaining OSErrors are files that the user named.
    return 2 if isinstance(error, (InvalidRequestError, OSError)) else 1


def _print(result: object) -> None:
    sys.stdout.write(f"{result}\n")
    sys.stdout.flush()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
