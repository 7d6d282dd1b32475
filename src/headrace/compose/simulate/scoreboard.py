"""The policies side by side, as a table; the best of each column stands out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from headrace.compose.process.terminal import counted
from headrace.core.quantities import format_duration
from headrace.simulator.columns import COLUMNS, Column, best_of
from headrace.simulator.results import Scores
from headrace.simulator.runs import POOLED_REFERENCE
from headrace.simulator.settings import Slo

BEST_MARK = "*"
"""Beside the best figure of a column, so that it is seen without colours, too."""
LONGEST_NAME = 40
"""Of a policy with its parameters, before it is broken into lines."""
UNSERVED = "not served"
COLUMN_GAP = 2
_DISPENSABLE = ("output tok/s", "p50", "p90", "TPOT ms p99", "TPOT ms mean", "hit %", "TTFT s p99")
"""What a narrow terminal leaves out, this first; --json and the report have it."""


def scoreboard(runs: Sequence[Scores], slo: Slo, width: int) -> Table:
    """The table, in as many columns as there is room for."""
    total = max((run.requests for run in runs), default=0)
    targets = f"TTFT {format_duration(slo.ttft_s)}, TPOT {format_duration(slo.tpot_s)}"
    title = f"{counted(total, 'request')}; goodput within {targets}; {BEST_MARK} best policy"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("policy", overflow="fold")
    cells = {column: _cells(column, runs) for column in COLUMNS}
    columns = _fitting(cells, runs, width)
    for column in columns:
        table.add_column(_head(column), justify="right", no_wrap=True)
    table.add_column(UNSERVED, justify="right", no_wrap=True)
    for row, run in enumerate(runs):
        style = "dim" if run.policy == POOLED_REFERENCE else ""
        figures = (cells[column][row] for column in columns)
        table.add_row(run.policy, *figures, f"{run.requests - run.completed:,}", style=style)
    return table


def _fitting(cells: dict[Column, list[Text]], runs: Sequence[Scores], width: int) -> list[Column]:
    """The columns to show, in their order."""
    name = min(max((len(run.policy) for run in runs), default=0), LONGEST_NAME)
    left = width - name - len(UNSERVED) - 2 * COLUMN_GAP
    wide = {column: _width(column, texts) + COLUMN_GAP for column, texts in cells.items()}
    columns = list(cells)
    for title in _DISPENSABLE:
        if sum(wide[column] for column in columns) <= left:
            break
        columns = [column for column in columns if column.title != title]
    return columns


def _width(column: Column, texts: list[Text]) -> int:
    return max([len(_head(column)), *(len(text) for text in texts)])


def _head(column: Column) -> str:
    # A figure has room for the mark behind it; so have heads, or they would not be above figures.
    return f"{column.title} "


def _cells(column: Column, runs: Sequence[Scores]) -> list[Text]:
    winners = best_of(column, runs)
    texts = [(run.policy, column.text(column.value(run))) for run in runs]
    return [
        Text(f"{text}{BEST_MARK}", "bold green") if policy in winners else Text(f"{text} ")
        for policy, text in texts
    ]
