"""Tokens to replicas: the request rate that replicas carry within their targets.

The latency model is linear, so the mean of a replica under a steady stream of λ requests/s has a
closed form (`request_work` has w and its parts):

    step_s = per_step / (1 - λ w)               mean step, prefill share included; the mean TPOT
    decoding = λ * decode_steps * step_s        Little's law
    most = min(max_sequences, 0.9 * KV tokens / context)

Requests differ around the mean. The share of them in time is

    TPOT    Φ((target - step_s) / sd),  over the answers' lengths d,
            sd² = 0.3 λ E[prefill²] step_s / (d (1 - λ prefill)²)       prompts that came in between
                + 0.3 decoding * (sequence_step_s / (1 - λ prefill))²       uneven batches
    TTFT    P(1.5 steps + own prefill + W <= target),  W: wait behind other prompts, with an
            exponential tail  P(W > x) = r exp(-x/t),  r = λ E[v],  t = E[v²] / (2 E[v] (1 - r))
            (M/G/1, Pollaczek-Khinchine), v = prefill stretched by the decoding in its steps
    room    of what comes when `decoding` would be over `most`, only what fits is in time

and demand of a pool of n replicas varies by chance over the life of its requests:

    variation of λ over a life of T = decode_steps * step_s seconds:  sqrt(E[work²] / w² / (λ n T))

`Capacity.requests_per_s` is what one of endlessly many replicas carries with `CHANCE` of the misses
that the target allows; `spread` is what a small pool must keep free beyond that, as
spread / sqrt(n), measured at n = 4. The constants were set by the event
simulator, benchmarks/scaling_capacity.py (docs/explanation/scaling.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, erf, exp, inf, sqrt

from headrace.core.length_sketch import LengthSketch
from headrace.core.scaling.request_work import RequestWork, request_work
from headrace.core.scaling.settings import EngineFigures, ScalingTarget

PROMPT_NOISE = 0.3
BATCH_NOISE = 0.3
"""Less than chance alone would give: a router sends prompts where they disturb least."""
POOL_NOISE = 0.6
"""Of what a small pool would keep free if nothing spread its arrivals over replicas and time."""
STEPS_TO_FIRST_TOKEN = 1.5
"""Half a step until the next one begins, and that step."""
CHANCE = 1.0
"""Of the misses that the target allows, so many may come from chance in a replica that is full.
Few replicas are ever full, so in all it is far fewer."""
ALONE = 0.005
"""A replica that is used so little is as good as idle."""
LEAST_SHARE = 0.4
"""Of what a replica carries in the mean: it is used so far at least, whatever chance does."""
KV_FULL = 0.9
"""Of a KV cache, in the mean, before prompts wait for room, of which each needs all at once."""
SMALL_POOL = 4.0
CERTAIN_SQ = 16.0
"""(Standard deviations)² beyond which nobody misses."""
_QUADRATURE = ((1 / 6, -sqrt(3.0)), (2 / 3, 0.0), (1 / 6, sqrt(3.0)))
"""Weights and places for a normal variable (Gauss-Hermite, three points)."""
_HALVINGS = 14


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica of a pool carries, and how it is then."""

    requests_per_s: float
    limit: str
    """What is reached first: "tpot", "ttft", "sequences", "kv" or "compute"."""
    step_s: float
    decoding: float
    kv_ratio: float
    spread: float
    """What one replica alone keeps free for chance, as a share; n of them keep spread / sqrt(n)."""


def replica_capacity(
    figures: EngineFigures, target: ScalingTarget, lengths: LengthSketch
) -> Capacity:
    """What one replica carries of requests of these lengths."""
    replica = _Replica(figures, target, request_work(figures, lengths))
    work = replica.work
    if work.work_s <= 0.0:
        return Capacity(inf, "compute", figures.latency.per_step_s, 0.0, 0.0, 0.0)
    # Prompts too long for their target even on an idle replica are missed by none.
    alone = replica.share(ALONE / work.work_s)[0]
    goal = (1.0 - CHANCE * (1.0 - target.attainment)) * alone
    rate = replica.rate(lambda each: replica.share(each)[0] >= goal)
    # Where targets are so tight that chance alone breaks them, more replicas hardly help.
    rate = max(rate, LEAST_SHARE * replica.mean_rate())
    few = _highest(rate / 2.0, rate, 8, lambda each: _share_of_few(replica, each) >= goal)
    step_s = replica.step_s(rate)
    decoding = rate * work.decode_steps * step_s
    return Capacity(
        rate,
        replica.share(rate * 1.001)[1],
        step_s,
        decoding,
        decoding * work.context_tokens / figures.kv_capacity_tokens,
        POOL_NOISE * min(max(rate / few - 1.0, 0.0), 1.0) * sqrt(SMALL_POOL),
    )


def attainment(
    figures: EngineFigures,
    target: ScalingTarget,
    lengths: LengthSketch,
    requests_per_s: float,
) -> float:
    """The share of requests in time at one replica of many, at a steady rate of its own."""
    replica = _Replica(figures, target, request_work(figures, lengths))
    return replica.share(requests_per_s)[0] if replica.work.work_s > 0.0 else 1.0


def pool_requests_per_s(
    figures: EngineFigures,
    target: ScalingTarget,
    lengths: LengthSketch,
    replicas: float,
) -> float:
    """Requests/s that a pool of so many ready replicas carries with the target's attainment."""
    one = replica_capacity(figures, target, lengths)
    return load_carried(one, replicas) * one.requests_per_s


