"""A fleet of fixed addresses: engines that somebody else starts and stops."""

from __future__ import annotations

from headrace.edges.fleets.readiness import Emit, HealthSettings, Notice, PoolAccess, Watches


class StaticFleet:
    """Watches the configured replicas of one pool between `start` and `close`."""

    def __init__(
        self,
        urls: tuple[str, ...],
        access: PoolAccess,
        settings: HealthSettings,
        *,
        emit: Emit,
        notice: Notice,
    ) -> None:
        self._urls = urls
        self._watches = Watches(access, settings, emit, notice)

    async def start(self) -> None:
        """Report every replica as not ready yet and begin to check it."""
        for url in self._urls:
            self._watches.add(url)

    async def close(self) -> None:
        """Stop checking."""
        await self._watches.close()
