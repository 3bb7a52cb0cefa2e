"""Writes the figures of an evaluation into the bundle's training card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from id3pm.errors import InvalidInputError
from id3pm.evaluation.files import SCHEMA, SHORT
from id3pm.formats.bundle import read_bundle, replace_card, weights_hash
from id3pm.formats.model_card import write_card

DIGITS = 4  # of a figure
REPORT = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("card")
@click.option("--bundle", type=click.Path(path_type=Path, file_okay=False), default=Path("bundles/demo"))
@click.option("--identity", type=REPORT, help="identity.json of `id3pm evaluate identity`.")
@click.option("--super-resolution", type=REPORT, help="super_resolution.json of `id3pm evaluate super-resolution`.")
def card_command(bundle: Path, identity: Path | None, super_resolution: Path | None) -> None:
    """Put the figures of reports into a bundle's training card.

    The reports must be about the bundle's weights. Engines of the bundle are rebuilt next time: they carry the card.
    """
    if identity is None and super_resolution is None:
        raise click.UsageError("give --identity, --super-resolution or both")
    measured = write_figures(bundle, identity, super_resolution)
    click.echo(f"{bundle}: training card has {', '.join(measured)}")


def write_figures(bundle: Path, identity: Path | None, super_resolution: Path | None) -> dict[str, Any]:
    """Puts the figures of reports under `measured` in the training card, and into the model card.

    The weights stay as they are.

    A report that is not given leaves what the card has from an earlier one.

    Args:
        bundle: The bundle's folder.
        identity: identity.json of `id3pm evaluate identity`.
        super_resolution: super_resolution.json of `id3pm evaluate super-resolution`.

    Returns:
        What the card now has under `measured`.

    Raises:
        BundleError: The bundle cannot be read.
        InvalidInputError: A report cannot be read, is unfinished, or is about other weights than the bundle's.
    """
    card = read_bundle(bundle).training_card
    measured = dict(card.get("measured", {}))
    if identity is not None:
        measured["identity"] = _identity(_report(identity, weights_hash(bundle, "base")))
    if super_resolution is not None:
        measured["super_resolution"] = _super_resolution(_report(super_resolution, weights_hash(bundle, "sr")))
    replace_card(bundle, {**card, "measured": measured})
    write_card(bundle)
    return measured


def _report(file: Path, weights: str) -> dict[str, Any]:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        schema, subject = report["schema"], report["subject"]
    except KeyError as error:
        raise InvalidInputError(f"{file.name} is not a report of `id3pm evaluate`: it has no {error}") from error
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{file.name} is not a report of `id3pm evaluate`: {error}") from error
    if schema != SCHEMA:
        raise InvalidInputError(f"{file.name} has schema {schema}: this version of id3pm reads {SCHEMA}")
    if subject.get("weights") != weights[:SHORT]:
        raise InvalidInputError(
            f"{file.name} is about weights {subject.get('weights')}: the bundle has {weights[:SHORT]}"
        )
    found: dict[str, Any] = report
    return found


def _identity(report: Mapping[str, Any]) -> dict[str, Any]:
    done, wanted = len(report["results"]), report["settings"]
    if done != wanted:
        raise InvalidInputError(f"identity report: {done} of {wanted} settings are done; run the evaluation to its end")
    return {
        "subject": report["subject"],
        "identities": report["identities"],
        "images_per_identity": report["images_per_identity"],
        "yardsticks": {
            base["judge"]: {
                "seen_in_training": not base["independent"],
                "impostors": _rounded(base["impostors"]["mean"]),
                "same_face_bound": _rounded(base["bound"]["mean"]),
            }
            for base in report["baselines"]
        },
        "settings": [
            {
                **result["setting"],
                "evaluations": result["evaluations"],
                **{found["judge"]: _opinion(found) for found in result["measurements"]},
            }
            for result in report["results"]
        ],
    }


def _opinion(found: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "similarity": _rounded(found["similarity"]["mean"]),
        "recovered": _rounded(found["recovered"]),
        "verification": _rounded(found["verification"]["accuracy"]),
        "no_face": _rounded(found["no_face"]),
    }


def _super_resolution(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "subject": report["subject"],
        "pictures": [
            {
                "pictures": found["pictures"],
                "count": found["count"],
                "sizes": found["sizes"],
                **{
                    quality["method"]: {
                        name: _rounded(quality[name]) for name in ("psnr", "ssim", "perceptual", "identity")
                    }
                    for quality in found["qualities"]
                },
            }
            for found in report["comparisons"]
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
