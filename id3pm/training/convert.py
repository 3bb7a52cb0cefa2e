"""`id3pm convert`: two guided-diffusion checkpoints become one bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import click
import numpy as np
import numpy.typing as npt

from id3pm.attributes import parse_set
from id3pm.command_options import EXISTING, EXISTING_FILE, FOLDER, option, takes
from id3pm.errors import CheckpointError, ConfigError, ImageError, InvalidInputError, MissingExtraError
from id3pm.face.models import require_id_vector_model
from id3pm.formats.bundle import ATTRIBUTE_DIMS, CONFIG_FILE, Bundle, Storage, write_bundle
from id3pm.formats.model_card import to_fill_in, write_card
from id3pm.formats.photo_decoding import decode_photo
from id3pm.training.architecture_proof import (
    ROUNDS,
    Verdict,
    compare_with_output,
    read_output,
    squares,
    trial_size,
    try_on_pictures,
)
from id3pm.training.candidates import Candidate, named
from id3pm.training.gan import FaceGenerator
from id3pm.training.sources import open_source
from id3pm.training.stage_files import EXAMPLE, PRESETS, StageConfig, read_stage
from id3pm.unet.checkpoint import check_keys, read_checkpoint

_SETS = ", ".join(map(str, ATTRIBUTE_DIMS))
_INDENTED = "".join(f"  {line}\n" for line in EXAMPLE.splitlines())
_EPILOG = (
    f"A file for --base-config (--sr-config: sr, sr_diffusion, sr_sampling; bundle.json will do):\n\n\b\n{_INDENTED}"
)
Weights = Mapping[str, npt.NDArray[np.float32]]
StageName = Literal["base", "sr"]


@dataclass(frozen=True)
class _Proof:
    """How a stage is proven: `--no-proof`, `--pictures` and `--base-output` or `--sr-output`."""

    wanted: bool
    pictures: Path | None
    output: Path | None


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """The options of `id3pm convert`."""

    base_file: Path = option("--base", type=EXISTING_FILE, required=True, help="Checkpoint of the 64 px stage (.pt).")
    sr_file: Path = option("--sr", type=EXISTING_FILE, required=True, help="Checkpoint of super-resolution (.pt).")
    base_preset: str | None = option(type=click.Choice(list(PRESETS)), help="Architecture of --base [paper-base-64].")
    base_config: Path | None = option(
        type=EXISTING_FILE, help="JSON with base, base_diffusion, sampling instead; see below."
    )
    sr_preset: str | None = option(type=click.Choice(list(PRESETS)), help="Architecture of --sr [paper-sr-256].")
    sr_config: Path | None = option(type=EXISTING_FILE, help="JSON with sr, sr_diffusion, sr_sampling instead.")
    identity_dim: int | None = option(
        type=click.IntRange(min=1), help="Length of the ID vector [as the architecture says]."
    )
    id_vector_model: str = option(required=True, help="Face recognition model of the ID vectors, e.g. sface.")
    attribute_set: str | None = option(
        type=click.Choice([str(key) for key in ATTRIBUTE_DIMS]),
        help=f"Attributes that --base takes: one of {_SETS} (1, 2, 3: the paper's Table 6; docs/control.md lists "
        "them).",
    )
    l2_normalised: bool | None = option(
        "--unit-id-vectors/--raw-id-vectors",
        default=None,
        help="Trained on ID vectors of L2 norm 1, or as the FR model's network gives them "
        "[as the face models give them].",
    )
    name: str | None = option(help="Name of the bundle [as the folder in --out].")
    licence: str = option(required=True, help="Licence of the weights.")
    storage: Storage = option(type=click.Choice(["fp16", "fp32"]), default="fp32", show_default=True)
    base_renames: tuple[str, ...] = option(
        "--rename", multiple=True, metavar="OLD=NEW", help="Key prefix in --base; repeats."
    )
    sr_renames: tuple[str, ...] = option(
        "--sr-rename", multiple=True, metavar="OLD=NEW", help="Key prefix in --sr; repeats."
    )
    pictures: Path | None = option(
        type=EXISTING, help="Portraits to try the networks on, a few dozen [generated faces]."
    )
    base_output: Path | None = option(
        type=EXISTING_FILE, help="A forward pass of --base stored as .npz: a stricter proof."
    )
    sr_output: Path | None = option(type=EXISTING_FILE, help="The same of --sr.")
    no_proof: bool = option(is_flag=True, help="Believe what the configuration says.")
    out: Path = option(type=FOLDER, required=True, help="Folder to write.")
    force: bool = option(is_flag=True, help="Replace the bundle that is in --out.")


@click.command("convert", epilog=_EPILOG)
@takes(ConvertOptions)
def convert_command(options: ConvertOptions) -> None:
    """Turn two guided-diffusion checkpoints (raw or EMA) into a bundle.

    Missing, unknown and mis-shaped keys are refused. What shapes do not tell (heads, attention order, groups of norms,
    noise schedule) is listed, and tried: where other values fit the weights better, they are named and nothing is
    written.
    """
    out = options.out
    if (out / CONFIG_FILE).exists() and not options.force:
        raise click.UsageError(f"{out} already holds a bundle; --force replaces it")
    require_id_vector_model(options.id_vector_model)
    base = _stage("base", options.base_preset, options.base_config, "paper-base-64")
    sr = _stage("sr", options.sr_preset, options.sr_config, "paper-sr-256")
    base = _conditioned(base, options.identity_dim, options.attribute_set)
    bundle = _bundle(options, base, sr)
    base_tensors = _checked(options.base_file, base, _parse_renames(options.base_renames, "rename"))
    sr_tensors = _checked(options.sr_file, sr, _parse_renames(options.sr_renames, "sr-rename"))
    wanted, pictures = not options.no_proof, options.pictures
    proofs = {
        "base": _proven("base", base, base_tensors, _Proof(wanted, pictures, options.base_output)),
        "sr": _proven("sr", sr, sr_tensors, _Proof(wanted, pictures, options.sr_output)),
    }
    sources = {"base": options.base_file.name, "sr": options.sr_file.name}
    card = {"converted_from": sources, "architecture": proofs}
    click.echo(f"writing {options.storage} weights ...")
    write_bundle(out, replace(bundle, training_card=card), base_tensors, sr_tensors, storage=options.storage)
    written = write_card(out)
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    click.echo(f"wrote bundle {bundle.name!r} to {out} ({size / 1e6:.1f} MB)")
    click.echo(f"{written.name}: {to_fill_in(out)} paragraphs are for you to fill in")


def _bundle(options: ConvertOptions, base: StageConfig, sr: StageConfig) -> Bundle:
    if base.unet.identity_dim is None:
        raise ConfigError("the base architecture has no identity_dim: give --identity-dim")
    return Bundle(
        name=options.name or options.out.resolve().name,
        id_vector_model=options.id_vector_model,
        identity_dim=base.unet.identity_dim,
        attribute_set=None if options.attribute_set is None else parse_set(options.attribute_set),
        base=base.unet,
        base_diffusion=base.diffusion,
        sr=sr.unet,
        sr_diffusion=sr.diffusion,
        sampling=base.sampling,
        sr_sampling=sr.sampling,
        licence=options.licence,
        l2_normalised=options.l2_normalised,
    )


def _parse_renames(renames: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in renames]
    for text, (old, equals, _) in zip(renames, pairs, strict=True):
        if not (old and equals):
            raise click.BadParameter(
                f"{text!r}: expected OLD=NEW, e.g. id_embed.=identity_embed.; NEW may be empty", param_hint=option
            )
    return {old: new for old, _, new in pairs}


def _stage(stage: StageName, preset: str | None, config_file: Path | None, default: str) -> StageConfig:
    if config_file is None:
        return PRESETS[preset or default]
    if preset is not None:
        raise ConfigError(f"--{stage}-preset and --{stage}-config exclude each other: give one")
    return read_stage(config_file, stage)


def _conditioned(base: StageConfig, identity_dim: int | None, attribute_set: str | None) -> StageConfig:
    """The base stage with the conditions that the command line names, in place of the configuration's own."""
    unet = base.unet
    if identity_dim is not None:
        unet = replace(unet, identity_dim=identity_dim)
    if attribute_set is not None:
        unet = replace(unet, attribute_dim=ATTRIBUTE_DIMS[parse_set(attribute_set)])
    return replace(base, unet=unet)


