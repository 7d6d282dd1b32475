"""Rates over time: how many requests arrive in each step of a week, and how long they are.

    start_s,requests_per_s,mean_input_tokens,mean_output_tokens
    0,143.7167,355.4,292.5
    600,157.4767,364.9,285.5

A step lasts until the next one begins, the last one as long as the one before it. The columns may
stand in any order and others beside them. The rate holds within a step, as it stands in the file: a
jump there is a jump here.

Within a step arrivals are a renewal process with Gamma gaps of coefficient of variation `gap_cv`
(1 is Poisson; production traffic is burstier, see `arrivals`). What comes in dt seconds has

    mean = ∫ rate dt        variance = gap_cv² * mean

and `arrivals_of` gives the single requests of the same process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from random import Random

from headrace.core.quantities import parse_number
from headrace.traffic.arrivals import RateSegment, at_rates, gamma_arrivals
from headrace.traffic.intake import MAX_SPAN_S, MAX_TOKENS
from headrace.traffic.json_record import shown
from headrace.traffic.length_spread import LengthSpread
from headrace.traffic.trace import TraceError, TraceRequest, not_utf8

COLUMNS = ("start_s", "requests_per_s", "mean_input_tokens", "mean_output_tokens")
DEFAULT_GAP_CV = 2.0
"""Of the gaps between arrivals: ServeGen (Xiang et al., 2025) finds 1 to 2 and more for most models
within minutes; the upper end is taken."""
LAST_STEP_S = 600.0
"""Length of the step of a file that has only one."""
MOST_STEPS = 2_000_000
MOST_REQUESTS_PER_S = 1e7
"""Above any service of today: catches a wrong column."""


@dataclass(frozen=True, slots=True)
class RateStep:
    """From `start_s` on: requests per second, and the mean tokens of prompts and answers."""

    start_s: float
    requests_per_s: float
    mean_input_tokens: float
    mean_output_tokens: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Steps in order of time, the first at 0 s; `end_s` is when the last one ends."""

    name: str
    steps: Sequence[RateStep]
    end_s: float

    def scaled(self, factor: float) -> Rates:
        """The same with `factor` times as many requests."""
        steps = [
            RateStep(
                step.start_s,
                step.requests_per_s * factor,
                step.mean_input_tokens,
                step.mean_output_tokens,
            )
            for step in self.steps
        ]
        return Rates(self.name, steps, self.end_s)

    def piece(self, begin_s: float, duration_s: float) -> Rates:
        """What lies between `begin_s` and `begin_s + duration_s`, by whole steps, from 0 s on.

        Raises:
            ValueError: no step begins there.
        """
        end_s = begin_s + duration_s
        chosen = [step for step in self.steps if begin_s <= step.start_s < end_s]
        if not chosen:
            raise ValueError(f"{self.name} has no step from {begin_s:g} s to {end_s:g} s")
        zero_s = chosen[0].start_s
        steps = [
            RateStep(
                step.start_s - zero_s,
                step.requests_per_s,
                step.mean_input_tokens,
                step.mean_output_tokens,
            )
            for step in chosen
        ]
        return Rates(self.name, steps, min(end_s, self.end_s) - zero_s)

    def segments(self) -> list[RateSegment]:
        """The steps as pieces of a process with a changing rate."""
        ends = [*(step.start_s for step in self.steps[1:]), self.end_s]
        return [
            RateSegment(end_s - step.start_s, step.requests_per_s, step.requests_per_s)
            for step, end_s in zip(self.steps, ends, strict=True)
        ]


