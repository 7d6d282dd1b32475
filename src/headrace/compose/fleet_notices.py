"""What an operator is told of replicas: a line when it begins, and none while it lasts."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from headrace.core.model import ReplicaState
from headrace.gateway.telemetry import Telemetry

TOLD_AFTER = 5
"""Failed scrapes in a row of a replica that is ready: one late answer is not worth a line."""


class FleetNotices:
    """Watches for replicas whose metrics cannot be read, and for those that are taken out."""

    def __init__(self, telemetry: Telemetry, tell: Callable[[str], None]) -> None:
        self._telemetry = telemetry
        self._tell = tell
        self._unread: dict[str, float] = {}
        """Scrapes that failed in a row, by replica; minus infinity once that was told."""
        self._taken_out: set[str] = set()

    def scraped(self, replica: str) -> None:
        """Its metrics were read."""
        self._unread.pop(replica, None)
        self.looked_at(replica)

    def scrape_failed(self, replica: str, reason: str) -> None:
        """Its metrics could not be read."""
        failed = self._unread[replica] = self._unread.get(replica, 0) + 1
        known = self._telemetry.fleet.replicas.get(replica)
        if known is None or failed < TOLD_AFTER:
            return
        if known.state is ReplicaState.READY or self._telemetry.is_external(known):
            self._unread[replica] = -inf
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
