"""The latency model fitted to designed experiments, with the means to say what they do not show.

    TTFT of a prompt alone = overhead + per_step * steps + per_prefill_token * uncached
                           + per_attended_token * pairs,      steps = ceil(uncached / step tokens)
    a decoding step        = per_step + per_sequence * batch + per_kv_token * context tokens

All rows are solved together (`least_squares`), so `per_step_s` is what both phases agree on, and
what a request takes besides steps does not pass for one. `step tokens`, the engine's budget of a
step, is the candidate that leaves the least error.

A term whose 95 % interval reaches 0 is left out, the least sure one first, and the others are
fitted anew. Then predictions are made at the engine's own limits, not at those of the experiments:
for the longest prompt, for a step alone, of all sequences, and of a full KV cache. Where one may be
off by more than `MOST_DOUBT`, the data do not support the term that brings the most of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import quantiles
from typing import TypeAlias

from headrace.core.durations import small_in_words
from headrace.core.latency import LatencyProfile, Work, attended_pairs
from headrace.core.profile_fit import TERMS
from headrace.core.quantities import percent
from headrace.engine_model.calibration_table import (
    OVERHEAD,
    CalibrationTable,
    DecodePoint,
    Extent,
    PromptPoint,
)
from headrace.engine_model.least_squares import robust_sigma, solve
from headrace.engine_model.measured import Interval, Residuals
from headrace.engine_model.noise import USUAL, Noise, learned
from headrace.engine_model.step_budget import likeliest_budget

Noises: TypeAlias = tuple[Noise, Noise]
"""Of prefill and of decode."""

MOST_DOUBT = 0.25
"""Share of a prediction at the engine's limits by which a term may be off and still be written."""
MOST_HIDDEN = 0.15
"""The same of a term that would be written as 0, since it was not told from it."""
MOST_MEDIAN_ERROR = 0.25
"""A fit that misses half of its own experiments by more describes another engine."""
SURE = 0.03
"""A term whose interval reaches further from it, as a share, has a note that says how far."""
_PASSES = 4
_SEARCHES = 2
"""For the step's budget: with the usual noise, then with the noise that was found."""
_WORTH_STEPS = 0.8
"""Share of the deviations that several steps for a prompt must leave, or it was one; and that a
budget of any size must leave of what the best power of two leaves."""
_STEP_TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A term that the data do not support: what is known, and what would show it."""

    term: str
    known: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.term}: {self.known}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Fit:
    """The model with its intervals. It may be written if `doubts` is empty."""

    coefficients: tuple[float, float, float, float, float]
    """In the order of `TERMS`."""
    overhead_s: float
    prefill_step_tokens: int | None
    intervals: dict[str, Interval]
    residuals: Residuals
    errors: tuple[tuple[str, float, float], ...]
    """Of each experiment: its title, measured and fitted seconds."""
    doubts: tuple[Doubt, ...]
    covariance: dict[tuple[int, int], float]
    """By column, of all terms and then the overhead, before one was left out."""
    noises: Noises
    """How far measurements are off, of prefill and of decode."""

    @property
    def latency(self) -> LatencyProfile:
        """As the model that predicts."""
        return LatencyProfile("calibrated", "fit", *self.coefficients)


def fit(
    prefills: Sequence[PromptPoint], decodes: Sequence[DecodePoint], extent: Extent
) -> Fit | tuple[Doubt, ...]:
    """Fit what was measured; doubts alone where no fit can be made at all."""
    lacking = tuple(_lacking(prefills, decodes, extent))
    if lacking:
        return lacking
    table = CalibrationTable(prefills, decodes, extent)
    best: _Reduced | None = None
    for _ in range(_SEARCHES):
        noises = (USUAL, USUAL) if best is None else best.noises
        best = _best(table, noises) or best
    if best is None:
        return (
            Doubt(
                "per_prefill_token_s",
                "the time to the first token does not grow with the prompt",
                "measure longer prompts, each with a text of its own so that none is cached",
            ),
        )
    return _judged(table, best)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """A solution without the terms that are not told from 0."""

    step_tokens: int | None
    rows: list[list[float]]
    values: list[float]
    """By column; 0 for what was left out."""
    bounds: list[tuple[float, float]]
    """By column; of what was left out as it was when it left."""
    covariance: dict[tuple[int, int], float]
    """Of all terms, before one was left out."""
    noises: Noises


def _best(table: CalibrationTable, noises: Noises) -> _Reduced | None:
    """The likeliest of one step for a prompt, of budgets that are a power of two, and of others."""
    sigma = table.sigma_s(noises)
    budgets = [each for each in _STEP_TOKENS if each < table.longest]
    rows = table.rows(None)
    other = likeliest_budget(
        [point.uncached_tokens for point in table.prefills],
        [[row[i] for i in table.terms if i] for row in rows],
        [row[0] for row in rows[len(table.prefills) :]],
        table.observed,
        sigma,
    )
    found = [(_misfit(table, None, sigma), None)]
    # Of so many candidates one is a little better by chance.
    found += [(_misfit(table, each, sigma) / _WORTH_STEPS, each) for each in budgets]
    if other is not None and other not in budgets:
        found.append((_misfit(table, other, sigma) / _WORTH_STEPS**2, other))
    for _, step_tokens in sorted(found, key=lambda each: each[0]):
        reduced = _reduced(table, step_tokens)
        if reduced is not None:
            return reduced
    return None


def _misfit(table: CalibrationTable, step_tokens: int | None, sigma: Sequence[float]) -> float:
    """Deviations in sum, not squared: a few rows that are far off do not decide."""
    columns = [[row[i] for i in table.terms] for row in table.rows(step_tokens)]
    solution = solve(columns, table.observed, robust_sigma(columns, table.observed, sigma))
    if solution is None:
        return inf
    off = _off(columns, table.observed, solution.values)
    return sum(abs(each) / s for each, s in zip(off, sigma, strict=True))


def _off(
    columns: Sequence[Sequence[float]], observed: Sequence[float], values: Sequence[float]
) -> list[float]:
    return [
        y - sum(x * b for x, b in zip(row, values, strict=True))
        for row, y in zip(columns, observed, strict=True)
    ]


def _reduced(table: CalibrationTable, step_tokens: int | None) -> _Reduced | None:
    rows, kept = table.rows(step_tokens), table.terms
    bounds = [(0.0, 0.0)] * (OVERHEAD + 1)
    sigma, agreeing, noises = _learned_sigma(table, [[row[i] for i in kept] for row in rows])
    covariance: dict[tuple[int, int], float] = {}
    whole: dict[int, tuple[float, float]] = {}
    while True:
        columns = [[row[i] for i in kept] for row in rows]
        solution = solve(columns, table.observed, sigma, agreeing)
        if solution is None:
            return None
        covariance = covariance or {
            (i, j): solution.covariance[a][b]
            for a, i in enumerate(kept)
            for b, j in enumerate(kept)
        }
        margins = [
            table.students(i) * spread for i, spread in zip(kept, solution.spreads, strict=True)
        ]
        whole = whole or {
            i: (value - margin, value + margin)
            for i, value, margin in zip(kept, solution.values, margins, strict=True)
        }
        unsure = _least_sure(solution.values, margins, kept)
        for place, i in enumerate(kept):
            value, margin = solution.values[place], margins[place]
            # Below 0 it is noise, and of 0 no more is known than the margin. What was left out
            # may be there all the same, and then the others are what they were beside it.
            low, high = whole[i] if unsure is None else (inf, -inf)
            bounds[i] = (
                max(min(value - margin, low), 0.0),
                max(max(value, 0.0) + margin, high),
            )
        if unsure is None:
            values = [0.0] * (OVERHEAD + 1)
            for place, i in enumerate(kept):
                values[i] = solution.values[place]
            return _Reduced(step_tokens, rows, values, bounds, covariance, noises)
        kept = [i for i in kept if i != unsure]
        if 1 not in kept and 2 not in kept:
            return None


def _learned_sigma(
    table: CalibrationTable, columns: list[list[float]]
) -> tuple[list[float], float, Noises]:
    """What each row is off, learned for each phase by itself, and the share that agrees.

    A time to the first token is noisier than the slope through the tokens of many streams.
    """
    noises: Noises = (USUAL, USUAL)
    observed = table.observed
    for _ in range(_PASSES):
        sigma = table.sigma_s(noises)
        wider = robust_sigma(columns, observed, sigma)
        solution = solve(columns, observed, wider)
        if solution is None:
            break
        off = _off(columns, observed, solution.values)
        left = [1.0 - each for each in solution.leverages(columns, wider)]
        prefill, decode = (
            learned(
                [off[i] for i in phase],
                [table.ticks_s[i] for i in phase],
                [observed[i] for i in phase],
                [left[i] for i in phase],
            )
            for phase in table.phases
        )
        noises = (prefill, decode)
    sigma = table.sigma_s(noises)
    wider = robust_sigma(columns, observed, sigma)
    pulled = sum(w > 1.0001 * s for w, s in zip(wider, sigma, strict=True))
    return wider, max(1 - pulled / len(observed), 0.5), noises


def _least_sure(
    values: Sequence[float], margins: Sequence[float], kept: Sequence[int]
) -> int | None:
    """The column whose interval reaches 0, the furthest from being told from it first."""
    found, least = None, 1.0
    for value, margin, i in zip(values, margins, kept, strict=True):
        sureness = value / margin if margin > 0.0 else inf if value > 0.0 else -inf
        if sureness <= least:
            found, least = i, sureness
    return found


def _judged(table: CalibrationTable, reduced: _Reduced) -> Fit:
    values = reduced.values
    fitted = [sum(x * b for x, b in zip(row, values, strict=True)) for row in reduced.rows]
    errors = tuple(zip(table.titles, table.observed, fitted, strict=True))
    residuals = _residuals(errors)
    coefficients = (values[0], values[1], values[2], values[3], values[4])
    doubts = list(_doubts(table, reduced, coefficients))
    if residuals.median_error > MOST_MEDIAN_ERROR:
        doubts.append(
            Doubt(
                "all terms",
                f"half of the experiments are off by {percent(residuals.median_error)} or more, as "
                f"{residuals.worst}",
                "measure again while nothing else uses the machine; an engine that stays like "
                "this does not follow the model",
            )
        )
    return Fit(
        coefficients,
        values[OVERHEAD],
        reduced.step_tokens,
        _intervals(table, reduced),
        residuals,
        errors,
        tuple(doubts),
        reduced.covariance,
        reduced.noises,
    )


def _residuals(errors: Sequence[tuple[str, float, float]]) -> Residuals:
    off = sorted((abs(fitted - seen) / seen, title) for title, seen, fitted in errors)
    sizes = [size for size, _ in off]
    tenths = quantiles(sizes, n=10, method="inclusive")
    worst_error, worst = off[-1]
    return Residuals(len(off), tenths[4], tenths[8], worst_error, worst)


def _intervals(table: CalibrationTable, reduced: _Reduced) -> dict[str, Interval]:
    intervals: dict[str, Interval] = {}
    for i, term in enumerate((*TERMS, "request_overhead_s")):
        low, high = reduced.bounds[i]
        note = ""
        if i not in table.terms:
            note = "one sequence at a time: it is a part of per_step_s"
        elif reduced.values[i] == 0.0:
            note = "within reach of 0: taken for 0"
        elif i < OVERHEAD:
            value = reduced.values[i]
            reaches = max(high - value, value - low) / value
            note = f"not surer than ±{percent(reaches)}" if reaches > SURE else ""
        intervals[term] = Interval(low, high, note)
    return intervals


def _doubts(
    table: CalibrationTable,
    reduced: _Reduced,
    coefficients: tuple[float, float, float, float, float],
) -> list[Doubt]:
    """The terms for which a prediction at the engine's limits could be off by too much."""
    extent = table.extent
    context, sequences = float(extent.context_tokens), float(extent.sequences)
    works: tuple[tuple[Work, str], ...] = (
        ((1.0, 0.0, 0.0, 1.0, 0.0), "a step alone"),
        (
            (1.0, context, attended_pairs(context, 0), 0.0, 0.0),
            f"a prompt of {extent.context_tokens:,} tokens",
        ),
        ((1.0, 0.0, 0.0, sequences, 0.0), f"a step of {extent.sequences:,} sequences"),
        (
            (1.0, 0.0, 0.0, sequences, float(extent.kv_tokens)),
            f"a step that reads {extent.kv_tokens:,} tokens of KV cache",
        ),
    )
    doubts: dict[int, Doubt] = {}
    for work, where in works:
        there_s = sum(b * x for b, x in zip(coefficients, work, strict=True))
        off_s = _off_s(table, reduced, work)
        hidden_s = sum(
            reduced.bounds[i][1] * x for i, x in enumerate(work) if reduced.values[i] == 0.0
        )
        if off_s > MOST_DOUBT * there_s or hidden_s > MOST_HIDDEN * there_s:
            off_s = max(off_s, hidden_s)
            term = _most_doubtful(reduced, work)
            share = off_s / there_s if there_s > 0.0 else inf
            doubts.setdefault(
                term, Doubt(TERMS[term], *_reason(table, reduced, term, where, share))
            )
    return list(doubts.values())


