"""Scalers side by side, as a table, and what follows from it in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from headrace.core.quantities import format_duration, percent
from headrace.simulator.scaling.scalers import ORACLE, OWN
from headrace.simulator.scaling.scores import ScalingScores
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.scaling.sweep import (
    Cheapest,
    better_in_both,
    cheapest_at,
    gap_closed,
    is_reference,
)

HEADS = ("attainment %", "tokens %", "replica-hours", "mean", "peak", "changes")


def scaling_scoreboard(
    runs: Sequence[ScalingScores], settings: ScalingSimulation, end_s: float
) -> Table:
    """The table; those that reach the goal stand out, with a mark too."""
    slo = settings.slo
    targets = f"TTFT {format_duration(slo.ttft_s)}, TPOT {format_duration(slo.tpot_s)}"
    title = f"attainment of {targets}; * reaches {percent(settings.goal)}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("scaler", overflow="fold")
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for run in runs:
        reached = run.attainment >= settings.goal
        share = Text(f"{run.attainment * 100:.2f}{'*' if reached else ' '}")
        if reached:
            share.stylize("bold green")
        table.add_row(
            run.scaler,
            share,
            f"{run.token_attainment * 100:.2f}",
            f"{run.replica_hours:,.1f}",
            f"{run.replica_hours * 3600 / end_s:.2f}",
            f"{run.peak:,}",
            f"{run.changes:,}",
            style="dim" if run.scaler.partition(":")[0] == ORACLE else "",
        )
    return table


def verdict(runs: Sequence[ScalingScores], goal: float) -> list[str]:
    """What the comparison says of `headrace`; nothing where it did not play."""
    own = next((run for run in runs if run.scaler == OWN), None)
    if own is None or not any(not is_reference(run.scaler) for run in runs):
        return []
    better = better_in_both(runs)
    if better:
        best = max(better, key=lambda run: run.attainment)
        said = (
            f"{len(better)} of the baselines' runs have more attainment and fewer replica-hours "
            f"than {OWN}, such as {best.scaler}"
        )
    else:
        said = f"no baseline has both more attainment and fewer replica-hours than {OWN}"
    lines = [said]
    cheapest = cheapest_at(runs, goal)
    if cheapest is not None:
        lines.append(f"at {percent(goal)}, {_place(cheapest, gap_closed(runs, goal))}")
    return lines


def _place(cheapest: Cheapest, closed: float | None) -> str:
    """Where `headrace` stands between baseline and oracle, or on which side of both."""
    own, baseline, oracle = (run.replica_hours for run in cheapest)
    best = f"the cheapest baseline, {cheapest.baseline.scaler}"
    if closed is not None:
        part = percent(closed)
        return f"{OWN} closes {part} of the gap between the cheapest baseline and the oracle"
    if own < oracle:
        return f"{OWN} takes fewer replica-hours ({own:,.2f}) than the oracle ({oracle:,.2f})"
    if own > baseline:
        return f"{OWN} takes more replica-hours ({own:,.2f}) than {best} ({baseline:,.2f})"
    return f"there is no gap to close: {best}, takes what the oracle takes ({oracle:,.2f} h)"
