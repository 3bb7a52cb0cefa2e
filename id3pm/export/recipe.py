"""The recipe of an engine: a hash of the code that decides what is written into its graph.

Comments, docstrings and the layout of the code do not count: an engine is rebuilt only when the code's meaning changes.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

import id3pm

UNET_FILES = ("unet/layers.py", "unet/model.py")
EXPORT_FILES = (
    "export/unet/onnx_export.py",
    "export/unet/onnx_operators.py",
    "export/unet/onnx_modules.py",
    "export/unet/winograd.py",
)
DIGITS = 16


def recipe_hash(more: Iterable[str]) -> str:
    """The hash of the code behind every engine and of more files of `id3pm.export`."""
    package = Path(id3pm.__file__).parent
    digest = hashlib.sha256()
    for name in (*EXPORT_FILES, *(f"export/{name}" for name in more), *UNET_FILES):
        digest.update(meaning((package / name).read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:DIGITS]


def meaning(source: str) -> str:
    """Python code without comments, docstrings and layout, as text that is the same under every version of Python.

    `ast.dump` is not: versions differ in which empty fields they print.
    """
    return _text(ast.parse(source))


def _text(value: object) -> str:
    if isinstance(value, ast.JoinedStr):  # Python 3.12.1 adds empty texts to it
        return f"JoinedStr{_text([one for one in value.values if not _is_empty(one)])}"
    if isinstance(value, ast.AST):
        fields = ((name, getattr(value, name, None)) for name in value._fields)
        given = (f"{name}={_text(field)}" for name, field in fields if field is not None and field != [])
        return f"{type(value).__name__}({', '.join(given)})"
    if isinstance(value, list):
        return f"[{', '.join(_text(one) for one in value if not _is_docstring(one))}]"
    return ascii(value)


def _is_docstring(node: object) -> bool:
    """A text that stands alone: the docstring of a module, class, function or name."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_empty(node: object) -> bool:
    """An empty text."""
    return isinstance(node, ast.Constant) and node.value == ""
