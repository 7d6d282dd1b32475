"""The policies side by side, as a table; the best of each column stands out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from headrace.config.quantities import format_duration
from headrace.simulator.columns import COLUMNS, best_of
from headrace.simulator.results import Scores
from headrace.simulator.runs import POOLED_REFERENCE
from headrace.simulator.settings import Slo

BEST_MARK = "*"
"""Beside the best figure of a column, so that it is seen without colours, too."""


def scoreboard(runs: Sequence[Scores], slo: Slo) -> Table:
    """The table of a terminal."""
    total = max((run.requests for run in runs), default=0)
    targets = f"TTFT {format_duration(slo.ttft_s)}, TPOT {format_duration(slo.tpot_s)}"
    table = Table(title=f"{total:,} requests; goodput within {targets}", title_justify="left")
    table.add_column("policy", no_wrap=True, overflow="fold")
    for column in COLUMNS:
        table.add_column(column.title, justify="right", no_wrap=True)
    table.add_column("not served", justify="right", no_wrap=True)
    best = [best_of(column, runs) for column in COLUMNS]
    for run in runs:
        style = "dim" if run.policy == POOLED_REFERENCE else ""
        cells = [
            _cell(column.text(column.value(run)), is_best=run.policy in winners)
            for column, winners in zip(COLUMNS, best, strict=True)
        ]
        table.add_row(run.policy, *cells, f"{run.requests - run.completed:,} ", style=style)
    return table


def _cell(text: str, *, is_best: bool) -> Text:
    return Text(f"{text}{BEST_MARK}", "bold green") if is_best else Text(f"{text} ")
