"""How many replicas a demand takes, by the reckoning of capacity alone."""

from __future__ import annotations

from headrace.core.length_sketch import LengthSketch
from headrace.core.scaling.capacity import replica_capacity, replicas_for_load
from headrace.core.scaling.settings import EngineFigures, ScalingTarget


def replicas_for(
    figures: EngineFigures,
    target: ScalingTarget,
    lengths: LengthSketch,
    requests_per_s: float,
) -> float:
    """Replicas, in parts, that carry so many requests/s with the target's attainment.

    Inverse of `pool_requests_per_s`; 0 where nothing arrives or no lengths are known.
    """
    if requests_per_s <= 0.0 or not lengths.cells:
        return 0.0
    one = replica_capacity(figures, target, lengths)
    return replicas_for_load(one, requests_per_s / one.requests_per_s)
