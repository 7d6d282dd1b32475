"""What to measure again: where the next second makes the terms surest.

A term is as sure as its variance allows, as a share of the term itself or of the least that it can
matter. Each experiment lowers all variances by what its rows bring (a rank-one update of the
covariance), and costs seconds. The one that gains most for its seconds is taken, again and again,
until the time is filled:

    gain = sum over terms of the fall of log(1 + variance / target^2)

so that a term that cannot be had is not paid for by those that can (D-optimal designs with a floor;
Atkinson and Donev, Optimum Experimental Designs, ch. 11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log1p

from headrace.calibration.design import (
    SHORTEST_TOKENS,
    Experiment,
    Limits,
    PromptExperiment,
    QueueExperiment,
    StreamsExperiment,
    batches,
)
from headrace.calibration.design import cost_s as cost_of
from headrace.core.latency import LatencyProfile, attended_pairs
from headrace.core.profile_fit import TERMS
from headrace.engine_model.calibration import Fit
from headrace.engine_model.calibration_table import OVERHEAD, TICK_S, Extent, step_tick_s
from headrace.engine_model.measured import prefill_steps

TARGET = 0.006
"""Standard error, as a share of a term, below which more is worth little."""
_MATTERS = 0.01
"""Of a prediction at the engine's limits: what a term brings below it cannot matter."""
_UNIT = 0.02
"""Of the time, what one choice is to fill at least: short experiments come in bundles."""
_MOST_SHARE = 0.7
"""Of the time, what one experiment may take."""
_DEPTHS = 4
"""Contexts, each a quarter of the one before."""
_BATCHES = 4
_WATCHED_STEPS = (16, 64, 256)
_QUEUES = (16, 64, 256)
"""Prompts in a queue."""
_MOST_AT_ONCE = 16
_COUNTED = 2
"""Prompts one after the other, to count their steps."""
_COUNTED_SHARE = 0.5
"""Of the time, what that may take."""

Matrix = list[list[float]]


@dataclass(slots=True)
class _Row:
    """What one experiment shows, and how often it was seen."""

    work: tuple[float, ...]
    tick_s: float
    seconds: float
    repeats: int


@dataclass(slots=True)
class _Candidate:
    experiment: Experiment
    rows: list[_Row]
    cost_s: float


def refinement(
    repeats: dict[Experiment, int],
    limits: Limits,
    extent: Extent,
    found: Fit,
    seconds: float,
) -> tuple[Experiment, ...]:
    """Experiments for so many seconds: those done before, as often as `repeats` says, and others.

    The others are longer prompts, deeper contexts and longer looks at streams, as far as `limits`
    allows and one of them leaves time for more.
    """
    latency = found.latency
    by_the_token = latency
    if found.prefill_step_tokens is not None:  # a long prompt costs its steps, too
        token_s = latency.per_prefill_token_s + latency.per_step_s / found.prefill_step_tokens
        by_the_token = replace(latency, per_prefill_token_s=token_s)
    candidates = [
        _Candidate(each, _rows(each, latency, found, repeats.get(each, 0)), cost_s)
        for each in dict.fromkeys((*repeats, *_others(limits, found.prefill_step_tokens)))
        if (cost_s := _cost_s(each, by_the_token, found)) <= _MOST_SHARE * seconds
    ]
    scales = _scales(found, extent)
    covariance = [
        [found.covariance.get((i, j), 0.0) for j in range(OVERHEAD + 1)]
        for i in range(OVERHEAD + 1)
    ]
    chosen: list[Experiment] = []
    left_s = seconds
    counted = _counted(candidates, repeats, found, seconds)
    if counted is not None:
        chosen.append(counted.experiment)
        covariance = _with(counted, covariance, found)
        left_s -= counted.cost_s
    while fitting := [each for each in candidates if each.cost_s <= left_s]:
        best = max(fitting, key=lambda each: _gain(each, covariance, scales, found) / each.cost_s)
        times = max(1, min(ceil(_UNIT * seconds / best.cost_s), int(left_s / best.cost_s)))
        for _ in range(times):
            covariance = _with(best, covariance, found)
            for row in best.rows:
                row.repeats += 1
        chosen += [best.experiment] * times
        left_s -= times * best.cost_s
    return tuple(chosen)


def _counted(
    candidates: Sequence[_Candidate], repeats: Mapping[Experiment, int], found: Fit, seconds: float
) -> _Candidate | None:
    """The longest prompts whose steps can be counted, where no budget of a step was seen so far.

    Few prompts may be longer than it, and what a further step takes is then taken for pairs.
    """
    if found.prefill_step_tokens is not None:
        return None
    queues = [
        (each.experiment.tokens, -each.cost_s, each)
        for each in candidates
        if isinstance(each.experiment, QueueExperiment)
        and each.experiment.at_once == 1
        and each.cost_s <= _COUNTED_SHARE * seconds
    ]
    best = max(queues, key=lambda each: each[:2], default=None)
    return None if best is None or best[-1].experiment in repeats else best[-1]


def _cost_s(experiment: Experiment, by_the_token: LatencyProfile, found: Fit) -> float:
    if isinstance(experiment, QueueExperiment):  # its steps are counted apart
        seconds = found.latency.seconds(
            experiment.work(experiment.steps(found.prefill_step_tokens))
        )
        return seconds + found.overhead_s * experiment.prompts / experiment.at_once
    return cost_of([experiment], by_the_token) + found.overhead_s


