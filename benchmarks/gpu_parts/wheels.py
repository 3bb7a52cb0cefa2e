"""Wheels from a folder, for a machine without network on which nothing may be installed."""

from __future__ import annotations

import platform
import sys
import zipfile
from pathlib import Path


def unpack(folder: Path, to: Path) -> list[str]:
    """Unpacks the wheels of a folder that this Python can import; `to` is then a place for `sys.path`.

    Args:
        folder: Wheels, as `pip download` leaves them.
        to: Made if it is not there.

    Returns:
        The names of the wheels that do not fit: of another Python or another kind of machine.
    """
    to.mkdir(parents=True, exist_ok=True)
    left_out = []
    for wheel in sorted(folder.glob("*.whl")):
        if not fits(wheel.name):
            left_out.append(wheel.name)
            continue
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(to)
    return left_out


def fits(name: str, version: tuple[int, int] = sys.version_info[:2], machine: str = platform.machine()) -> bool:
    """Whether a wheel is for this Python on Linux, by the tags in its name (PEP 425).

    Args:
        name: `NAME-VERSION(-BUILD)-PYTHON-ABI-PLATFORM.whl`.
        version: Of Python.
        machine: As `platform.machine()` says.
    """
    pythons, abis, platforms = (part.split(".") for part in name.removesuffix(".whl").split("-")[-3:])
    here = f"cp{version[0]}{version[1]}"
    stable = "abi3" in abis and any(tag[:3] == "cp3" and int(tag[3:]) <= version[1] for tag in pythons)
    by_python = "py3" in pythons or (here in pythons and (here in abis or "none" in abis)) or stable
    return by_python and any(tag == "any" or ("linux" in tag and tag.endswith(machine)) for tag in platforms)
