"""Replicas so that KV caches are used to the target and no further.

cool    a replica at or below the target can give and take: sum of usages / target
hot     one above it cannot give away what runs there: its excess asks for room beside the rest
exhaustion_s = (1 - mean usage) / growth per second; sooner than a cold start, what the mean
          will be by then is what counts
"""

from __future__ import annotations

from headrace.core.scaling.capacity import KV_FULL
from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView

MOST_RISE = 2.0
"""Growth is a guess: at most so many times what is there."""
EXPLAINED = 1.15
"""Occupancy up to so many times what the load makes of it is explained by it."""
NEVER_S = 86400.0
"""What is told where occupancy does not grow."""
BUSY_MEAN = 0.5
"""Below this share of the target on average, a hot replica is a matter of routing, not of room."""


def kv_occupancy(view: ScalingView) -> Signal | None:
    """What KV caches need; None where less than half of the replicas tell."""
    usages = [each.kv_usage_ratio for each in view.fresh if each.kv_usage_ratio is not None]
    if not usages or 2 * len(usages) < len(view.ready):
        return None
    ready = len(view.ready)
    mean = sum(usages) / len(usages)
    target = _target(view, mean)
    replicas = ready * mean / target
    hot = sum(max(usage / target - 1.0, 0.0) for usage in usages)
    why = "mean"
    if hot > 0.0 and mean >= BUSY_MEAN * target:
        spread = ready + hot * ready / len(usages)
        if spread > replicas:
            replicas, why = spread, "hot"
    growth = view.kv_growth_per_s
    exhaustion_s = (1.0 - mean) / growth if growth > 0.0 else NEVER_S
    if exhaustion_s < view.cold_start_s and view.fits_s > 0.0:
        ahead = min(ready * (mean + growth * view.cold_start_s) / target, MOST_RISE * ready)
        if ahead > replicas:
            replicas, why = ahead, "exhaustion_s"
    figures = (
        ("mean_ratio", mean),
        ("highest_ratio", max(usages)),
        ("target_ratio", target),
        ("exhaustion_s", min(exhaustion_s, NEVER_S)),
    )
    return Signal("kv_occupancy", replicas, why, figures)


def _target(view: ScalingView, mean: float) -> float:
    target, capacity = view.settings.kv_target, view.capacity
    if capacity is None:
        return target
    explained = capacity.kv_ratio * view.load / len(view.ready)
    return max(target, KV_FULL) if mean <= EXPLAINED * explained else target