def _others(limits: Limits, step_tokens: int | None) -> Iterator[Experiment]:
    tokens = limits.prompt_tokens
    while tokens > 2 * SHORTEST_TOKENS:
        yield PromptExperiment(tokens)
        yield PromptExperiment(tokens // 2, (tokens // 2 - tokens // 8,))
        tokens //= 2
    for batch in batches(limits.batch, _BATCHES):
        for steps in _WATCHED_STEPS:
            deepest = limits.context_tokens(batch, steps)
            contexts = (SHORTEST_TOKENS, *(deepest >> (2 * k) for k in range(_DEPTHS)))
            for context_tokens in contexts:
                fits = limits.holds(batch, context_tokens, steps)
                if fits and context_tokens >= SHORTEST_TOKENS:
                    yield StreamsExperiment(batch, context_tokens, steps)
    if limits.queues:
        yield from _queues(limits, step_tokens)


def _queues(limits: Limits, step_tokens: int | None) -> Iterator[QueueExperiment]:
    """Prompts of several lengths, of which some wait in the engine and none is preempted."""
    tokens = limits.prompt_tokens
    while tokens >= SHORTEST_TOKENS:
        counted = QueueExperiment(_COUNTED, tokens, 1)
        if limits.holds_queue(counted, step_tokens):
            yield counted
        for prompts in _QUEUES:
            at_once = min(_MOST_AT_ONCE, limits.batch - 1, prompts)
            while at_once >= 1:
                queue = QueueExperiment(prompts, tokens, at_once)
                if limits.holds_queue(queue, step_tokens):
                    yield queue
                    break
                at_once //= 2
        tokens //= 2


def _rows(experiment: Experiment, latency: LatencyProfile, found: Fit, repeats: int) -> list[_Row]:
    if isinstance(experiment, StreamsExperiment):
        batch = experiment.batch
        context = float(batch * experiment.context_tokens)
        step_s = latency.step_s(batch, context)
        work = (1.0, 0.0, 0.0, float(batch), context, 0.0)
        return [_Row(work, step_tick_s(experiment.steps), step_s, repeats)]
    if isinstance(experiment, QueueExperiment):
        in_all = experiment.work(experiment.steps(found.prefill_step_tokens))
        return [_Row((*in_all, 1.0), TICK_S, latency.seconds(in_all), repeats)]
    rows: list[_Row] = []
    before = 0
    for tokens in (experiment.tokens, *experiment.extensions):
        steps = float(prefill_steps(tokens, found.prefill_step_tokens))
        work = (steps, float(tokens), attended_pairs(tokens, before), 0.0, 0.0, 1.0)
        seconds = latency.prefill_s(tokens, before) + (steps - 1) * latency.per_step_s
        rows.append(_Row(work, TICK_S, seconds, repeats))
        before += tokens
    return rows


def _scales(found: Fit, extent: Extent) -> list[float]:
    """What the error of each term is measured by: itself, or the least of it that matters."""
    step, token, pair, sequence, kv_token = found.coefficients
    context, sequences = float(extent.context_tokens), float(extent.sequences)
    pairs = attended_pairs(context, 0)
    prompt_s = step + token * context + pair * pairs
    step_s = step + sequence * sequences + kv_token * extent.kv_tokens
    there = (step / 1.0, prompt_s / context, prompt_s / pairs, step_s / sequences)
    least = (*there, step_s / max(extent.kv_tokens, 1))
    return [
        max(value, _MATTERS * each, 1e-15)
        for value, each in zip(found.coefficients, least, strict=True)
    ]


def _precision(row: _Row, found: Fit) -> float:
    """What one more look adds to what is known of a row."""
    noise = found.noises[1 if row.work[OVERHEAD] == 0.0 else 0]

    def known(repeats: int) -> float:
        if not repeats:
            return 0.0
        return noise.sigma_s(row.tick_s / repeats**0.5, row.seconds) ** -2

    return known(row.repeats + 1) - known(row.repeats)


def _gain(candidate: _Candidate, covariance: Matrix, scales: Sequence[float], found: Fit) -> float:
    """By how much surer all terms get; rows of one experiment are counted one by one."""
    gain = 0.0
    for row in candidate.rows:
        along = _times(covariance, row.work)
        variance = sum(a * x for a, x in zip(along, row.work, strict=True))
        share = 1.0 / (1.0 / max(_precision(row, found), 1e-300) + variance)
        for term in range(len(TERMS)):
            unsure = covariance[term][term] / (TARGET * scales[term]) ** 2
            fall = share * along[term] ** 2 / (TARGET * scales[term]) ** 2
            gain += log1p(unsure) - log1p(max(unsure - fall, 0.0))
    return gain


def _with(candidate: _Candidate, covariance: Matrix, found: Fit) -> Matrix:
    """The covariance after it was done once more."""
    for row in candidate.rows:
        along = _times(covariance, row.work)
        variance = sum(a * x for a, x in zip(along, row.work, strict=True))
        share = 1.0 / (1.0 / max(_precision(row, found), 1e-300) + variance)
        covariance = [
            [c - share * a * b for c, b in zip(line, along, strict=True)]
            for line, a in zip(covariance, along, strict=True)
        ]
    return covariance


def _times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    return [sum(m * x for m, x in zip(line, vector, strict=True)) for line in matrix]
