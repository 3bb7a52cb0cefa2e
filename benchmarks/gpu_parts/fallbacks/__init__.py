"""What stands in for packages that a GPU machine has not got, so that `gpu.py` measures all it can there.

`packages/` holds the few functions of array-api-compat, safetensors, accelerate and rich that are called while a part
runs. Packages of which nothing is called can be imported, and raise when something is: `absent`. A package that is
installed is never replaced, and the product knows nothing of this.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from gpu_parts.fallbacks.absent import AbsentPackages

PACKAGES = Path(__file__).parent / "packages"
REPLACED = ("array_api_compat", "safetensors", "accelerate", "rich")
ONLY_IMPORTED = ("PIL",)
"""None that a library asks for and does without: it would take the stand-in for the package."""


def missing() -> list[str]:
    """Which of these packages are not installed; asked before `install`."""
    return [name for name in (*REPLACED, *ONLY_IMPORTED) if _is_missing(name)]


def install() -> None:
    """Makes what is missing importable. Found last, so an installed package always comes first."""
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
    if not any(isinstance(finder, AbsentPackages) for finder in sys.meta_path):
        sys.meta_path.append(AbsentPackages(ONLY_IMPORTED))


def _is_missing(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is None
    spec = importlib.util.find_spec(name)
    return spec is None or isinstance(spec.loader, AbsentPackages) or str(PACKAGES) in str(spec.origin)
