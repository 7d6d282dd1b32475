"""What arrives, tick by tick: the same for every scaler of a comparison.

Requests of a tick of dt seconds at `rate` are Gamma with the mean and variance of the renewal
process that the events are drawn from (see `traffic.rates`), so that bursts are the same in both:

    mean = rate * dt            variance = gap_cv² * rate * dt

and the prefill work of n requests is off its mean by a factor of standard deviation cv_w / sqrt(n).

Requests that fit no replica are refused by the first that they come to: they are no demand, and are
counted by themselves. Of a trace they are known one by one, of rates by the points of the spread.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from math import ceil, sqrt
from typing import NamedTuple

from headrace.core.scaling.demand_history import DemandSample
from headrace.engine_model.spec import EngineSpec
from headrace.simulator.scaling.mix import RequestMix
from headrace.traffic.length_spread import LengthSpread, Point, TraceSpread
from headrace.traffic.rates import DEFAULT_GAP_CV, Rates, RateStep
from headrace.traffic.trace import TraceRequest

FINEST_TICK_S, MIDDLE_TICK_S, COARSEST_TICK_S = 1.0, 3.0, 5.0
FINE_UP_TO_S, MIDDLE_UP_TO_S = 6 * 3600.0, 3 * 86_400.0
LEAST_WORK_FACTOR = 0.2
"""Prefill work of a tick is at least this part of its mean: few requests are still some."""
TRACE_STEP_S = 60.0
"""Of the rates that a trace is summed up to."""


class Demand:
    """Arrays by tick: `requests`, `work_factor` (of prefill), `mix_of` (index into `mixes`).

    `history` is what came before, up to 0 s: scalers that remember are told. `too_long` requests of
    `too_long_tokens` fit no replica; they are not in `requests`.
    """

    __slots__ = (
        "end_s",
        "history",
        "mix_of",
        "mixes",
        "rates",
        "requests",
        "spread",
        "tick_s",
        "too_long",
        "too_long_tokens",
        "work_factor",
    )  # fmt: skip

    def __init__(
        self,
        rates: Rates,
        spread: LengthSpread,
        engine: EngineSpec,
        *,
        tick_s: float,
        seed: int,
        gap_cv: float = DEFAULT_GAP_CV,
        counts: Sequence[float] | None = None,
        history: Sequence[DemandSample] = (),
    ) -> None:
        self.rates = rates
        self.history = history
        self.spread = spread
        self.tick_s = tick_s
        ticks = max(int(rates.end_s / tick_s + 1e-6), 1)
        self.end_s = ticks * tick_s
        self.too_long = self.too_long_tokens = 0.0
        # The lengths of counted ones are known to fit, and a class of them may still seem too long
        # beside the mean of a minute.
        parts = _mixes(rates.steps, spread, engine, all_fit=counts is not None)
        self.mixes = [part.mix for part in parts]
        self.mix_of = array("l", bytes(0))
        self.requests = array("d")
        self.work_factor = array("d")
        rng = random.Random(f"demand {seed}")  # noqa: S311 - no secrets
        place, steps = 0, rates.steps
        for tick in range(ticks):
            at_s = tick * tick_s
            while place + 1 < len(steps) and steps[place + 1].start_s <= at_s + 1e-9:
                place += 1
            mean = steps[place].requests_per_s * tick_s
            came = _gamma(rng, mean, gap_cv) if counts is None else counts[tick]
            part = parts[place]
            if part.too_long:
                self.too_long += came * part.too_long
                self.too_long_tokens += came * part.too_long_tokens
                came *= 1.0 - part.too_long
            self.mix_of.append(place)
            self.requests.append(came)
            self.work_factor.append(_work_factor(rng, self.mixes[place], came))

    @property
    def arrived(self) -> float:
        """All requests, those that fit no replica too."""
        return sum(self.requests) + self.too_long

    @property
    def ticks(self) -> int:
        """How many there are."""
        return len(self.requests)

    def mix(self, tick: int) -> RequestMix:
        """The mix of a tick."""
        return self.mixes[self.mix_of[tick]]


def tick_for(span_s: float) -> float:
    """Seconds of a tick: finer where the span is short."""
    if span_s <= FINE_UP_TO_S:
        return FINEST_TICK_S
    return MIDDLE_TICK_S if span_s <= MIDDLE_UP_TO_S else COARSEST_TICK_S


def history_of(rates: Rates) -> list[DemandSample]:
    """Rates as the past of a demand that begins where they end: in totals, up to 0 s."""
    ends_s = [*(step.start_s for step in rates.steps[1:]), rates.end_s]
    return [
        DemandSample(
            step.start_s - rates.end_s,
            end_s - step.start_s,
            (requests := step.requests_per_s * (end_s - step.start_s)),
            requests * step.mean_input_tokens,
            requests * step.mean_output_tokens,
        )
        for step, end_s in zip(rates.steps, ends_s, strict=True)
    ]


def demand_of_trace(
    name: str,
    requests: Sequence[TraceRequest],
    engine: EngineSpec,
    *,
    seed: int,
    history: Sequence[DemandSample] = (),
) -> Demand:
    """A trace as ticks: the counts are its own, lengths are those of each minute.

    Raises:
        ValueError: none of the requests fits a replica.
    """
    end_s = max(requests[-1].arrival_s, TRACE_STEP_S)
    tick_s = tick_for(end_s)
    end_s = (int(end_s / TRACE_STEP_S) + 1) * TRACE_STEP_S
    counts = [0.0] * int(end_s / tick_s)
    bins: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(int(end_s / TRACE_STEP_S))]
    fitting = [each for each in requests if engine.holds(each.input_tokens + each.output_tokens)]
    for request in fitting:
        counts[int(request.arrival_s / tick_s)] += 1.0
        sums = bins[int(request.arrival_s / TRACE_STEP_S)]
        sums[0] += 1.0
        sums[1] += request.input_tokens
        sums[2] += request.output_tokens
    steps = [
        RateStep(
            place * TRACE_STEP_S,
            count / TRACE_STEP_S,
            inputs / count if count else 1.0,
            outputs / count if count else 1.0,
        )
        for place, (count, inputs, outputs) in enumerate(bins)
    ]
    rates = Rates(name, steps, end_s)
    spread = TraceSpread(fitting)
    demand = Demand(rates, spread, engine, tick_s=tick_s, seed=seed, counts=counts, history=history)
    demand.too_long = float(len(requests) - len(fitting))
    demand.too_long_tokens = float(_tokens(requests) - _tokens(fitting))
    return demand


def _tokens(requests: Sequence[TraceRequest]) -> int:
    return sum(each.input_tokens + each.output_tokens for each in requests)


class _Part(NamedTuple):
    """Of the requests of one step: the costs of those that fit, the share of those that do not, and
    the tokens of these in the mean over all.
    """

    mix: RequestMix
    too_long: float
    too_long_tokens: float


def _mixes(
    steps: Sequence[RateStep], spread: LengthSpread, engine: EngineSpec, *, all_fit: bool
) -> list[_Part]:
    """One per step; steps of equal lengths share theirs."""
    points = spread.points
    known: dict[tuple[float, float], _Part] = {}
    for step in steps:
        means = (step.mean_input_tokens, step.mean_output_tokens)
        if means not in known:
            known[means] = _part(engine, points, *means, all_fit=all_fit)
    return [known[step.mean_input_tokens, step.mean_output_tokens] for step in steps]


def _part(
    engine: EngineSpec, points: tuple[Point, ...], prompt: float, answer: float, *, all_fit: bool
) -> _Part:
    lengths = [(share, p * prompt + a * answer) for share, p, a in points]
    too_long = [not (all_fit or engine.holds(ceil(tokens - 1e-6))) for _, tokens in lengths]
    lost = sum(share for (share, _), over in zip(lengths, too_long, strict=True) if over)
    lost_tokens = sum(n * share for (share, n), over in zip(lengths, too_long, strict=True) if over)
    if all(too_long):
        lost = 1.0
    elif lost:
        left = 1.0 - lost
        points = tuple(
            (share / left, p, a)
            for (share, p, a), over in zip(points, too_long, strict=True)
            if not over
        )
    return _Part(RequestMix(engine, points, prompt, answer), lost, lost_tokens)


def _gamma(rng: random.Random, mean: float, gap_cv: float) -> float:
    scale = gap_cv * gap_cv
    if mean <= 0.0:
        return 0.0
    return rng.gammavariate(mean / scale, scale) if scale > 0.0 else mean


def _work_factor(rng: random.Random, mix: RequestMix, requests: float) -> float:
    """How much more prefill work than `requests` times its mean came."""
    noise = rng.gauss(0.0, 1.0)
    if requests <= 0.0:
        return 1.0
    spread = max(mix.prefill_sq / mix.prefill_s**2 - 1.0, 0.0)
    return max(1.0 + noise * sqrt(spread / max(requests, 1.0)), LEAST_WORK_FACTOR)
