"""The tutorial's tables are what its commands print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import tutorial_tables

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

TRACE = Path(__file__).parents[3] / "shared" / "traces" / "mooncake_conversation.jsonl"
"""Where maintainers have it; without it the one table that is of this trace is not looked at."""


def test_its_tables_are_what_its_commands_print():
    trace = TRACE if TRACE.exists() else None
    shown = tutorial_tables.PAGE.read_text("utf-8")
    assert shown.count(" policy  ") == 6
    assert tutorial_tables.page(trace) == shown
