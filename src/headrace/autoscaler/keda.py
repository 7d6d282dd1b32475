"""Plans as KEDA's edge takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.autoscaler.program import Autoscaler
from headrace.edges.keda.ports import Published


class PlansForKeda:
    """The port of `headrace.edges.keda` over an autoscaler."""

    def __init__(self, autoscaler: Autoscaler) -> None:
        self._autoscaler = autoscaler

    def pools(self) -> Sequence[str]:
        """The names of the pools that are scaled."""
        return self._autoscaler.pools()

    def published(self, pool: str, tolerance: float) -> Published | None:
        """What is wanted of a pool now; None while nothing of that is known."""
        known = self._autoscaler.value_of(pool, tolerance)
        if known is None:
            return Published(None, True) if self._autoscaler.needs_replicas(pool) else None
        plan, told = known
        return Published(told.value, plan.active)

    def next_change(self) -> asyncio.Future[None]:
        """Done as soon as any plan is another one."""
        return self._autoscaler.next_change()
