"""The figures that policies are compared by, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.simulator.results import Scores
from headrace.simulator.runs import POOLED_REFERENCE


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
    Column("TTFT s p99", lambda s: s.ttft_s.p99, _seconds),
    Column("TPOT ms mean", lambda s: s.tpot_s.mean, _milliseconds),
    Column("TPOT ms p99", lambda s: s.tpot_s.p99, _milliseconds),
    Column("output tok/s", lambda s: s.output_tokens_per_s, _rate, more_is_better=True),
)


def best_of(column: Column, runs: Sequence[Scores]) -> frozenset[str]:
    """The policies whose figure reads best; none where there is nothing to compare.

    The pooled reference routes nothing and competes with nobody.
    """
    rivals = [run for run in runs if run.policy != POOLED_REFERENCE]
    if len(rivals) < 2:
        return frozenset()
    choose = max if column.more_is_better else min
    best = column.text(choose(column.value(run) for run in rivals))
    return frozenset(run.policy for run in rivals if column.text(column.value(run)) == best)
