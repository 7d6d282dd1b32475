"""A sweep in the terminal: the answer, a line for each rate, and why it is judged so."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from headrace.bench.figures.scores import Scores
from headrace.bench.report.definitions import DUE, GOODPUT, SHORT
from headrace.bench.report.run_table import columns_that_fit, note, percent
from headrace.bench.sweep.search import SweepResult
from headrace.bench.sweep.step import INVALID, MET, NOT_MET, UNDECIDED, Look, Step
from headrace.core.durations import in_words

STEP_HEADS = (
    "requests/s",
    "targets",
    "runs",
    "goodput",
    "between",
    "goodput/s",
    "TTFT p50",
    "TTFT p99",
    "TPOT p50",
    "TPOT p99",
    "out tok/s",
)
_DISPENSABLE = (8, 10, 6, 5, 2)
"""Columns that a narrow terminal leaves out, this first."""
_STYLES = {MET: "green", NOT_MET: "red", UNDECIDED: "yellow", INVALID: "magenta"}
SHOWN = (
    "shown: with the confidence of the answer, by longer runs; what is not is a first look, whose "
    "runs may be too short for the queue"
)
INTERVAL = (
    "between: the 95 % interval of the goodput share, of as many requests as would tell as much "
    "if each were drawn alone"
)


def sweep_table(result: SweepResult, width: int) -> RenderableType:
    """Everything of a sweep, in `width` characters."""
    return Group(*_parts(result, width))


def look_line(look: Look) -> str:
    """A look on the way up, as a line of progress."""
    counts = look.trial.tiers.values()
    met, judged = sum(each.met for each in counts), sum(each.judged for each in counts)
    late = "" if look.is_valid else ", and the generator was late"
    then = "on to twice the rate" if look.is_met else "no further up"
    return f"{look.rate_rps:.4g} requests/s: a look, {met:,} of {judged:,} met{late}; {then}"


def step_line(step: Step) -> str:
    """A rate that was judged, as a line of progress; rate 0 is one request at a time."""
    if not step.rate_rps:
        # Only a miss decides anything: nobody asks for so many that they would show it met.
        met = f"{step.scores.met:,} of {step.scores.judged:,} met"
        found = f"not met ({step.reason})" if step.state == NOT_MET else f"{met}, not out of reach"
        return f"one request at a time: {found}{_latency(step.scores)}"
    chance = step.chance or 0.0
    shown = f", shown with a chance of {chance * 100:.2g} % to be wrong" if step.is_shown else ""
    return f"{step.rate_rps:.4g} requests/s: {step.state}{shown} ({step.reason})"


def _latency(scores: Scores) -> str:
    named = (("TTFT", scores.ttft_s), ("TPOT", scores.tpot_s), ("E2E", scores.e2e_s))
    return "".join(f", {name} p50 {in_words(each.p50)}" for name, each in named if each.count)


def lines_of(result: SweepResult) -> Iterator[str]:
    """What the table does not tell: the look without load, and why a rate is not decided."""
    if result.alone is not None:
        yield step_line(result.alone)
    for step in result.steps:
        if step.state in {UNDECIDED, INVALID}:
            yield step_line(step)


def step_cells(step: Step) -> tuple[str, ...]:
    """A rate's figures, as `STEP_HEADS` names them."""
    scores, interval = step.scores, step.goodput_interval
    ttft, tpot = scores.ttft_s, scores.tpot_s
    return (
        f"{step.rate_rps:.4g}",
        f"{step.state}, shown" if step.is_shown else step.state,
        f"{len(step.trials)}",
        percent(step.goodput_share),
        f"{interval.low * 100:.1f}–{interval.high * 100:.1f} %",
        f"{scores.goodput_rps:.4g}",
        *(in_words(each) if ttft.count else "–" for each in (ttft.p50, ttft.p99)),
        *(in_words(each) if tpot.count else "–" for each in (tpot.p50, tpot.p99)),
        f"{scores.output_tokens_per_s:,.0f}",
    )


def _parts(result: SweepResult, width: int) -> Iterator[RenderableType]:
    yield Text(result.headline, "bold green" if result.exit_code == 0 else "bold red")
    yield _table(result, width)
    said = (SHORT, GOODPUT, DUE, INTERVAL, SHOWN)
    yield note(" ".join(f"{each[0].upper()}{each[1:]}." for each in said))
    for line in lines_of(result):
        yield Padding(Text(line), (0, 0, 0, 2))


def _table(result: SweepResult, width: int) -> Table:
    rows = [step_cells(step) for step in result.steps]
    shown = columns_that_fit(STEP_HEADS, rows, _DISPENSABLE, width)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place in shown:
        table.add_column(STEP_HEADS[place], justify="left" if place == 1 else "right", no_wrap=True)
    for step, row in zip(result.steps, rows, strict=True):
        bold = "bold " if step.rate_rps == result.highest_met_rps else ""
        table.add_row(*(row[place] for place in shown), style=f"{bold}{_STYLES[step.state]}")
    return table
