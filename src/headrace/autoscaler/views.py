"""What the autoscaler shows as JSON: plain values."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from headrace.autoscaler.pool import ScaledPool
from headrace.autoscaler.program import Autoscaler

View: TypeAlias = dict[str, object]


def view_all(autoscaler: Autoscaler) -> View:
    """Every pool with its replicas and the decisions that changed something, and the gateways."""
    now = autoscaler.clock()
    return {
        "at_s": now,
        "gateways": [
            {"name": name, "failure": autoscaler.gathering.failures.get(name)}
            for name in autoscaler.gathering.expected
        ],
        "pools": [_view_pool(pool) for pool in autoscaler.scaled.values()],
    }


def _view_pool(pool: ScaledPool) -> View:
    seen = pool.observation
    return {
        "name": pool.name,
        "scaled_by": "KEDA" if pool.actuator is None else "this process",
        "latency_source": pool.scaler.figures.latency.source,
        "replicas": [] if seen is None else msgspec.to_builtins(seen.replicas),
        "held_requests": 0.0 if seen is None else sum(each.held_requests for each in seen.gateways),
        "plan": msgspec.to_builtins(pool.plan),
        "plans": msgspec.to_builtins(list(pool.plans)),
    }


def view_value(autoscaler: Autoscaler, pool: str, tolerance: float) -> View | None:
    """What KEDA's metrics-api trigger reads, at `value`; None while it is not known."""
    known = autoscaler.value_of(pool, tolerance)
    if known is None:
        return None
    plan, told = known
    return {
        "pool": pool,
        "value": told.value,
        "wanted_replicas": plan.replicas,
        "active": plan.active,
        "decided_by": plan.decided_by,
        "note": told.note,
    }
