"""Which replicas are down for so long that what waits for their first byte goes elsewhere.

An engine that hangs keeps its connections: nothing ends the requests that it has, and only its
health checks tell. Where no other replica of the pool is ready, waiting for it is all there is.
"""

from __future__ import annotations

from typing import Final

from headrace.core.model import Fleet, Replica, ReplicaState

_READY: Final = ReplicaState.READY
_STARTING: Final = ReplicaState.STARTING
_NONE: Final[frozenset[str]] = frozenset()


class LostReplicas:
    """Remembers since when replicas are not ready; `look` is called a few times a second."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def look(self, fleet: Fleet, down_s: float, now: float) -> frozenset[str]:
        """Names of those that have been down for `down_s` seconds and that others stand in for."""
        before, self._since_s = self._since_s, {}
        for replica in fleet.replicas.values():
            if replica.state is _STARTING:
                self._since_s[replica.name] = before.get(replica.name, now)
        if not self._since_s:
            return _NONE
        return frozenset(
            name
            for name, since_s in self._since_s.items()
            if now - since_s >= down_s and _has_others(fleet.replicas[name])
        )


def _has_others(replica: Replica) -> bool:
    return any(each.state is _READY for each in replica.pool.replicas.values())