def _off_s(table: CalibrationTable, reduced: _Reduced, work: Work) -> float:
    """By how much the prediction for `work` may be off, with 95 %.

    Terms may be off against each other and still predict well together. What was left out is in
    doubt as it was before.
    """
    variance = sum(
        work[i] * work[j] * c
        for (i, j), c in reduced.covariance.items()
        if i < OVERHEAD and j < OVERHEAD
    )
    return table.students(1 if work[1] else 0) * max(variance, 0.0) ** 0.5


def _most_doubtful(reduced: _Reduced, work: Work) -> int:
    """The term that brings the most of it."""

    def brings(term: int) -> float:
        low, high = reduced.bounds[term]
        return (high - low) * work[term]

    return max(range(OVERHEAD), key=brings)


def _reason(
    table: CalibrationTable, reduced: _Reduced, term: int, where: str, share: float
) -> tuple[str, str]:
    extent = table.extent
    low, high = reduced.bounds[term]
    widest = max(table.decodes, key=lambda point: point.batch).batch
    deepest = max(point.context_tokens for point in table.decodes)
    ends = f"{small_in_words(low)} and {small_in_words(high)}"
    known = f"it lies between {ends}, and {where} may be off by {_times(share)}"
    prompts = (
        f"prompts went up to {table.longest:,} tokens: measure longer ones (a larger --budget)"
        if table.longest < 0.7 * extent.context_tokens
        else f"the context limit of {extent.context_tokens:,} tokens is too short to show it: "
        "start the engine with a longer one"
    )
    remedy = (
        "measure again while nothing else uses the machine",
        prompts,
        prompts,
        f"up to {widest:,} streams ran side by side: measure more of them (--max-batch)",
        f"steps read up to {deepest:,.0f} tokens: measure longer contexts (a larger --budget)",
    )[term]
    return known, remedy


def _times(share: float) -> str:
    return percent(share) if share < 2 else f"{share:.0f} times" if share < inf else "all of it"


def _lacking(
    prefills: Sequence[PromptPoint], decodes: Sequence[DecodePoint], extent: Extent
) -> list[Doubt]:
    """What must be there for any fit."""
    lacking: list[Doubt] = []
    lengths = [point.uncached_tokens for point in prefills if not point.cached_tokens]
    if not lengths or max(lengths) < 4 * min(lengths):
        lacking.append(
            Doubt(
                "per_prefill_token_s",
                f"{len(lengths)} prompts, none four times as long as another",
                "measure prompts from short to the context limit",
            )
        )
    if not decodes:
        lacking.append(
            Doubt(
                "per_step_s",
                "no decoding step was seen",
                "the engine must stream its tokens one by one",
            )
        )
    elif extent.sequences > 1 and max(point.batch for point in decodes) < 2:
        lacking.append(
            Doubt(
                "per_sequence_s",
                "no two streams ran side by side",
                "measure with --max-batch 4 or more",
            )
        )
    return lacking
