"""A bundle: one folder that is one deployable model.

    bundle.json          description of the model (`Bundle`), and the sha256 of the two weight files
    base.safetensors     weights of the 64 px stage, by guided-diffusion's parameter names
    sr.safetensors       weights of the super-resolution stage
    latent/              optional: pca.npz and directions.npz of its ID vectors (`id3pm.idspace`)

Reading needs numpy and safetensors, not torch. Messages name files by their name in the folder, never by full path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from id3pm.attributes import ATTRIBUTE_SETS, AttributeSet
from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig, from_json, require_all, to_json
from id3pm.errors import BundleError, InvalidInputError
from id3pm.formats.arrays import read_arrays
from id3pm.formats.hashing import file_sha256
from id3pm.formats.weights import not_finite, read_weights

Stage = Literal["base", "sr"]
Latent = Literal["pca", "directions"]
Storage = Literal["fp16", "fp32"]
Tensors = Mapping[str, npt.NDArray[Any]]

SCHEMA_VERSION = 1
CONFIG_FILE = "bundle.json"
HASHES_KEY = "weights_sha256"
LATENT_FOLDER = "latent"
LATENT: tuple[Latent, ...] = ("pca", "directions")
STAGES: tuple[Stage, ...] = ("base", "sr")
ATTRIBUTE_DIMS = {number: len(fields) for number, fields in ATTRIBUTE_SETS.items()}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything about a model except its weights.

    Attributes:
        name: Short name, shown in receipts and status messages.
        id_vector_model: The face recognition model whose ID vectors the base network was trained on, e.g. `sface`.
        identity_dim: Length D of these vectors.
        attribute_set: The attribute set (`id3pm.attributes`): the paper's 1, 2 or 3, or the name of one of ours; `None`
            without attribute conditioning.
        base: The ID-conditioned network of the low-resolution stage.
        base_diffusion: Its noising process.
        sr: The super-resolution network.
        sr_diffusion: Its noising process.
        sampling: Default sampling options of the base stage.
        sr_sampling: Default sampling options of the super-resolution stage.
        licence: Licence of the weights, as an SPDX identifier or in words.
        training_card: Facts about data and training; free-form JSON.
        l2_normalised: Whether it was trained on ID vectors of L2 norm 1, which are the only ones then taken; false for
            vectors as the FR model's network gives them. `None`: as the face models beside the engines give them.
        schema_version: Version of this file format.

    Raises:
        ConfigError: The parts do not fit each other.
    """

    name: str
    id_vector_model: str
    identity_dim: int
    attribute_set: AttributeSet | None
    base: UNetConfig
    base_diffusion: DiffusionConfig
    sr: UNetConfig
    sr_diffusion: DiffusionConfig
    sampling: SamplingOptions
    sr_sampling: SamplingOptions
    licence: str
    training_card: dict[str, Any] = field(default_factory=dict)
    l2_normalised: bool | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        attribute_dim = None if self.attribute_set is None else ATTRIBUTE_DIMS.get(self.attribute_set)
        rules = {
            f"schema_version={self.schema_version}: this version of id3pm reads {SCHEMA_VERSION}": (
                self.schema_version == SCHEMA_VERSION
            ),
            "name, id_vector_model and licence must not be empty": all((self.name, self.id_vector_model, self.licence)),
            f"identity_dim={self.identity_dim}: must equal base.identity_dim={self.base.identity_dim}": (
                self.identity_dim == self.base.identity_dim
            ),
            f"attribute_set={self.attribute_set}: must be null or one of {', '.join(map(str, ATTRIBUTE_DIMS))}": (
                self.attribute_set is None or self.attribute_set in ATTRIBUTE_DIMS
            ),
            f"base.attribute_dim={self.base.attribute_dim}: attribute_set={self.attribute_set} needs {attribute_dim}": (
                self.base.attribute_dim == attribute_dim
            ),
            f"base.low_res_size={self.base.low_res_size}: must be null": self.base.low_res_size is None,
            f"sr.low_res_size={self.sr.low_res_size}: must equal base.image_size={self.base.image_size}": (
                self.sr.low_res_size == self.base.image_size
            ),
            f"base_diffusion.student_start={self.base_diffusion.student_start!r}: must be 'noise', there is no small "
            "image in the base stage": self.base_diffusion.student_start == "noise",
            "sr.identity_dim and sr.attribute_dim must be null: super-resolution is unconditional": (
                self.sr.identity_dim is None and self.sr.attribute_dim is None
            ),
        }
        for name, diffusion, sampling in (
            ("sampling", self.base_diffusion, self.sampling),
            ("sr_sampling", self.sr_diffusion, self.sr_sampling),
        ):
            taught = len(diffusion.student_timesteps or ())
            rules[
                f"{name}: sampler={sampling.sampler!r} with {sampling.steps} steps does not fit student_timesteps="
                f"{diffusion.student_timesteps}: students take sampler student with at most so many steps, others none"
            ] = sampling.steps <= taught if sampling.sampler == "student" else not taught
        require_all(rules)


