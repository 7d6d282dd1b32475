"""More replicas where memory bandwidth is used up: a second trigger that may only raise.

    measured  DCGM_FI_PROF_DRAM_ACTIVE, the mean over replicas
    modelled  (weight bytes + context tokens * KV bytes per token) per step / (step_s * peak)
    replicas = ready * ratio / 0.85,  at most load / 0.7

Decoding reads all weights at every step, so a replica with one stream can show a high ratio and be
idle by any other measure, and more replicas need not lower it: each would read its weights as
often. So nobody is asked for whom the load would not use to 70 %, however high the ratio is.
"""

from __future__ import annotations

from headrace.core.scaling_plan import Signal
from headrace.core.scaling_view import ScalingView

TARGET_RATIO = 0.85
NEAR_RATIO = 0.8 * TARGET_RATIO
"""From here on it tells how many it needs, fewer than there are: who was added for a ratio above the
target lowers it, and has to stay."""
LEAST_USE = 0.7
"""Of what replicas carry: beyond that it is not asked for more of them. The bound goes by the load
alone, so what is added does not move it."""
LEAST_LOAD = 0.5
"""In replicas fully used; with less, one has room whatever it reads."""


def memory_bandwidth(view: ScalingView) -> Signal | None:
    """What bandwidth asks for near its target; None below that, or where it is not known."""
    if not view.ready or view.capacity is None or view.load < LEAST_LOAD:
        return None
    measured = [
        each.memory_bandwidth_ratio
        for each in view.fresh
        if each.memory_bandwidth_ratio is not None
    ]
    if measured and 2 * len(measured) >= len(view.ready):
        ratio, why = sum(measured) / len(measured), "measured"
    else:
        ratio, why = _modelled(view), "modelled"
    if ratio <= NEAR_RATIO:
        return None
    figures = (("ratio", ratio), ("target_ratio", TARGET_RATIO), ("load", view.load))
    replicas = min(len(view.ready) * min(ratio, 1.0) / TARGET_RATIO, view.load / LEAST_USE)
    return Signal("memory_bandwidth", replicas, why, figures, kind="raises")


def _modelled(view: ScalingView) -> float:
    """Bytes of a step over what the memory could move meanwhile; 0 where figures are missing."""
    figures, capacity = view.figures, view.capacity
    assert capacity is not None
    if figures.memory_bytes_per_s <= 0.0 or not view.ready:
        return 0.0
    share = min(view.load / len(view.ready), 1.0)
    tokens = share * capacity.kv_ratio * figures.kv_capacity_tokens
    step_bytes = figures.weight_bytes_per_step + tokens * figures.kv_bytes_per_token
    fixed_s = figures.latency.per_step_s
    used = share * (1.0 - fixed_s / capacity.step_s) if capacity.step_s > 0.0 else 0.0
    return step_bytes / (fixed_s / max(1.0 - used, 1e-3) * figures.memory_bytes_per_s)