def _checked(file: Path, stage: StageConfig, rename: Mapping[str, str]) -> dict[str, npt.NDArray[np.float32]]:
    click.echo(f"reading {file.name} ...")
    tensors = read_checkpoint(file, rename, report=lambda line: click.echo(f"  {line}"))
    try:
        check_keys(stage.unet, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from error
    parameters = sum(tensor.size for tensor in tensors.values())
    click.echo(f"  {len(tensors)} tensors, {parameters / 1e6:.1f} M parameters: all names and shapes fit")
    return tensors


def _proven(stage: StageName, config: StageConfig, weights: Weights, proof: _Proof) -> str:
    """Checks the fields that shapes leave open, as far as possible; returns the result for the training card.

    Raises:
        CheckpointError: The weights belong to another network of the same shapes.
        InvalidInputError: There are no pictures to check them on.
    """
    given = Candidate(config.unet, config.diffusion)
    click.echo(f"{stage}: the shapes leave open {named(given.left_open())}")
    if not proof.wanted:
        return _told(stage, "not proven, as asked for")
    if proof.output is not None:
        verdict = compare_with_output(weights, given, read_output(proof.output), _progress)
        what = f"relative error {verdict.error:.1e} to the output in {proof.output.name}"
    else:
        try:
            shown, name = _pictures(proof.pictures, trial_size(config.unet))
        except MissingExtraError:
            return _told(stage, "not proven: there are no pictures to try it on; give --pictures with some portraits")
        verdict = try_on_pictures(weights, given, shown, _progress)
        what = f"error of the predicted noise {verdict.error:.4g} on {ROUNDS[-1]} {name}"
    if not verdict.conclusive:
        return _told(
            stage,
            f"not proven: {what}, where 1 would be no prediction at all. These weights remove no noise from such "
            "pictures: the configuration is wrong, or give --pictures like those that the network was trained on",
        )
    if verdict.best != given:
        raise CheckpointError(
            f"{stage}: the weights are another network's: with {verdict.best.unlike(given)} instead of "
            f"{given.unlike(verdict.best)} it is {what}, as it was given {verdict.given_error:.4g}. Correct the "
            "configuration, or keep it with --no-proof"
        )
    return _told(stage, f"proven: {what}, {_beside(verdict)}")


def _beside(verdict: Verdict) -> str:
    """How the best network compares with the others that were tried."""
    text = (
        f"better than {verdict.tried - len(verdict.undecided)} other networks of these shapes"
        if verdict.tried
        else "the same"
    )
    if verdict.undecided:
        alike = "; ".join(other.unlike(verdict.best) for other in verdict.undecided)
        text += f". As good, so not told apart: {alike}"
    return text


def _told(stage: StageName, text: str) -> str:
    click.echo(f"{stage}: {text}")
    return text


def _progress(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    with click.progressbar(list(candidates), label="trying networks of the same shapes") as bar:
        yield from bar


def _pictures(folder: Path | None, size: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Squares of `size` pixels to try networks on, uint8 [N, size, size, 3], and what they are.

    Raises:
        InvalidInputError: The folder has no picture that can be read.
        MissingExtraError: None was given, and the generator of faces is not installed.
    """
    count = ROUNDS[-1]
    if folder is None:
        return squares(list(FaceGenerator().sample(0, range(count))), size), "generated faces"
    source = open_source(folder)
    photos = []
    for index in range(len(source)):
        try:
            photos.append(decode_photo(source.read(index)))
        except (ImageError, OSError):
            continue
        if len(photos) == count:
            break
    if not photos:
        raise InvalidInputError(f"--pictures {folder}: none of its {len(source)} pictures can be read")
    return squares(photos, size), f"pictures ({len(photos)} different)"
