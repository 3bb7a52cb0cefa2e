"""`id3pm baseline`: older methods to invert an FR model."""

from __future__ import annotations

import click

from id3pm.evaluation.baselines.compare_command import compare_command
from id3pm.evaluation.baselines.invert_command import (
    gan_command,
    gaussian_command,
    nbnet_command,
    vec2face_command,
)
from id3pm.evaluation.baselines.labelled_command import labelled_command
from id3pm.evaluation.baselines.train_command import train_group
from id3pm.evaluation.baselines.verification_command import verification_command


@click.group("baseline")
def baseline_group() -> None:
    """Other methods to invert an FR model: each on its own, all compared with ID3PM, networks trained."""


for command in (gaussian_command, gan_command, nbnet_command, vec2face_command, compare_command):
    baseline_group.add_command(command)
for command in (verification_command, labelled_command, train_group):
    baseline_group.add_command(command)
