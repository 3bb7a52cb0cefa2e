"""Command group `id3pm evaluate`."""

from __future__ import annotations

import click

from id3pm.evaluation.card import card_command
from id3pm.evaluation.groups.command import groups_command
from id3pm.evaluation.identity.commands import identity_command, photographs_command, presets_command
from id3pm.evaluation.quality.command import quality_command
from id3pm.evaluation.super_resolution.command import super_resolution_command
from id3pm.evaluation.verification.command import verification_command

COMMANDS = (
    card_command,
    identity_command,
    photographs_command,
    presets_command,
    super_resolution_command,
    verification_command,
    quality_command,
    groups_command,
)


@click.group("evaluate")
def evaluate_group() -> None:
    """Measure the quality of built engines and bundles."""


for command in COMMANDS:
    evaluate_group.add_command(command)
