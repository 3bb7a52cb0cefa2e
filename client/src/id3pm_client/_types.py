"""Shared type aliases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""An array of any data type; the contract names it (`_contract.MODELS`)."""
Tensors: TypeAlias = Mapping[str, Array]
"""Tensors by name, each with the batch dimension."""
JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object of the server: a receipt, a status, a description."""
