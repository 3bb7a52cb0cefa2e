"""`id3pm baseline`: older methods to invert an FR model."""

from __future__ import annotations

import click

from id3pm.evaluation.baselines.compare_command import compare_command
from id3pm.evaluation.baselines.train_command import train_group


@click.group("baseline")
def baseline_group() -> None:
    """Other methods to invert an FR model: train those that are networks, and compare all with ID3PM."""


baseline_group.add_command(compare_command)
baseline_group.add_command(train_group)
