"""The reference page names every field of the raw file and every kind of error, and no other."""

import re
from dataclasses import fields
from pathlib import Path

from headrace.bench.record import ERROR_KINDS, Record
from headrace.cli import parser

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "bench.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[str]:
    """The names in the first column of the table that begins with this heading."""
    rows = PAGE.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_every_field_of_a_record_is_explained():
    assert sorted(first_cells("field")) == sorted(each.name for each in fields(Record))


def test_every_kind_of_error_is_explained():
    assert sorted(first_cells("error")) == sorted([*ERROR_KINDS, "http_429"])


def test_flags_that_the_page_names_exist():
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    bench = next(
        action.choices["bench"]
        for action in parser()._actions
        if isinstance(action.choices, dict) and "bench" in action.choices
    )
    known = {name for action in bench._actions for name in action.option_strings}
    assert named <= known
