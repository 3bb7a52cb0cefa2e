"""The command `id3pm-client`: paths of pictures and results on stdout, progress and errors on stderr."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from id3pm_client._aio import AsyncClient
from id3pm_client._arguments import as_count, as_timeout, broadcast_length
from id3pm_client._bar import Bar
from id3pm_client._bench import Result
from id3pm_client._bench import bench as run_bench
from id3pm_client._cli_files import check_free, make_folder, os_error_text, write
from id3pm_client._cli_inputs import only, options_of, read_vectors, settings_of
from id3pm_client._cli_output import face_of, show, tell, tell_of_others, waiting
from id3pm_client._cli_parser import make_parser
from id3pm_client._errors import (
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    ReplayError,
    UnavailableError,
)
from id3pm_client._images import Embedding, GeneratedImage, png_of
from id3pm_client._seeds import random_seed
from id3pm_client._stream import Event, Image64, Progress
from id3pm_client._sync import Client
from id3pm_client._types import Array
from id3pm_client._vectors import load_vectors, save_vectors
from id3pm_client.latent import slerp

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: Command line without the program's name; `None` for the process's own.
    """
    args = _parser().parse_args(arguments)
    logging.getLogger("id3pm_client").addHandler(logging.NullHandler())  # the progress line says it
    try:
        code = args.command(args)
    except KeyboardInterrupt:
        tell("interrupted: the server was told to stop")
        return INTERRUPTED
    except ClientError as error:
        tell(f"id3pm-client: {error}")
        return _exit_code(error)
    except BrokenPipeError:  # the reader of stdout has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        tell(f"id3pm-client: {os_error_text(error)}")
        return _exit_code(error)
    return int(code or 0)


def generate(args: argparse.Namespace) -> None:
    """Writes one PNG per image to a folder, each as soon as it arrives."""
    vectors: Array | None = None
    known: dict[str, Any] = {}
    if args.photo is None:
        vectors, known = read_vectors(args)
    count = 1 if vectors is None or vectors.ndim == 1 else len(vectors)
    seeds = _generate_seeds(args.seed, count)
    paths = [args.out / f"{position:03d}_seed-{seed}.png" for position, seed in enumerate(seeds)]
    small = [path.with_stem(f"{path.stem}_64") for path in paths] if args.with_64 else []
    check_free([*paths, *small], args.overwrite)
    bar = Bar(len(seeds), "images")

    def on_image(position: int, image: GeneratedImage) -> None:
        write(paths[position], image.png(), args.overwrite)
        if small and image.image_64 is not None:
            write(small[position], png_of(image.image_64, image.receipt), args.overwrite)
        show(paths[position], bar)

    how: dict[str, Any] = {"with_64": args.with_64, "on_image": on_image, "progress": bar, **options_of(args)}
    with Client(**settings_of(args)) as client:
        make_folder(args.out)
        if vectors is not None:
            client.generate(vectors, seeds, **{**how, **known})
            return
        on_face = functools.partial(tell_of_others, args.photo, bar=bar)
        with client._with_progress([], bar):
            client.generate_from_photo(args.photo, seeds, face=args.face, on_face=on_face, **how)


def _generate_seeds(given: Sequence[Sequence[int]] | None, vectors: int) -> list[int]:
    """One seed for each image: those of `--seed`, or random ones, which are printed."""
    if given is None:
        seeds = [random_seed() for _ in range(vectors)]
        tell(f"random seed{'s' * (len(seeds) > 1)}: {' '.join(map(str, seeds))}")
        return seeds
    seeds = [seed for several in given for seed in several]
    count = broadcast_length({"--embedding": vectors, "--seed": len(seeds)})
    return seeds * count if len(seeds) == 1 else seeds


def _one_seed(given: int | None) -> int:
    if given is None:
        given = random_seed()
        tell(f"random seed: {given}")
    return given


def blend(args: argparse.Namespace) -> None:
    """Writes one PNG for each share of the second person to a folder."""
    paths = [args.out / f"{position:03d}_share-{share:g}.png" for position, share in enumerate(args.share)]
    check_free(paths, args.overwrite)
    seed = _one_seed(args.seed)
    bar = Bar(len(paths), "images")

    def on_image(position: int, image: GeneratedImage) -> None:
        write(paths[position], image.png(), args.overwrite)
        show(paths[position], bar)

    with Client(**settings_of(args)) as client:
        first, second = (face_of(client, photo, args.face) for photo in (args.first, args.second))
        vectors = slerp(first, second, args.share)
        make_folder(args.out)
        options = {**options_of(args), "id_vector_model": args.id_vector_model or first.id_vector_model}
        how: dict[str, Any] = {"on_image": on_image, "progress": bar, **options}
        client.generate(vectors, [seed] * len(paths), **how)


