"""The tutorial's tables are what its commands print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import tutorial_tables
from tools.tutorial_tables import Shown

TRACE = Path(__file__).parents[3] / "shared" / "traces" / "mooncake_conversation.jsonl"
SHOWN = tutorial_tables.shown()


def test_every_table_of_the_page_is_looked_at():
    assert len(SHOWN) == tutorial_tables.PAGE.read_text("utf-8").count(" policy  ")


@pytest.mark.parametrize("shown", SHOWN, ids=[" ".join(each.command.split()) for each in SHOWN])
def test_a_table_is_what_its_command_prints(shown: Shown):
    """But for what a sweep chooses, which the acceptance lane looks at."""
    if shown.of_trace and not TRACE.exists():
        pytest.skip(f"no {TRACE}: Mooncake's conversation trace, which maintainers have")
    command = shown.without_sweep
    trace = TRACE if shown.of_trace else None
    assert tutorial_tables.printed_table(command, trace) == shown.table