def load_carried(one: Capacity, replicas: float) -> float:
    """The load, in replicas fully used, that so many replicas carry: square-root staffing."""
    if replicas <= 0.0:
        return 0.0
    return replicas / (1.0 + one.spread / sqrt(replicas))


def replicas_for_load(one: Capacity, load: float) -> float:
    """Replicas, in parts, that carry `load`: inverse of `load_carried`, by Newton's method."""
    if load <= 0.0:
        return 0.0
    replicas = load + one.spread * sqrt(load)
    for _ in range(6):
        root = sqrt(replicas)
        carried = replicas * root / (root + one.spread)
        slope = (root + 1.5 * one.spread) * root / (root + one.spread) ** 2
        replicas = max(replicas + (load - carried) / slope, load)
    return replicas


def whole_replicas(replicas: float) -> int:
    """The next whole number, a rounding error aside."""
    return ceil(replicas - 1e-6)


class _Replica:
    """One replica under a steady rate."""

    __slots__ = ("figures", "fixed_s", "most", "most_of", "target", "work")

    def __init__(self, figures: EngineFigures, target: ScalingTarget, work: RequestWork) -> None:
        self.figures, self.target, self.work = figures, target, work
        self.fixed_s = figures.latency.per_step_s
        room = KV_FULL * figures.kv_capacity_tokens / max(work.context_tokens, 1.0)
        self.most, self.most_of = min((float(figures.max_sequences), "sequences"), (room, "kv"))

    def step_s(self, rate: float) -> float:
        return self.fixed_s / max(1.0 - rate * self.work.work_s, 1e-6)

    def mean_rate(self) -> float:
        """The highest rate at which the means are within the targets."""
        work, fixed_s = self.work, self.fixed_s
        by_tpot = (1.0 - min(fixed_s / self.target.tpot_s, 0.95)) / work.work_s
        by_room = self.most / (work.decode_steps * fixed_s + self.most * work.work_s)
        return min(by_tpot, by_room)

    def rate(self, in_time: Callable[[float], bool]) -> float:
        """The highest rate that is in time; a little where none is, for it must be positive."""
        found = _highest(0.0, 1.0 / self.work.work_s, _HALVINGS, in_time)
        return max(found, 4.0 * ALONE / self.work.work_s)

    def share(self, rate: float) -> tuple[float, str]:
        """The share of requests in time, and what most of the others miss."""
        work = self.work
        if rate * work.work_s >= 1.0:
            return 0.0, "compute"
        step_s = self.step_s(rate)
        room, tpot = 1.0, self._tpot_share(rate, step_s)
        if rate * work.decode_steps * step_s > self.most:
            fits = self.most / (work.decode_steps * self.fixed_s + self.most * work.work_s)
            room = fits / rate
            # Who waits for a place does not make steps longer.
            step_s = self.step_s(fits)
            tpot = self._tpot_share(fits, step_s)
            rate = fits
        ttft = self._ttft_share(rate, step_s)
        worst = min((tpot, "tpot"), (ttft, "ttft"), (room, self.most_of))
        return tpot * ttft * room, worst[1]

    def _tpot_share(self, rate: float, step_s: float) -> float:
        work = self.work
        gap_s = self.target.tpot_s - step_s
        free = max(1.0 - rate * work.prefill_s, 0.02)
        prompts = PROMPT_NOISE * rate * work.prefill_sq * step_s / (free * free)
        uneven = BATCH_NOISE * rate * work.decode_steps * step_s
        uneven *= (work.sequence_step_s / free) ** 2
        if gap_s > 0.0 and gap_s * gap_s > CERTAIN_SQ * (prompts / work.least_steps + uneven):
            return 1.0
        share = 1.0
        for weight, steps in work.answers:
            sd = sqrt(prompts / steps + uneven)
            met = 0.5 + 0.5 * erf(gap_s / sd / sqrt(2.0)) if sd > 0.0 else float(gap_s >= 0.0)
            share -= weight * (1.0 - met)
        return max(share, 0.0)

    def _ttft_share(self, rate: float, step_s: float) -> float:
        work, budget = self.work, max(self.figures.max_batched_tokens, 1)
        if work.prefill_s <= 0.0:
            return 1.0
        decoding_s = self.fixed_s + work.sequence_step_s * rate * work.decode_steps * step_s
        stretch = 1.0 + decoding_s * work.uncached_tokens / (budget * work.prefill_s)
        ratio = min(rate * work.prefill_s * stretch, 0.99)
        tail_s = work.prefill_sq * stretch / (2.0 * work.prefill_s * (1.0 - ratio))
        slack_s = self.target.ttft_s - STEPS_TO_FIRST_TOKEN * step_s
        share = 0.0
        for weight, prefill_s in work.prompts:
            left_s = slack_s - prefill_s * stretch
            if left_s > 0.0:
                share += weight * (1.0 - ratio * exp(-left_s / tail_s))
        return share


def _highest(low: float, high: float, halvings: int, holds: Callable[[float], bool]) -> float:
    """The highest value between `low` and `high` for which it holds, as it does for `low`."""
    for _ in range(halvings):
        middle = (low + high) / 2.0
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _share_of_few(replica: _Replica, rate: float) -> float:
    """The share in time in a small pool, whose demand varies by chance over requests' lives."""
    work = replica.work
    life_s = max(work.decode_steps * replica.step_s(rate), replica.target.ttft_s)
    unequal = work.work_sq / (work.work_s * work.work_s)
    variation = sqrt(unequal / max(rate * SMALL_POOL * life_s, 1e-9))
    return sum(
        weight * replica.share(rate * max(1.0 + place * variation, 0.05))[0]
        for weight, place in _QUADRATURE
    )