def stream(args: argparse.Namespace) -> None:
    """Writes previews, the 64 px image and the image to a folder, each as soon as it is there."""
    seed = _one_seed(args.seed)
    check_free([args.out / f"seed-{seed}.png", *args.out.glob(f"seed-{seed}_*.png")], args.overwrite)
    how: dict[str, Any] = {"preview_every": args.preview_every, **options_of(args)}
    bar = Bar(1, "steps")
    with Client(**settings_of(args)) as client:
        make_folder(args.out)
        if args.photo is not None:
            events = client.stream(face_of(client, args.photo, args.face), seed, **how)
        else:
            vectors, known = read_vectors(args)
            events = client.stream(only(vectors), seed, **{**how, **known})
        with contextlib.closing(events), client._with_progress([], bar):
            for name, image in _pictures(events, bar):
                path = args.out / f"seed-{seed}{name}.png"
                write(path, image.png() if isinstance(image, GeneratedImage) else png_of(image), args.overwrite)
                show(path, bar)


def _pictures(events: Iterator[Event], bar: Bar) -> Iterator[tuple[str, Image.Image | GeneratedImage]]:
    """The images to write, with the end of their names; shows a progress bar."""
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
    check_free([args.out], args.overwrite)
    with Client(**settings_of(args)) as client:
        found = face_of(client, args.photo, args.face)
    save_vectors(args.out, found.vector, found.id_vector_model)
    show(args.out)
    tell(f"{found.faces} face(s), detection score {found.score:.2f}, vector of {found.vector.size}")


def replay(args: argparse.Namespace) -> None:
    """Writes the image of a receipt, made again."""
    if args.out.suffix.lower() != ".png":  # check now, not after the work
        raise InvalidRequestError(f"--out {args.out}: must end in .png, which carries the receipt")
    check_free([args.out], args.overwrite)
    vector: Array | Embedding | None = None if args.embedding is None else only(load_vectors(args.embedding)[0])
    with Client(**settings_of(args)) as client:
        if vector is None:
            vector = face_of(client, args.photo, args.face)
        image = waiting(client, "making the image again", lambda: client.replay(args.receipt, vector))
    write(args.out, image.png(), args.overwrite)
    show(args.out)
    tell(f"the identical image, {image.seconds:.2f} s")


def bench(args: argparse.Namespace) -> int:
    """Prints images per second, latency and errors."""
    concurrency = as_count("concurrency", args.concurrency, 1)
    images = None if args.images is None else as_count("images", args.images, 1)
    seconds = None if args.seconds is None else as_timeout("seconds", args.seconds)

    async def run() -> Result:
        async with AsyncClient(**{**settings_of(args), "max_in_flight": concurrency}) as client:
            known: dict[str, Any] = {}
            if args.photo is not None:
                found = await client.embed(args.photo, face=args.face)
                tell_of_others(args.photo, found)
                vectors: Array = found.vector
            else:
                vectors, known = read_vectors(args)
            return await run_bench(
                client,
                np.atleast_2d(vectors),
                concurrency=concurrency,
                images=images,
                seconds=seconds,
                first_seed=args.seed,
                options={**options_of(args), **known},
            )

    result = asyncio.run(run())
    show(json.dumps(dataclasses.asdict(result), indent=2) if args.json else result.text())
    return 1 if result.errors else 0


def ping(args: argparse.Namespace) -> None:
    """Prints the status of the stages' schedulers as JSON; by server if there are several."""
    answers = {}
    with Client(**settings_of(args)) as client:
        for url in waiting(client, "looking for servers", client.discover):
            started = time.monotonic()
            answers[url] = waiting(client, f"asking {url}", functools.partial(client.ping, url))
            tell(f"{url}: ok, {(time.monotonic() - started) * 1e3:.0f} ms")
    show(json.dumps(answers if len(answers) > 1 else next(iter(answers.values())), indent=2))


def describe(args: argparse.Namespace) -> None:
    """Prints bundle, sizes, presets and options of the server as JSON."""
    with Client(**settings_of(args)) as client:
        show(json.dumps(waiting(client, f"asking {client.urls[0]}", client.describe), indent=2))


def _parser() -> argparse.ArgumentParser:
    commands = (generate, stream, blend, embed, replay, bench, ping, describe)
    return make_parser({command.__name__: command for command in commands})


def _exit_code(error: Exception) -> int:
    if isinstance(error, UnavailableError):
        return 3
    if isinstance(error, DeadlineExceededError):
        return 4
    if isinstance(error, ReplayError):
        return 5
    # The remaining OSErrors are files that the user named.
    return 2 if isinstance(error, (InvalidRequestError, OSError)) else 1


if __name__ == "__main__":
    sys.exit(main())
