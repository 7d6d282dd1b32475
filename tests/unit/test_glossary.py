"""The words of docs/glossary.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IDENTIFIER = re.compile(r"`([A-Za-z_.]+…?)`")


def identifiers() -> list[str]:
    """What stands in the last column, where it is not the name of an option or of a value."""
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    rows = [line.rstrip(" |").rsplit("|", 1)[-1] for line in lines if line.startswith("| ")]
    return [found for cell in rows[1:] for found in IDENTIFIER.findall(cell)]


@pytest.fixture(scope="module")
def code() -> str:
    files = sorted((ROOT / "src").rglob("*.py"))
    # Strings and comments may say a word that no code has.
    text = "\n".join(file.read_text() for file in files)
    return re.sub(r'"""(?s:.*?)"""|#.*', "", text)


def test_there_are_identifiers():
    assert len(identifiers()) > 30


@pytest.mark.parametrize("name", identifiers())
def test_an_identifier_is_in_the_code(name: str, code: str):
    last = name.rpartition(".")[2]
    pattern = rf"\b{last[:-1]}" if last.endswith("…") else rf"\b{last}\b"
    assert re.search(pattern, code), f"{name} is in no code"
