"""What the arguments of `id3pm-client` stand for: settings of a client, sampling options, vectors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from id3pm_client._connection import DEFAULT_URL
from id3pm_client._contract import OPTIONS
from id3pm_client._errors import InvalidRequestError
from id3pm_client._types import Array
from id3pm_client._vectors import load_vectors


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
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


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Sampling options by name; `None` where one was not given."""
    return {name: getattr(args, name) for name in OPTIONS}


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{path}: not a token, which is printable ASCII text") from None


def read_vectors(args: argparse.Namespace) -> tuple[Array, dict[str, Any]]:
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


def only(vectors: Array) -> Array:
    """The only vector of a file, `[D]` or `[1, D]`."""
    return vectors[0] if vectors.ndim == 2 and len(vectors) == 1 else vectors
