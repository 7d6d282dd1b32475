"""What somebody else said, fit for a terminal, a log and a report."""

from __future__ import annotations

import json
from typing import cast

MOST_CHARACTERS = 200
_MOST_JSON = 16_384
"""Bytes of an error body that is read as JSON; of a longer one the beginning is shown."""


def in_a_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Short, in one line, and without anything that a terminal would obey."""
    line = " ".join(text.split())[:most]
    return line if line.isprintable() else "".join(c if c.isprintable() else "�" for c in line)


def error_said(body: bytes) -> str:
    """What an error body says, in a line, else its beginning.

    `error.message` is OpenAI's shape, `message` that of older vLLM, `detail` FastAPI's.
    """
    told = _object(body) if len(body) <= _MOST_JSON else {}
    error = told.get("error")
    inner = cast("dict[str, object]", error) if isinstance(error, dict) else told
    for said in (inner.get("message"), told.get("error"), told.get("detail")):
        if isinstance(said, str) and said.strip():
            return in_a_line(said)
    return in_a_line(body[:MOST_CHARACTERS].decode("utf-8", "replace"))


def _object(body: bytes) -> dict[str, object]:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}
