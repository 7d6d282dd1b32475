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

from headrace.core.durations import small_in_words
from headrace.core.latency import Work, attended_pairs
from headrace.core.profile_fit import TERMS
from headrace.engine_model.least_squares import robust_sigma, solve, student_975
from headrace.engine_model.measured import Interval, Residuals, prefill_steps

OVERHEAD = len(TERMS)
"""The column of what a request takes besides steps."""
MOST_DOUBT = 0.25
"""Share of a prediction at the engine's limits by which a term may be off and still be written."""
MOST_MEDIAN_ERROR = 0.25
"""A fit that misses half of its own experiments by more describes another engine."""
NOISE_RATIO = 0.004
NOISE_S = 0.0005
"""A measured time is taken to be off by its share and by this, the tick of event loops."""
_DECODE_TERMS = frozenset({0, 3, 4})
_COLUMNS_OF_A_PHASE = 3
_LEAST_SCALE = 0.05
_PASSES = 4
_WORTH_STEPS = 0.8
"""Share of the deviations that several steps for a prompt must leave, or it was one."""
_STEP_TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """A prompt alone on the engine, as it is when nothing else disturbs it."""

    uncached_tokens: int
    cached_tokens: int
    ttft_s: float

    @property
    def title(self) -> str:
        """What was done, in words."""
        if self.cached_tokens:
            return f"prefill {self.uncached_tokens:,} behind {self.cached_tokens:,} cached"
        return f"prefill {self.uncached_tokens:,}"


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """Streams side by side, as they are when nothing else disturbs them.

    `context_tokens` is the sum over the streams in the middle of the time measured, `steps` how
    many steps that were.
    """

    batch: int
    context_tokens: float
    step_s: float
    steps: int

    @property
    def title(self) -> str:
        """What was done, in words."""
        return f"decode {self.batch} × {self.context_tokens / self.batch:,.0f} of context"


@dataclass(frozen=True, slots=True)
class Extent:
    """The most that one prompt or one step can bring at this engine."""

    context_tokens: int
    """Of one request."""
    sequences: int
    """In one step."""
    kv_tokens: int
    """Read by one step."""


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


def fit(
    prefills: Sequence[PrefillPoint], decodes: Sequence[DecodePoint], extent: Extent
) -> Fit | tuple[Doubt, ...]:
    """Fit what was measured; doubts alone where no fit can be made at all."""
    lacking = tuple(_lacking(prefills, decodes, extent))
    if lacking:
        return lacking
    table = _Table(prefills, decodes, extent)
    best: _Reduced | None = None
    for step_tokens in (None, *_STEP_TOKENS):
        if step_tokens is not None and step_tokens >= table.longest:
            continue
        reduced = _reduced(table, step_tokens)
        if reduced is None:
            continue
        # Of nine candidates one is a little better by chance.
        needed = _WORTH_STEPS if best is not None and best.step_tokens is None else 1.0
        if best is None or reduced.misfit < needed * best.misfit:
            best = reduced
    if best is None:
        return (
            Doubt(
                "per_prefill_token_s",
                "the time to the first token does not grow with the prompt",
                "measure longer prompts, each with a text of its own so that none is cached",
            ),
        )
    return _judged(table, best)


class _Table:
    """Rows of the least squares, without the column that depends on the step's budget."""

    def __init__(
        self, prefills: Sequence[PrefillPoint], decodes: Sequence[DecodePoint], extent: Extent
    ) -> None:
        self.prefills, self.decodes, self.extent = prefills, decodes, extent
        self.longest = max(point.uncached_tokens for point in prefills)
        self.observed = [p.ttft_s for p in prefills] + [d.step_s for d in decodes]
        self.titles = [p.title for p in prefills] + [d.title for d in decodes]
        self.sigma = [_sigma(p.ttft_s, NOISE_S) for p in prefills]
        # The slope of a line through so many ticks.
        self.sigma += [_sigma(d.step_s, NOISE_S * 12**0.5 / d.steps**1.5) for d in decodes]

    def rows(self, step_tokens: int | None) -> list[list[float]]:
        """All columns: the terms, then the overhead."""
        rows = [
            [
                float(prefill_steps(p.uncached_tokens, step_tokens)),
                float(p.uncached_tokens),
                attended_pairs(p.uncached_tokens, p.cached_tokens),
                *(0.0, 0.0, 1.0),
            ]
            for p in self.prefills
        ]
        rows += [[1.0, 0.0, 0.0, float(d.batch), d.context_tokens, 0.0] for d in self.decodes]
        return rows

    def misfit(self, rows: list[list[float]], values: list[float]) -> float:
        """Deviations in sum, not squared: a few rows that are far off do not decide."""
        fitted = (sum(x * b for x, b in zip(row, values, strict=True)) for row in rows)
        seen = zip(fitted, self.observed, self.sigma, strict=True)
        return sum(abs(there - measured) / sigma for there, measured, sigma in seen)

    def students(self, term: int) -> float:
        """Student's quantile for a term: so many rows of its phase are more than needed."""
        rows = self.decodes if term in _DECODE_TERMS else self.prefills
        return student_975(max(len(rows) - _COLUMNS_OF_A_PHASE, 3))

    @property
    def terms(self) -> list[int]:
        """Columns worth a coefficient: with one sequence at a time, a step is its sequence."""
        return [i for i in range(OVERHEAD + 1) if i != 3 or self.extent.sequences > 1]


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
    misfit: float


