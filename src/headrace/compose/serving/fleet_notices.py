"""What an operator is told of replicas: a line when it begins, and none while it lasts."""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.model import Replica, ReplicaState
from headrace.gateway.telemetry import Telemetry

TOLD_AFTER = 5
"""Failed scrapes in a row of a replica that is ready: one late answer is not worth a line."""


class FleetNotices:
    """Watches for replicas whose metrics cannot be read, and for those that are taken out."""

    def __init__(self, telemetry: Telemetry, tell: Callable[[str], None]) -> None:
        self._telemetry = telemetry
        self._tell = tell
        self._unread: dict[str, int] = {}
        """Scrapes that failed in a row while the replica was ready, by its name."""
        self._taken_out: set[str] = set()

    def scraped(self, replica: str) -> None:
        """Its metrics were read."""
        self._unread.pop(replica, None)
        self.looked_at(replica)

    def scrape_failed(self, replica: str, reason: str) -> None:
        """Its metrics could not be read. Of one that is down they are not missed."""
        known = self._telemetry.fleet.replicas.get(replica)
        if known is None or not self._is_up(known):
            self._unread.pop(replica, None)
            return
        failed = self._unread[replica] = self._unread.get(replica, 0) + 1
        if failed == TOLD_AFTER:
            self._tell(
                f"replica {replica} is ready, but its metrics cannot be read, so that its queue "
                f"and KV usage are estimates: {reason}"
            )

    def looked_at(self, replica: str) -> None:
        """It may have been taken out, or have come back."""
        known = self._telemetry.fleet.replicas.get(replica)
        if known is None:
            return
        if known.state is ReplicaState.EJECTED and replica not in self._taken_out:
            self._taken_out.add(replica)
            trouble = self._telemetry.troubles.last(replica)
            reason = "it failed requests" if trouble is None else trouble.reason
            self._tell(f"replica {replica} is taken out until its health check passes: {reason}")
        elif known.state is ReplicaState.READY and replica in self._taken_out:
            self._taken_out.discard(replica)
            self._tell(f"replica {replica} takes requests again")

    def forget(self, replica: str) -> None:
        """It left the fleet."""
        self._unread.pop(replica, None)
        self._taken_out.discard(replica)

    def _is_up(self, replica: Replica) -> bool:
        """Whether it is ready; one whose requests are others' to send is draining for this gateway
        then.
        """
        external = self._telemetry.is_external(replica)
        return replica.state is (ReplicaState.DRAINING if external else ReplicaState.READY)
