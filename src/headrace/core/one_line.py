"""What somebody else said, fit for a terminal, a log and a report."""

from __future__ import annotations

MOST_CHARACTERS = 200


def in_a_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Short, in one line, and without anything that a terminal would obey."""
    line = " ".join(text.split())[:most]
    return line if line.isprintable() else "".join(c if c.isprintable() else "�" for c in line)