BUNDLE_KEYS = frozenset({field.name for field in dataclasses.fields(Bundle)} | {HASHES_KEY})
"""The keys of bundle.json."""


def weights_file(stage: Stage) -> str:
    """Name of the weight file of a stage inside the bundle."""
    return f"{stage}.safetensors"


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The description of the bundle in a folder; reads no weights.

    Raises:
        BundleError: `bundle.json` is missing or damaged, has unknown keys or breaks a rule.
    """
    return _read(Path(path))[0]


def load_weights(path: str | os.PathLike[str], stage: Stage) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of one stage as float32 by parameter name, whatever they are stored in.

    Raises:
        BundleError: The file is missing, differs from what `bundle.json` recorded, holds NaN or infinity, or is stored
            in another number format than `id3pm.formats.weights.FORMATS`.
    """
    return read_weights(_verified_file(Path(path), stage))


def weights_hash(path: str | os.PathLike[str], stage: Stage) -> str:
    """sha256 (hex) of a stage's weight file on disk.

    Raises:
        BundleError: The file is missing.
    """
    return file_sha256(_existing(Path(path), weights_file(stage)))


def verify(path: str | os.PathLike[str]) -> Bundle:
    """Checks the whole bundle: description, weights (recorded hashes, finite numbers), the FR model of `latent/`.

    Raises:
        BundleError: Something is missing or damaged; the message says which file.
    """
    for stage in STAGES:
        load_weights(path, stage)
    for kind in LATENT:
        latent_file(path, kind)
    return read_bundle(path)


def latent_file(path: str | os.PathLike[str], kind: Latent) -> Path | None:
    """A bundle's principal axes or custom directions, or `None` if it has none.

    Args:
        path: The bundle's folder.
        kind: Which file.

    Raises:
        BundleError: The file is damaged, or made for ID vectors of another FR model.
    """
    file = Path(path) / LATENT_FOLDER / f"{kind}.npz"
    if not file.is_file():
        return None
    bundle = read_bundle(path)
    try:
        description, _ = read_arrays(file, kind)
    except InvalidInputError as error:
        raise BundleError(f"{LATENT_FOLDER}/{error}") from error
    found = description.get("id_vector_model"), description.get("identity_dim")
    if found != (bundle.id_vector_model, bundle.identity_dim):
        raise BundleError(
            f"{LATENT_FOLDER}/{file.name} is for {found[0]} vectors of {found[1]} numbers, the bundle takes "
            f"{bundle.id_vector_model} vectors of {bundle.identity_dim}: fit it anew with id3pm latent"
        )
    return file


