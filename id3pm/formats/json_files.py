"""Reads JSON that may be written by hand: errors name the file, the line and the text there."""

from __future__ import annotations

import json
from typing import Any


def parse_json(data: bytes, name: str) -> Any:
    """The value in a JSON file.

    Args:
        data: The file's content.
        name: What to call the file.

    Raises:
        ValueError: It is not UTF-8, or not JSON; the message says where.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not JSON: byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        lines = error.doc.splitlines()
        line = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
        found = f": {line[:80]!r}" if line else ", at the end of the file"
        why = error.msg[0].lower() + error.msg[1:]
        raise ValueError(f"{name} is not JSON: line {error.lineno}, column {error.colno}{found} ({why})") from error
