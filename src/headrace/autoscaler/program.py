"""The loop: ask every gateway, decide for each pool that is due, publish.

Asking goes on beside everything else and one gateway that hangs holds up nobody: its report grows
old, and the core sees that. Nothing here decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from headrace.autoscaler.budget import GpuBudget
from headrace.autoscaler.gathering import Gathering
from headrace.autoscaler.minutes import MinuteLog
from headrace.autoscaler.pool import ScaledPool
from headrace.autoscaler.ports import Finder, ReportSource, SourceError
from headrace.autoscaler.settings import GatheringSettings
from headrace.autoscaler.tolerance import HpaValue
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.plan import ScalePlan

_log = logging.getLogger(__name__)

Store = Callable[[dict[str, object]], None]
"""Keeps the scalers' state, by pool."""
STORE_EVERY_S = 60.0


class Autoscaler:
    """Runs between `run` and its cancellation.

    Args:
        pools: What is scaled.
        sources: The gateways that are always there.
        settings: How they are asked.
        clock: Unix time in seconds.
        store: Keeps what the scalers have learned, now and then and at the end.
        on_change: Called after each decision that changes something.
        minutes: Keeps demand by the minute.
        budget: GPUs that all pools share.
        finder: Finds gateways that come and go, beside `sources`.
    """

    def __init__(
        self,
        pools: Sequence[ScaledPool],
        sources: Sequence[ReportSource],
        settings: GatheringSettings,
        *,
        clock: Callable[[], float],
        store: Store | None = None,
        on_change: Callable[[ScaledPool], None] | None = None,
        minutes: MinuteLog | None = None,
        budget: GpuBudget | None = None,
        finder: Finder | None = None,
    ) -> None:
        self.scaled = {pool.name: pool for pool in pools}
        self.gathering = Gathering([source.name for source in sources])
        self.clock = clock
        self.ticks = 0
        self._sources = sources
        self._finder = finder
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._settings = settings
        self._store = store
        self._stored_s = clock()
        self._has_ordered = False
        """Whether a number was changed and is kept nowhere yet: who does not know it after a
        restart would take it back, with all replicas that are being made."""
        self._on_change = on_change
        self._minutes = minutes
        self.budget = budget
        self._waiting: set[asyncio.Future[None]] = set()

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._look_up(group)
            group.create_task(self._beat(), name="decide")
            while self._finder is not None:
                await asyncio.sleep(self._settings.lookup_interval_s)
                await self._look_up(group)

    async def _look_up(self, group: asyncio.TaskGroup) -> None:
        """Follow those gateways that there are now."""
        found = () if self._finder is None else await self._finder.find()
        sources = {source.name: source for source in (*self._sources, *found)}
        for name in [name for name in self._followed if name not in sources]:
            self._followed.pop(name).cancel()
        # Those who are gone may have told something while they were asked for the last time.
        self.gathering.expect(tuple(sources))
        for name, source in sources.items():
            if name not in self._followed:
                task = group.create_task(self._follow(source), name=f"ask {name}")
                self._followed[name] = task

    async def _follow(self, source: ReportSource) -> None:
        while True:
            await self.ask(source)
            await asyncio.sleep(self._settings.interval_s)

    async def remember(self, name: str, history: Sequence[DemandSample]) -> None:
        """Learn from the demand on a pool in the past, oldest first, as soon as its engines are
        known; beside everything else.
        """
        await self.engines_known(name)
        for _ in self.scaled[name].look_back(history):
            await asyncio.sleep(0)

    async def engines_known(self, name: str) -> None:
        """Returns when requests of a pool can be told in replicas."""
        pool = self.scaled[name]
        while not pool.engines_known:  # noqa: ASYNC110 - any report may tell it
            await asyncio.sleep(self._settings.interval_s)

    async def ask(self, source: ReportSource) -> None:
        """Read one gateway and take what it tells."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                report = await source.read()
        except (SourceError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self._settings.timeout_s:g} s"
            if not self.gathering.knows(source.name) and source.name not in self.gathering.failures:
                _log.warning("gateway %s tells nothing: %s", source.name, reason)
            self.gathering.failed(source.name, reason)
            return
        except Exception as error:  # noqa: BLE001 - one gateway's words must not end the others'
            _log.exception("gateway %s could not be read", source.name)
            self.gathering.failed(source.name, repr(error))
            return
        is_new = not self.gathering.knows(source.name)
        had_failed = source.name in self.gathering.failures
        if is_new and had_failed:
            _log.warning("gateway %s answers now", source.name)
        self.gathering.take(source.name, report, self.clock())
        if is_new or had_failed:
            for pool in self.scaled.values():
                pool.hear_again()
        self.decide()

    async def _beat(self) -> None:
        """Decide when it is due even if nobody tells anything."""
        while True:
            await asyncio.sleep(self._settings.interval_s)
            self.decide()

    def decide(self) -> None:
        """Decide for each pool that is due, and tell those who wait for a change."""
        now, changed = self.clock(), False
        # All are looked at before GPUs are shared: what a pool has is part of its claim.
        looked = [pool for pool in self.scaled.values() if self._tried(self._look, pool, now)]
        shares = {} if self.budget is None else self.budget.share(self.scaled)
        for pool in looked:
            pool.grant(shares.get(pool.name))
            changed |= self._tried(self._decide, pool, now)
        if changed:
            self._tell()
        if self._has_ordered or not 0.0 <= now - self._stored_s < STORE_EVERY_S:
            self.store()

    def _tried(
        self,
        step: Callable[[ScaledPool, float], bool],
        pool: ScaledPool,
        now: float,
        *,
        failing: str = "pool %s could not be decided",
    ) -> bool:
        """What a step for one pool answers; False where it fails."""
        try:
            return step(pool, now)
        except Exception as error:  # noqa: BLE001 - one pool's fault must not stop the others
            if pool.fault != repr(error):  # it is tried again twice a second
                _log.exception(failing, pool.name)
            pool.fault = repr(error)
            return False

    def _look(self, pool: ScaledPool, now: float) -> bool:
        """Whether there is anything to decide by: something was told of the pool, now or before."""
        if not any(self.gathering.latest(pool.name)) and pool.plan is None:
            return False
        seen = pool.look(self.gathering, now)
        if self._minutes is not None:
            self._minutes.look(pool.name, seen, now)
        return True

    def _decide(self, pool: ScaledPool, now: float) -> bool:
        if not pool.is_due(now):
            return False
        self.ticks += 1
        number = pool.scaler.number
        try:
            changed = pool.decide(now)
        finally:  # what could not be carried out is carried out at the next decision
            self._has_ordered |= pool.scaler.number != number
        pool.fault = ""
        if changed and self._on_change is not None:
            self._on_change(pool)
        return changed

    def store(self) -> None:
        """Keep what the scalers have learned."""
        self._stored_s, self._has_ordered = self.clock(), False
        if self._store is None:
            return
        kept: dict[str, object] = {}

        def keep(pool: ScaledPool, _now: float) -> bool:
            if pool.need_known and not pool.is_guess:
                kept[pool.name] = pool.state()
            return True

        failing = "what pool %s has learned could not be kept"
        for pool in self.scaled.values():
            self._tried(keep, pool, self._stored_s, failing=failing)
        self._store(kept)

    # ------------------------------------------------------------ what is published

    def pools(self) -> Sequence[str]:
        """The names of the pools that are scaled."""
        return tuple(self.scaled)

    def value_of(self, pool: str, tolerance: float) -> tuple[ScalePlan, HpaValue] | None:
        """A pool's plan and the value for an HPA; None while it is not known."""
        return self.scaled[pool].published(tolerance, self.clock())

    def needs_replicas(self, pool: str) -> bool:
        """Whether it is known that a pool needs some; how many may be unknown."""
        return self.scaled[pool].needs_replicas(self.clock())

    def next_change(self) -> asyncio.Future[None]:
        """Done as soon as any plan is another one. Who waits for it may cancel it."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        waiter.add_done_callback(self._waiting.discard)
        return waiter

    def _tell(self) -> None:
        for waiter in tuple(self._waiting):
            if not waiter.done():
                waiter.set_result(None)