def write_bundle(
    path: str | os.PathLike[str],
    bundle: Bundle,
    base_tensors: Tensors,
    sr_tensors: Tensors,
    *,
    storage: Storage = "fp32",
) -> None:
    """Writes a bundle; an old one is replaced only after all new files are complete.

    `bundle.json` is removed first and written last, so an interrupted write never looks like a bundle.

    Args:
        path: The folder; made if it does not exist.
        bundle: The description.
        base_tensors: Weights of the base stage by parameter name.
        sr_tensors: Weights of the super-resolution stage by parameter name.
        storage: `fp32`, or `fp16` to halve the size (vectors such as biases and norm scales stay float32).

    Raises:
        BundleError: A weight is not finite, or too large for float16.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    with _temporary_folder(folder) as new:
        hashes = {}
        for stage, tensors in zip(STAGES, (base_tensors, sr_tensors), strict=True):
            file = new / weights_file(stage)
            save_file({key: _stored(stage, key, tensor, storage) for key, tensor in tensors.items()}, file)
            hashes[stage] = file_sha256(file)
        _write_description(new, bundle, hashes)
        for stage in STAGES:  # safetensors makes files that only the owner can read; the other file follows the umask
            shutil.copymode(new / CONFIG_FILE, new / weights_file(stage))
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for name in (*map(weights_file, STAGES), CONFIG_FILE):
            os.replace(new / name, folder / name)


def replace_card(path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Gives a bundle another training card, whole or not at all; its weights are not touched.

    Args:
        path: The bundle's folder.
        card: JSON.

    Raises:
        BundleError: There is no readable bundle.
    """
    folder = Path(path)
    bundle, hashes = _read(folder)
    with _temporary_folder(folder) as new:
        _write_description(new, dataclasses.replace(bundle, training_card=card), hashes)
        os.replace(new / CONFIG_FILE, folder / CONFIG_FILE)


def _write_description(folder: Path, bundle: Bundle, hashes: Mapping[Stage, str]) -> None:
    text = json.dumps({**to_json(bundle), HASHES_KEY: hashes}, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder on the same file system, so that moving a file out of it is atomic."""
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        yield Path(name)


def _stored(stage: Stage, key: str, tensor: npt.NDArray[Any], storage: Storage) -> npt.NDArray[Any]:
    if problem := not_finite({key: tensor}):
        raise BundleError(f"{stage} weight {problem}")
    if storage == "fp32" or tensor.ndim < 2:
        return np.ascontiguousarray(tensor, dtype=np.float32)
    limit = float(np.finfo(np.float16).max)
    if np.abs(tensor).max(initial=0.0) > limit:
        raise BundleError(f"{stage} weight {key} exceeds {limit:g}, the largest float16: store the bundle as fp32")
    return np.ascontiguousarray(tensor, dtype=np.float16)


def _read(folder: Path) -> tuple[Bundle, dict[Stage, str]]:
    try:
        data = json.loads(_existing(folder, CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise BundleError(f"{CONFIG_FILE} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise BundleError(f"{CONFIG_FILE} holds a {type(data).__name__}: expected a JSON object")
    hashes = data.pop(HASHES_KEY, None)
    if not isinstance(hashes, dict) or set(hashes) != set(STAGES):
        raise BundleError(f"{CONFIG_FILE}: {HASHES_KEY} must name exactly {' and '.join(STAGES)}")
    try:
        return from_json(Bundle, data), hashes
    except ValueError as error:  # ConfigError or InvalidOptionError
        raise BundleError(f"{CONFIG_FILE}: {error}") from error


def _verified_file(folder: Path, stage: Stage) -> Path:
    file = _existing(folder, weights_file(stage))
    recorded = _read(folder)[1][stage]
    actual = file_sha256(file)
    if actual != recorded:
        raise BundleError(
            f"{file.name} is damaged or from another bundle: its sha256 is {actual}, {CONFIG_FILE} records {recorded}. "
            "Copy or convert the bundle again."
        )
    return file


def _existing(folder: Path, name: str) -> Path:
    file = folder / name
    if not file.is_file():
        raise BundleError(f"bundle {folder.name!r} has no {name}: give a folder made by `id3pm convert` or training")
    return file
