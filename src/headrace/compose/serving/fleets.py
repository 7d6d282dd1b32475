"""The fleets of a configuration: which engines each pool follows, now and after a reload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.compose.serving.wiring import Gateway
from headrace.config.load import Loaded
from headrace.config.schema import PoolSection
from headrace.edges.fleets.listed import ListedFleet, ListedReplicas
from headrace.edges.fleets.readiness import PoolAccess


class Fleets:
    """One fleet for each pool, reporting to a gateway."""

    def __init__(self, gateway: Gateway, notice: Callable[[str], None]) -> None:
        self._gateway = gateway
        self._notice = notice
        self._fleets: dict[str, ListedFleet] = {}
        """By pool name."""
        gateway.look_up_by(self._is_unlisted)

    def _is_unlisted(self, pool: str) -> bool:
        fleet = self._fleets.get(pool)
        return fleet is None or fleet.is_unlisted

    async def follow(self, loaded: Loaded) -> None:
        """Follow what this configuration lists, as it was or otherwise; the gateway must know the
        pools already. Replicas that are listed no more drain.
        """
        changes = [
            self._follow(pool.name, self._listed(pool, loaded))
            for pool in loaded.config.pools
            if pool.start is None  # its replicas are nobody else's
        ]
        await asyncio.gather(*changes)

    async def _follow(self, name: str, listed: ListedReplicas) -> None:
        fleet = self._fleets.get(name)
        if fleet is not None:
            await fleet.change(listed)
            return
        gateway = self._gateway
        fleet = ListedFleet(
            listed, emit=gateway.apply, notice=self._notice, trouble=gateway.trouble
        )
        self._fleets[name] = fleet
        await fleet.start()

    async def drop(self, pools: Iterable[str]) -> None:
        """Follow these pools no more; the gateway is about to forget them."""
        dropped = [fleet for name in pools if (fleet := self._fleets.pop(name, None)) is not None]
        await asyncio.gather(*(fleet.close() for fleet in dropped))

    async def close(self) -> None:
        """Stop looking and checking."""
        await self.drop(tuple(self._fleets))

    def _listed(self, pool: PoolSection, loaded: Loaded) -> ListedReplicas:
        gateway, config = self._gateway, loaded.config
        access = PoolAccess(
            pool.name,
            pool.model,
            gateway.dialect(pool.name),
            gateway.headers(pool.name),
            gateway.tls(pool.name),
        )
        return ListedReplicas(
            access=access,
            health=config.health,
            urls=pool.replicas,
            dns=pool.dns,
            drain_s=config.drain_s,
        )
