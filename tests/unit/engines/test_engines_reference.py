"""The page on engines is the one that the dialects make, and it hides nothing."""

from dataclasses import fields

import pytest

from headrace.engines.reading import EngineReading
from headrace.engines.registry import DIALECTS, dialect
from tests.conformance.captures import FOLDER
from tools.engines_reference import PAGE, render_page


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == render_page(), "run: python -m tools.engines_reference"


@pytest.mark.parametrize("name", DIALECTS)
def test_every_fact_of_every_engine_is_on_the_page(name: str):
    section = render_page().split(f"## `{name}`")[1].split("\n## ")[0]
    for field in fields(EngineReading):
        if field.name != "skipped_lines":
            assert f"| `{field.name}` |" in section
    for source in dialect(name).sources.values():
        assert all(f"`{told}`" in section for told in source)


@pytest.mark.parametrize("name", DIALECTS)
def test_an_engine_nobody_ran_is_marked(name: str):
    heading = next(line for line in render_page().splitlines() if line.startswith(f"## `{name}`"))
    assert heading.endswith("(unverified)") == dialect(name).unverified


@pytest.mark.parametrize("name", DIALECTS)
def test_fixtures_written_by_hand_say_so(name: str):
    readme = FOLDER / name / "README.md"
    written = "unverified" in readme.read_text("utf-8") if readme.exists() else name == "openai"
    assert written == dialect(name).unverified


@pytest.mark.parametrize("name", DIALECTS)
def test_only_what_is_read_can_be_derived(name: str):
    assert dialect(name).derived <= set(dialect(name).sources)
