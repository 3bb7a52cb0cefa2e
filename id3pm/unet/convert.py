"""`id3pm convert`: two guided-diffusion checkpoints become one bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import click
import numpy as np
import numpy.typing as npt

from id3pm.attributes import parse_set
from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_SR_256,
    PAPER_SR_DIFFUSION,
    PAPER_SR_SAMPLING,
    DiffusionConfig,
    SamplingOptions,
    UNetConfig,
    from_json,
)
from id3pm.errors import CheckpointError, ConfigError
from id3pm.formats.bundle import ATTRIBUTE_DIMS, CONFIG_FILE, Bundle, Storage, write_bundle
from id3pm.formats.model_card import to_fill_in, write_card
from id3pm.unet.checkpoint import check_keys, read_checkpoint


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What `--base-config` and `--sr-config` name: JSON of this form.

    Attributes:
        unet: The architecture.
        diffusion: The noising process it was trained with.
        sampling: Default sampling options of the stage.
    """

    unet: UNetConfig
    diffusion: DiffusionConfig
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


PRESETS: Mapping[str, StageConfig] = MappingProxyType(
    {
        "paper-base-64": StageConfig(unet=PAPER_BASE_64, diffusion=PAPER_BASE_DIFFUSION),
        "paper-sr-256": StageConfig(unet=PAPER_SR_256, diffusion=PAPER_SR_DIFFUSION, sampling=PAPER_SR_SAMPLING),
    }
)

_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("convert")
@click.option("--base", "base_file", type=_EXISTING_FILE, required=True, help="Checkpoint of the 64 px stage (.pt).")
@click.option("--sr", "sr_file", type=_EXISTING_FILE, required=True, help="Checkpoint of super-resolution (.pt).")
@click.option("--base-preset", type=click.Choice(list(PRESETS)), help="Architecture of --base [paper-base-64].")
@click.option("--base-config", type=_EXISTING_FILE, help="JSON with unet, diffusion, sampling, instead of a preset.")
@click.option("--sr-preset", type=click.Choice(list(PRESETS)), help="Architecture of --sr [paper-sr-256].")
@click.option("--sr-config", type=_EXISTING_FILE, help="The same as --base-config, for --sr.")
@click.option("--identity-dim", type=click.IntRange(min=1), help="Length of the ID vector [as the architecture says].")
@click.option("--id-vector-model", required=True, help="Face recognition model of the ID vectors, e.g. sface.")
@click.option("--attribute-set", type=click.Choice([str(key) for key in ATTRIBUTE_DIMS]), help="See id3pm.attributes.")
@click.option("--name", help="Name of the bundle [as the folder in --out].")
@click.option("--licence", required=True, help="Licence of the weights.")
@click.option("--storage", type=click.Choice(["fp16", "fp32"]), default="fp32", show_default=True)
@click.option("--rename", "renames", multiple=True, metavar="OLD=NEW", help="Key prefix in --base to rename; repeats.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--force", is_flag=True, help="Replace the bundle that is in --out.")
def convert_command(
    base_file: Path,
    sr_file: Path,
    base_preset: str | None,
    base_config: Path | None,
    sr_preset: str | None,
    sr_config: Path | None,
    identity_dim: int | None,
    id_vector_model: str,
    attribute_set: str | None,
    name: str | None,
    licence: str,
    storage: Storage,
    renames: tuple[str, ...],
    out: Path,
    force: bool,
) -> None:
    """Turn two guided-diffusion checkpoints (raw or EMA) into a bundle.

    Missing, unknown and mis-shaped keys are listed and refused, so a bundle that was written fits its architecture.
    """
    if (out / CONFIG_FILE).exists() and not force:
        raise click.UsageError(f"{out} already holds a bundle; --force replaces it")
    rename = _parse_renames(renames)
    base = _stage("base", base_preset, base_config, "paper-base-64")
    sr = _stage("sr", sr_preset, sr_config, "paper-sr-256")
    base = _conditioned(base, identity_dim, attribute_set)
    if base.unet.identity_dim is None:
        raise ConfigError("the base architecture has no identity_dim: give --identity-dim")
    bundle = Bundle(
        name=name or out.resolve().name,
        id_vector_model=id_vector_model,
        identity_dim=base.unet.identity_dim,
        attribute_set=None if attribute_set is None else parse_set(attribute_set),
        base=base.unet,
        base_diffusion=base.diffusion,
        sr=sr.unet,
        sr_diffusion=sr.diffusion,
        sampling=base.sampling,
        sr_sampling=sr.sampling,
        licence=licence,
        training_card={"converted_from": {"base": base_file.name, "sr": sr_file.name}},
    )
    base_tensors = _checked(base_file, bundle.base, rename)
    sr_tensors = _checked(sr_file, bundle.sr, {})
    click.echo(f"writing {storage} weights ...")
    write_bundle(out, bundle, base_tensors, sr_tensors, storage=storage)
    card = write_card(out)
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    click.echo(f"wrote bundle {bundle.name!r} to {out} ({size / 1e6:.1f} MB)")
    click.echo(f"{card.name}: {to_fill_in(out)} paragraphs are for you to fill in")


def _parse_renames(renames: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in renames]
    for text, (old, equals, new) in zip(renames, pairs, strict=True):
        if not (old and equals and new):
            raise click.BadParameter(f"{text!r}: expected OLD=NEW, e.g. id_embed.=identity_embed.", param_hint="rename")
    return {old: new for old, _, new in pairs}


def _stage(stage: str, preset: str | None, config_file: Path | None, default: str) -> StageConfig:
    if config_file is None:
        return PRESETS[preset or default]
    if preset is not None:
        raise ConfigError(f"--{stage}-preset and --{stage}-config exclude each other: give one")
    try:
        return from_json(StageConfig, json.loads(config_file.read_text(encoding="utf-8")))
    except ValueError as error:  # not UTF-8, not JSON, or a ConfigError
        raise ConfigError(f"{config_file.name}: {error}") from error


def _conditioned(base: StageConfig, identity_dim: int | None, attribute_set: str | None) -> StageConfig:
    """The base stage with the conditions that the command line names, in place of the configuration's own."""
    unet = base.unet
    if identity_dim is not None:
        unet = replace(unet, identity_dim=identity_dim)
    if attribute_set is not None:
        unet = replace(unet, attribute_dim=ATTRIBUTE_DIMS[parse_set(attribute_set)])
    return replace(base, unet=unet)


def _checked(file: Path, config: UNetConfig, rename: Mapping[str, str]) -> dict[str, npt.NDArray[np.float32]]:
    click.echo(f"reading {file.name} ...")
    tensors = read_checkpoint(file, rename)
    try:
        check_keys(config, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from error
    parameters = sum(tensor.size for tensor in tensors.values())
    click.echo(f"  {len(tensors)} tensors, {parameters / 1e6:.1f} M parameters: all names and shapes fit")
    return tensors