def _reduced(table: _Table, step_tokens: int | None) -> _Reduced | None:
    rows, kept = table.rows(step_tokens), table.terms
    bounds = [(0.0, 0.0)] * (OVERHEAD + 1)
    sigma, agreeing = _learned_sigma(table, [[row[i] for i in kept] for row in rows])
    covariance: dict[tuple[int, int], float] = {}
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
        unsure = _least_sure(solution.values, margins, kept)
        for place, i in enumerate(kept):
            value, margin = solution.values[place], margins[place]
            # Below 0 it is noise, and of 0 no more is known than the margin.
            bounds[i] = (max(value - margin, 0.0), max(value, 0.0) + margin)
        if unsure is None:
            values = [0.0] * (OVERHEAD + 1)
            for place, i in enumerate(kept):
                values[i] = solution.values[place]
            misfit = table.misfit(rows, values)
            return _Reduced(step_tokens, rows, values, bounds, covariance, misfit)
        kept = [i for i in kept if i != unsure]
        if 1 not in kept and 2 not in kept:
            return None


def _learned_sigma(table: _Table, columns: list[list[float]]) -> tuple[list[float], float]:
    """What each row is off, learned for each phase by itself, and the share that agrees.

    A time to the first token is noisier than the slope through the tokens of many streams.
    """
    count, prefills = len(table.observed), len(table.prefills)
    sigma = wider = table.sigma
    agreeing = 1.0
    for _ in range(_PASSES):
        wider = robust_sigma(columns, table.observed, sigma)
        solution = solve(columns, table.observed, wider)
        if solution is None:
            break
        fitted = (sum(x * b for x, b in zip(row, solution.values, strict=True)) for row in columns)
        off = [(y - f) / w for y, f, w in zip(table.observed, fitted, wider, strict=True)]
        pulled = [w > 1.0001 * s for w, s in zip(wider, sigma, strict=True)]
        agreeing = max(1 - sum(pulled) / count, 0.5)
        for first, end in ((0, prefills), (prefills, count)):
            freedom = max(end - first - _COLUMNS_OF_A_PHASE, 1)
            scale = (sum(each**2 for each in off[first:end]) / freedom) ** 0.5 / agreeing
            scale = min(max(scale, _LEAST_SCALE), 1 / _LEAST_SCALE)
            sigma = [*sigma[:first], *(scale * s for s in sigma[first:end]), *sigma[end:]]
    return wider, agreeing


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


def _judged(table: _Table, reduced: _Reduced) -> Fit:
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
                f"half of the experiments are off by {residuals.median_error:.0%} or more, as "
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
    )


def _residuals(errors: Sequence[tuple[str, float, float]]) -> Residuals:
    off = sorted((abs(fitted - seen) / seen, title) for title, seen, fitted in errors)
    sizes = [size for size, _ in off]
    tenths = quantiles(sizes, n=10, method="inclusive")
    worst_error, worst = off[-1]
    return Residuals(len(off), tenths[4], tenths[8], worst_error, worst)


def _intervals(table: _Table, reduced: _Reduced) -> dict[str, Interval]:
    intervals: dict[str, Interval] = {}
    for i, term in enumerate((*TERMS, "request_overhead_s")):
        low, high = reduced.bounds[i]
        note = ""
        if i not in table.terms:
            note = "one sequence at a time: it is a part of per_step_s"
        elif reduced.values[i] == 0.0:
            note = "not told from 0: taken for 0"
        intervals[term] = Interval(low, high, note)
    return intervals


def _doubts(
    table: _Table, reduced: _Reduced, coefficients: tuple[float, float, float, float, float]
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
        if off_s > MOST_DOUBT * there_s:
            term = _most_doubtful(reduced, work)
            share = off_s / there_s if there_s > 0.0 else inf
            doubts.setdefault(
                term, Doubt(TERMS[term], *_reason(table, reduced, term, where, share))
            )
    return list(doubts.values())


def _off_s(table: _Table, reduced: _Reduced, work: Work) -> float:
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
    table: _Table, reduced: _Reduced, term: int, where: str, share: float
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
    return f"{share:.0%}" if share < 2 else f"{share:.0f} times" if share < inf else "all of it"


def _lacking(
    prefills: Sequence[PrefillPoint], decodes: Sequence[DecodePoint], extent: Extent
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


def _sigma(seconds: float, tick_s: float) -> float:
    return ((NOISE_RATIO * seconds) ** 2 + tick_s**2) ** 0.5
