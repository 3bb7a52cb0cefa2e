"""Checks of a model repository before a server starts, for what would otherwise fail silently or late."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from id3pm.engines.manifest import BUILD_HINT, Manifest, engine_file, read_manifest
from id3pm.errors import EngineError, ServerError
from id3pm.face.manifest import read_manifest as read_face_manifest
from id3pm.serving.protocol.served_models import FACE_MODEL, STAGE_MODELS

_BUILD = re.compile(r"id3pm build(?:-faces)?(?![\w-])")


def with_repository(message: str, repository: Path) -> str:
    """A message whose build commands build into this repository, not into the one that they take by default."""
    if repository.resolve() == Path("triton_repo").resolve():
        return message
    option = f" --repository {shlex.quote(str(repository))}"
    return _BUILD.sub(lambda command: command[0] + option, message)


def check_engines(repository: Path) -> dict[str, Manifest]:
    """The manifests of both stages' engines, by stage.

    Raises:
        ServerError: This is not a model repository of id3pm.
        EngineMissingError: An engine has not been built.
        EngineError: An engine is damaged, or the engines are not from one bundle.
    """
    try:
        return _check_engines(repository)
    except EngineError as error:
        raise type(error)(with_repository(str(error), repository)) from error


def _check_engines(repository: Path) -> dict[str, Manifest]:
    manifests: dict[str, Manifest] = {}
    for stage, model in STAGE_MODELS.items():
        if not (repository / model / "config.pbtxt").is_file():
            raise ServerError(
                f"{repository} has no {model}/config.pbtxt: it is no model repository. Name one with "
                f"--repository, or build one; {BUILD_HINT}"
            )
        folder = repository / model / "1" / "engine"
        try:
            manifests[stage] = read_manifest(folder)
            engine_file(folder, manifests[stage])  # its hash is compared by the model, which reads the file anyway
        except EngineError as error:
            raise type(error)(f"{model}: {error}") from error
        if manifests[stage].stage != stage:
            raise EngineError(f"{model} holds an engine of stage {manifests[stage].stage}, not {stage}; {BUILD_HINT}")
    base, sr = manifests["base"].bundle, manifests["sr"].bundle
    if base.bundle_json_sha256 != sr.bundle_json_sha256:
        raise EngineError(
            f"denoiser_64 (bundle {base.name}) and super_resolution (bundle {sr.name}) are of different bundles; "
            f"{BUILD_HINT}"
        )
    face = read_face_manifest(repository / FACE_MODEL / "1" / "engine")
    wanted = manifests["base"].id_vector_model
    if face.id_vector_model != wanted:
        raise EngineError(
            f"{FACE_MODEL} gives {face.id_vector_model} ID vectors, the bundle takes {wanted}; {BUILD_HINT}"
        )
    if manifests["base"].l2_normalised and not face.preprocessing.l2_normalise:
        raise EngineError(
            f"{FACE_MODEL} gives ID vectors of any norm (l2_normalise: false), the bundle takes those of norm 1; "
            "build the face models with l2_normalise: true"
        )
    return manifests


def controlled(repository: Path) -> tuple[str, ...]:
    """The models that answer pings, in the order of the work.

    The face stage of a repository that was copied from an older version does not: such a repository is served, and its
    face stage is supervised by its process and the probe alone.
    """
    takes = 'name: "control"' in (repository / FACE_MODEL / "config.pbtxt").read_text(encoding="utf-8")
    return ((FACE_MODEL,) if takes else ()) + tuple(STAGE_MODELS.values())
