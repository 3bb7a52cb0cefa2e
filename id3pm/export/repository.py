"""A Triton model repository beside `triton_repo/`, for the engines of another bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[2] / "triton_repo"


def ensure_repository(repository: Path, template: Path = TEMPLATE) -> bool:
    """Creates a repository with the models of another one, without its engines; one that exists stays as it is.

    Args:
        repository: Where to.
        template: Whose configurations and `model.py` files are copied.

    Returns:
        Whether it was created.
    """
    if repository.exists():
        return False
    for model in sorted(template.iterdir()):
        if (model / "config.pbtxt").is_file():
            version = repository / model.name / "1"  # Triton wants the folder, even of an ensemble
            version.mkdir(parents=True)
            shutil.copy(model / "config.pbtxt", version.parent)
            for file in (model / "1").glob("*.py"):
                shutil.copy(file, version)
    return True
