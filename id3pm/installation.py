"""How this copy of the package was installed: where its checkout is, and which command adds an extra to it.

The package is on no index, so `pip install 'id3pm[web]'` cannot work; what does depends on the installation.
"""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit


def checkout() -> Path | None:
    """Root of the checkout that this package runs from; `None` for an installed wheel."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "bundles").is_dir() else None


def how_to_install(extras: str) -> str:
    """The command that adds extras to this installation.

    Args:
        extras: Names of extras of pyproject.toml, separated by commas.

    Returns:
        In a checkout `pip install -e`; for a wheel the file that it was installed from, as pip has recorded it.
    """
    root = checkout()
    if root is not None:
        return f"pip install -e {_quoted(f'{root}[{extras}]')}"
    url = _installed_from()
    if url is None:  # from an index of the user's own, or from a folder of wheels
        return f"pip install {_quoted(f'id3pm[{extras}]')}"
    if url.startswith("file:") and not Path(unquote(urlsplit(url).path)).exists():
        version = importlib.metadata.version("id3pm")
        return f"pip install {_quoted(f'id3pm[{extras}] @ file:///FOLDER/id3pm-{version}-py3-none-any.whl')}"
    return f"pip install {_quoted(f'id3pm[{extras}] @ {url}')}"


def _installed_from() -> str | None:
    """The address of the file or folder that pip installed, as it records it (PEP 610)."""
    try:
        record = importlib.metadata.distribution("id3pm").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    return None if record is None else str(json.loads(record)["url"])


def _quoted(requirement: str) -> str:
    """Always in quotes: some shells take brackets for a pattern."""
    quoted = shlex.quote(requirement)
    return quoted if quoted.startswith("'") else f"'{requirement}'"
