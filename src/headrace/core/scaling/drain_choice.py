"""Which replicas go first: those that cost nobody anything.

1. ordered and without a place, then starting: nothing runs there (the latest ordered first)
2. failing
3. ready: idle for longest, then the cheapest cache, then the fewest running requests
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.core.scaling.observation import Phase, ReplicaObservation

_FIRST = (Phase.UNSCHEDULABLE, Phase.STARTING, Phase.FAILING, Phase.READY)


def drain_order(replicas: Iterable[ReplicaObservation], now: float) -> tuple[str, ...]:
    """Names of ordered replicas, the first to go first."""
    there = [replica for replica in replicas if replica.phase in _FIRST]
    return tuple(replica.name for replica in sorted(there, key=lambda each: _key(each, now)))


def _key(replica: ReplicaObservation, now: float) -> tuple[int, float, float, float, str]:
    phase = _FIRST.index(replica.phase)
    if replica.phase is not Phase.READY:
        return (phase, -replica.ordered_at_s, 0.0, 0.0, replica.name)
    # `running` over a stale `idle_since_s`: who has work is not idle.
    is_idle = replica.idle_since_s is not None and not replica.running
    idle_s = now - replica.idle_since_s if is_idle and replica.idle_since_s is not None else 0.0
    return (
        phase,
        -max(idle_s, 0.0),
        replica.cache_value_s or 0.0,
        replica.running or 0.0,
        replica.name,
    )
