"""The reference page names every field of the raw file and every kind of error, and no other."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from headrace.bench.record import ERROR_KINDS, Record
from headrace.cli import parser
from headrace.compose.bench.input import BenchOptions, load_of

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "bench.md").read_text(encoding="utf-8")


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


def commands() -> list[list[str]]:
    """What the how-to has a user type, without comments."""
    text = (DOCS / "how-to" / "load-test.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("headrace")]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_of_the_how_to_can_be_typed(arguments: list[str]):
    url = "http://localhost:8000"
    options = parser().parse_args([url if each == "URL" else each for each in arguments])
    if arguments[0] != "bench" or options.trace is not None or options.sweep:
        return
    given = {name: value for name, value in vars(options).items() if name != "run"}
    load, _ = load_of(BenchOptions(**{**given, "slo": tuple(options.slo)}))
    assert load.words
