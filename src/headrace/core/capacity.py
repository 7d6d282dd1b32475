"""Tokens to replicas: the request rate that replicas carry within their targets.

The latency model is linear, so the mean of a replica under a steady stream of requests has a closed
form. With λ requests/s at a replica, D the mean answer tokens behind the first, c the mean context
of a decoding sequence, P the mean seconds of prefill, all over the joint lengths:

    w = P + D * (per_sequence + per_kv_token * c)          seconds of work that a request adds
    step_s = per_step / (1 - λ w)                          mean step, prefill share included
    decoding = λ * D * step_s                              Little's law
    kv_tokens = decoding * c + λ * E[(input + output) * prefill time]

A replica is full when the first of these is reached: step_s = TPOT, λ w = 1, decoding =
max_sequences, kv_tokens = the KV target.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, sqrt

from headrace.core.latency import attended_pairs
from headrace.core.length_sketch import LengthSketch
from headrace.core.scaling_settings import EngineFigures, ScalingTarget


@dataclass(frozen=True, slots=True)
class RequestWork:
    """What a request of the mix costs on average. Seconds are of one replica."""

    prefill_s: float
    decode_steps: float
    context_tokens: float
    """Mean context of a decoding sequence, weighted by how long it decodes."""
    work_s: float
    """All the replica's time that it takes, steps' fixed part aside."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica of a pool carries."""

    requests_per_s: float
    limit: str
    """What is reached first: "tpot", "ttft", "sequences", "kv" or "compute"."""
    step_s: float
    decoding: float
    kv_ratio: float
    spread: float
    """What one replica alone keeps free for chance, as a share; n of them keep spread / sqrt(n)."""


def request_work(figures: EngineFigures, lengths: LengthSketch) -> RequestWork:
    """The mean work of a request of these lengths; zeros where there are none."""
    latency = figures.latency
    count = prefill_s = steps = context_steps = 0.0
    for cell in lengths.cells:
        n = cell.requests
        if n <= 0.0:
            continue
        prompt, hit, output = cell.input_tokens / n, cell.hit_tokens / n, cell.output_tokens / n
        uncached = max(prompt - hit, 1.0)
        count += n
        prefill_s += n * (
            latency.per_prefill_token_s * uncached
            + latency.per_attended_token_s * attended_pairs(uncached, hit)
        )
        decoded = max(output - 1.0, 0.0)
        steps += n * decoded
        context_steps += n * decoded * (prompt + output / 2.0)
    if count <= 0.0:
        return RequestWork(0.0, 0.0, 0.0, 0.0)
    context = context_steps / steps if steps > 0.0 else 0.0
    steps /= count
    prefill_s /= count
    per_token_s = latency.per_sequence_s + latency.per_kv_token_s * context
    return RequestWork(prefill_s, steps, context, prefill_s + steps * per_token_s)


def replica_capacity(
    figures: EngineFigures, target: ScalingTarget, lengths: LengthSketch, kv_target: float = 0.75
) -> Capacity:
    """What one replica of an endless pool carries: no margin for chance."""
    work = request_work(figures, lengths)
    if work.work_s <= 0.0:
        return Capacity(inf, "compute", figures.latency.per_step_s, 0.0, 0.0, 0.0)
    fixed_s = figures.latency.per_step_s
    limits = [((1.0 - min(fixed_s / target.tpot_s, 0.99)) / work.work_s, "tpot")]
    limits.append((0.98 / work.work_s, "compute"))
    sequences = min(
        (float(figures.max_sequences), "sequences"),
        (kv_target * figures.kv_capacity_tokens / max(work.context_tokens, 1.0), "kv"),
    )
    most = sequences[0]
    if work.decode_steps > 0.0:
        limits.append((most / (work.decode_steps * fixed_s + most * work.work_s), sequences[1]))
    rate, limit = min(limits)
    step_s = fixed_s / max(1.0 - rate * work.work_s, 1e-3)
    decoding = rate * work.decode_steps * step_s
    kv_ratio = decoding * work.context_tokens / figures.kv_capacity_tokens
    return Capacity(rate, limit, step_s, decoding, kv_ratio, 1.0 / sqrt(max(decoding, 1.0)))


def pool_requests_per_s(
    figures: EngineFigures,
    target: ScalingTarget,
    lengths: LengthSketch,
    replicas: float,
    kv_target: float = 0.75,
) -> float:
    """Requests/s that a pool of so many ready replicas carries with the target's attainment."""
    one = replica_capacity(figures, target, lengths, kv_target)
    return load_carried(one, replicas) * one.requests_per_s


def replicas_for(
    figures: EngineFigures,
    target: ScalingTarget,
    lengths: LengthSketch,
    requests_per_s: float,
    kv_target: float = 0.75,
) -> float:
    """Replicas, in parts, that carry so many requests/s with the target's attainment.

    Inverse of `pool_requests_per_s`. 0 where nothing arrives or no lengths are known.
    """
    if requests_per_s <= 0.0 or not lengths.cells:
        return 0.0
    one = replica_capacity(figures, target, lengths, kv_target)
    return replicas_for_load(one, requests_per_s / one.requests_per_s)


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
