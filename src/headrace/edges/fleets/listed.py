"""The fleet of one pool whose engines somebody else runs: fixed addresses, those behind a DNS
name, or both.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.edges.fleets.dns import SOURCE, DnsFleet, DnsName
from headrace.edges.fleets.readiness import (
    Emit,
    HealthSettings,
    Notice,
    PoolAccess,
    Trouble,
    Watches,
    nobody,
)

_FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedReplicas:
    """Where a pool's replicas are and how they are checked."""

    access: PoolAccess
    health: HealthSettings
    urls: tuple[str, ...] = ()
    dns: DnsName | None = None
    drain_s: float = 30.0
    """How long a replica that is taken off `urls` may finish its streams."""


class ListedFleet:
    """Watches the replicas of one pool between `start` and `close`."""

    def __init__(
        self, listed: ListedReplicas, *, emit: Emit, notice: Notice, trouble: Trouble = nobody
    ) -> None:
        self._listed = listed
        self._notice = notice
        self._watches = Watches(
            listed.access, listed.health, emit=emit, notice=notice, trouble=trouble
        )
        self._dns = self._dns_fleet(listed)

    @property
    def is_unlisted(self) -> bool:
        """Whether there may be replicas that nobody has found yet."""
        return self._dns is not None and self._dns.is_unanswered

    async def start(self) -> None:
        """Report every replica as not ready yet and begin to check it."""
        self._hold(self._listed.urls)
        if self._dns is not None:
            await self._dns.start()

    async def change(self, listed: ListedReplicas) -> None:
        """Follow another list from now on, for the same pool and model.

        Replicas on both lists notice nothing; those that are on the new one no more drain, when
        this returns at the latest.
        """
        before, self._listed = self._listed, listed
        self._watches.configure(listed.access, listed.health)
        # Both lists at first, so that an address which moves between list and name never leaves.
        self._hold((*before.urls, *listed.urls))
        if (before.dns, _scheme(before)) != (listed.dns, _scheme(listed)):
            await self._change_dns(listed)
        self._hold(listed.urls)
        await self._watches.replaced()

    async def _change_dns(self, listed: ListedReplicas) -> None:
        old, self._dns = self._dns, self._dns_fleet(listed)
        if old is not None:
            await old.close()
        if self._dns is not None:
            await self._dns.start()
        else:
            self._watches.hold(SOURCE, (), drain_s=listed.drain_s)

    async def close(self) -> None:
        """Stop looking and checking. Nothing is reported any more."""
        if self._dns is not None:
            await self._dns.close()
        await self._watches.close()

    def _hold(self, urls: tuple[str, ...]) -> None:
        self._watches.hold(_FIXED, urls, drain_s=self._listed.drain_s)

    def _dns_fleet(self, listed: ListedReplicas) -> DnsFleet | None:
        if listed.dns is None:
            return None
        return DnsFleet(listed.dns, self._watches, self._notice, scheme=_scheme(listed))


def _scheme(listed: ListedReplicas) -> str:
    return "http" if listed.access.tls is None else "https"
