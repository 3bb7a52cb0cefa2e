"""The FR models that bundles and data sets may name; `id3pm.export.face` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from id3pm.errors import InvalidInputError

ID_VECTOR_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "sface": "",
        "insightface": "PACK",
        "facenet": "FILE",
        "adaface": "FILE",
        "arcface-razzhigaev": "FILE",
        "from": "FILE",
        "onnx": "NAME",
    }
)
"""Kind of FR model -> what follows it after a colon: a model pack, a checkpoint without its ending, or a given name."""


def require_id_vector_model(name: str) -> None:
    """Refuses an unknown name of an FR model.

    Raises:
        InvalidInputError: The name is unknown; the message lists the valid forms.
    """
    kind, colon, rest = name.partition(":")
    needed = ID_VECTOR_MODELS.get(kind)
    if needed is None or bool(needed) != bool(rest) or bool(needed) != bool(colon):
        forms = ", ".join(f"{kind}:{rest}" if rest else kind for kind, rest in ID_VECTOR_MODELS.items())
        raise InvalidInputError(
            f"--id-vector-model {name}: there is no such FR model; choose {forms} (another model: describe its ONNX "
            "file, see docs/face_models.md)"
        )
