"""The tutorial's sweep chooses what the page says; the tables are looked at in `tests/sim`."""

from __future__ import annotations

import pytest

from tools import tutorial_tables

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


def test_its_sweep_chooses_what_the_page_shows():
    (sweep,) = [each for each in tutorial_tables.shown() if "--sweep" in each.command]
    assert tutorial_tables.printed_table(sweep.command, None) == sweep.table
