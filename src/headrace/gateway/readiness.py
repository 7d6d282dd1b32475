"""Whether traffic should be sent to this gateway: whether some pool can serve its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace.core.model import Fleet, Replica, ReplicaState

_READY: Final = ReplicaState.READY
NO_REPLICA: Final = "no replica"
OTHER_MODELS: Final = "no replica serves its pool's model"


def unready_because(fleet: Fleet, refuses_other_models: Callable[[str], bool]) -> str:
    """Why no model can be served, in a few words; "" where one can, now or once a replica is there
    that its pool has requests wait for.

    `refuses_other_models` says of a pool whether its engines answer for what they list alone.
    """
    is_anybody_ready = False
    for pool in fleet.pools.values():
        ready = [each for each in pool.replicas.values() if each.state is _READY]
        if not ready:
            if pool.spec.wait_for_replica_s > 0.0:
                return ""
            continue
        if any(map(_can_serve, ready)) or not refuses_other_models(pool.spec.name):
            return ""
        is_anybody_ready = True
    return OTHER_MODELS if is_anybody_ready else NO_REPLICA


def _can_serve(replica: Replica) -> bool:
    """Its adapters are asked for by their own names."""
    return not replica.doubted or replica.vouched or bool(replica.adapters)
