"""The policies side by side, as a table; the best of each column stands out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from headrace.config.quantities import format_duration
from headrace.simulator.results import Scores
from headrace.simulator.runs import POOLED_REFERENCE
from headrace.simulator.settings import Slo

BEST_MARK = "*"
"""Beside the best figure of a column, so that it is seen without colours, too."""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a run: how to take it, how to write it, and which way is better."""

    title: str
    value: Callable[[Scores], float]
    text: Callable[[float], str]
    more_is_better: bool = False


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _milliseconds(value: float) -> str:
    return f"{value * 1000:.1f}"


def _share(value: float) -> str:
    return f"{value * 100:.2f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}"


COLUMNS = (
    Column("goodput %", lambda s: s.goodput_share, _share, more_is_better=True),
    Column("hit %", lambda s: s.hit_ratio, _share, more_is_better=True),
    Column("TTFT s mean", lambda s: s.ttft_s.mean, _seconds),
    Column("p50", lambda s: s.ttft_s.p50, _seconds),
    Column("p90", lambda s: s.ttft_s.p90, _seconds),
    Column("p99", lambda s: s.ttft_s.p99, _seconds),
    Column("TPOT ms mean", lambda s: s.tpot_s.mean, _milliseconds),
    Column("p99", lambda s: s.tpot_s.p99, _milliseconds),
    Column("output tokens/s", lambda s: s.output_tokens_per_s, _rate, more_is_better=True),
)


def scoreboard(runs: Sequence[Scores], slo: Slo) -> Table:
    """The table of a terminal. Policies only are compared: the reference routes nothing."""
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
            _cell(column.text(column.value(run)), run.policy in winners)
            for column, winners in zip(COLUMNS, best, strict=True)
        ]
        table.add_row(run.policy, *cells, f"{run.requests - run.completed:,} ", style=style)
    return table


def best_of(column: Column, runs: Sequence[Scores]) -> frozenset[str]:
    """The policies whose figure reads best; none where there is nothing to compare."""
    rivals = [run for run in runs if run.policy != POOLED_REFERENCE]
    if len(rivals) < 2:
        return frozenset()
    choose = max if column.more_is_better else min
    best = column.text(choose(column.value(run) for run in rivals))
    return frozenset(run.policy for run in rivals if column.text(column.value(run)) == best)


def _cell(text: str, is_best: bool) -> Text:
    return Text(f"{text}{BEST_MARK}", "bold green") if is_best else Text(f"{text} ")