def read_rates(name: str, lines: Iterable[str]) -> Rates:
    """Read a file of rates.

    Args:
        name: what errors call it: the file's path.
        lines: the text; empty lines say nothing.

    Raises:
        TraceError: one clear line with file, line number, what was expected and what was found.
    """
    order: list[int] = []
    steps: list[RateStep] = []
    first_s = 0.0
    for number, text in _numbered(name, lines):
        cells = [cell.strip().strip('"') for cell in text.split(",")]
        if not order:
            order = _order(name, number, cells)
            continue
        if len(cells) <= max(order):
            raise TraceError(name, number, f"expected {max(order) + 1} values, found {len(cells)}")
        step = _step(name, number, [cells[place] for place in order])
        if not steps:
            first_s = step.start_s
        elif step.start_s - first_s <= steps[-1].start_s:
            problem = f"expected a start_s after the one before, found {step.start_s:g}"
            raise TraceError(name, number, f"{problem}; sort the file by time")
        if len(steps) >= MOST_STEPS:
            raise TraceError(name, number, f"expected at most {MOST_STEPS:,} steps; cut the file")
        steps.append(
            RateStep(
                step.start_s - first_s,
                step.requests_per_s,
                step.mean_input_tokens,
                step.mean_output_tokens,
            )
        )
    return _checked(name, steps)


def arrivals_of(
    rates: Rates, spread: LengthSpread, seed: int, gap_cv: float = DEFAULT_GAP_CV
) -> Iterator[TraceRequest]:
    """Single requests, in order of arrival: the same ones for the same seed."""
    rng = Random(f"rates {seed}")
    starts = [step.start_s for step in rates.steps]
    for arrival_s in at_rates(rates.segments(), gamma_arrivals(1.0, gap_cv, rng)):
        step = rates.steps[bisect_right(starts, arrival_s) - 1]
        input_share, output_share = spread.draw(rng)
        yield TraceRequest(
            arrival_s,
            min(max(round(step.mean_input_tokens * input_share), 1), MAX_TOKENS),
            min(max(round(step.mean_output_tokens * output_share), 1), MAX_TOKENS),
        )


def _numbered(name: str, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        for number, text in enumerate(lines, 1):
            stripped = text.removeprefix("\ufeff").strip()
            if stripped:
                yield number, stripped
    except UnicodeDecodeError as error:
        raise not_utf8(name, number, error) from None


def _order(name: str, line: int, header: Sequence[str]) -> list[int]:
    """Where each of `COLUMNS` stands."""
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        problem = f"expected the columns {','.join(COLUMNS)}"
        problem += f", found {shown(','.join(header))}"
        if "TIMESTAMP" in header:
            problem += "; a trace of single requests is for --trace"
        raise TraceError(name, line, problem)
    return [list(header).index(column) for column in COLUMNS]


def _step(name: str, line: int, cells: Sequence[str]) -> RateStep:
    values: list[float] = []
    for column, cell in zip(COLUMNS, cells, strict=True):
        try:
            value = parse_number(cell)
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            raise TraceError(name, line, f"expected {column} to be a number, found {shown(cell)}")
        values.append(value)
    step = RateStep(*values)
    limits = [(0.0, MOST_REQUESTS_PER_S)]
    if step.requests_per_s > 0.0:
        limits += [(1.0, MAX_TOKENS)] * 2
    for column, value, (least, most) in zip(COLUMNS[1:], values[1:], limits, strict=False):
        if not least <= value <= most:
            problem = f"expected {column} from {least:g} to {most:g}, found {value:g}"
            raise TraceError(name, line, problem)
    if step.requests_per_s > 0.0:
        return step
    # Where nothing arrives, lengths mean nothing; ones keep all that divides by them safe.
    return RateStep(step.start_s, 0.0, max(values[2], 1.0), max(values[3], 1.0))


def _checked(name: str, steps: Sequence[RateStep]) -> Rates:
    if not steps:
        problem = f"expected the columns {','.join(COLUMNS)} and a line for each step"
        raise TraceError(name, None, f"{problem}; the file has none")
    if not any(step.requests_per_s > 0.0 for step in steps):
        raise TraceError(name, None, "expected requests_per_s above 0 somewhere, found only 0")
    last_s = steps[-1].start_s - steps[-2].start_s if len(steps) > 1 else LAST_STEP_S
    end_s = steps[-1].start_s + last_s
    if end_s > MAX_SPAN_S:
        days = MAX_SPAN_S / 86_400
        raise TraceError(name, None, f"expected at most {days:.0f} days; is start_s in seconds?")
    return Rates(name, steps, end_s)
