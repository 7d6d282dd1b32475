"""How many replicas an HPA proposes for one metric; of several metrics the highest counts.

A total, `AverageValue` of an external or object metric, with n replicas ordered, ready or not:

    r = total / (target * n)        |r - 1| within the tolerance: n, else ceil(total / target)

A share of what the pods request, `Utilization` of CPU, with m of the n ready, the others starting:

    u = whole percent that the m use of what they request,    r = u / target
    r <= 1, or none starts:   n within the tolerance, else ceil(r * m)
    r > 1:                    again with those that start counted as idle: n within the tolerance or
                              where r is no longer above 1, else ceil(r * n)

So the tolerance is for the metric: 8.9 for 10 replicas is outside it, although its 9 would not be.
Values and targets are whole thousandths, cut off, as KEDA publishes them and Kubernetes counts.

Source: Kubernetes' replica calculator (`pkg/controller/podautoscaler/replica_calculator.go`) and
KEDA's `GenerateMetricInMili`.
"""

from __future__ import annotations

from math import ceil

TOLERANCE = 0.1
"""The default of Kubernetes' controller."""
PARTS = 1000
"""Of one unit of a metric."""


def per_replica(total: float, target: float, ordered: int, tolerance: float = TOLERANCE) -> int:
    """What is proposed for a total of which each replica is to bear `target`."""
    total_parts, target_parts = int(total * PARTS), max(int(target * PARTS), 1)
    if ordered and within(total_parts / (target_parts * ordered), tolerance):
        return ordered
    return ceil(total_parts / target_parts)


def by_utilisation(
    used: float,
    requested: float,
    target: float,
    *,
    ready: int,
    ordered: int,
    tolerance: float = TOLERANCE,
) -> int:
    """What is proposed where `ready` pods use `used` in all and each requests `requested`."""
    percent = max(round(target * 100), 1)
    used_parts, requested_parts = int(used * PARTS), int(requested * PARTS)
    if not ready:
        return ordered  # no metric of any pod: nothing is changed
    ratio = used_parts * 100 // (requested_parts * ready) / percent
    counted = ready
    if ratio > 1.0 and ordered > ready:
        counted = ordered
        ratio = used_parts * 100 // (requested_parts * ordered) / percent
        if ratio < 1.0:
            return ordered
    return ordered if within(ratio, tolerance) else ceil(ratio * counted)


def within(ratio: float, tolerance: float) -> bool:
    """Whether a metric is so near its target that nothing changes; the bounds are within."""
    return 1.0 - tolerance <= ratio <= 1.0 + tolerance
