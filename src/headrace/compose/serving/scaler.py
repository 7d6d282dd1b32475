"""The autoscaler with what it answers to and what it keeps, in whatever process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from headrace.autoscaler.budget import GpuBudget
from headrace.autoscaler.history import FileHistory, PrometheusHistory
from headrace.autoscaler.keda import PlansForKeda
from headrace.autoscaler.minutes import MinuteLog
from headrace.autoscaler.orders import Orders
from headrace.autoscaler.pool import NOT_LEARNED, ScaledPool
from headrace.autoscaler.ports import Actuator, Finder, ReportSource, SourceError
from headrace.autoscaler.program import Autoscaler
from headrace.autoscaler.reasons import step_in_words
from headrace.autoscaler.settings import (
    DEFAULT_KV_CAPACITY_TOKENS,
    PoolScaling,
    ScalingSection,
)
from headrace.compose.process.terminal import Terminal, counted
from headrace.compose.serving.wiring import StartError
from headrace.core.latency import LatencyProfile
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.kept_numbers import impossible
from headrace.core.scaling.settings import EngineFigures, ScalingTarget
from headrace.edges.extras import how_to_install
from headrace.edges.http.tls import TlsError, within
from headrace.edges.state_file import StateFile, StateFileError
from headrace.forecasting import pool_scaler
from headrace.gateway.control_server import reachable

if TYPE_CHECKING:
    from headrace.edges.keda.server import KedaServer


HISTORY_S = 60.0
"""The demand of the past must be read within this time; then it is done without it."""
OLD_S = 60.0
"""A past that was read so long ago is read anew before it is learned."""
T = TypeVar("T")
WANTED_S = 5.0
"""So long a pool without memory is not told to KEDA while it is asked what was wanted before."""
_AWAITS_PAST = "awaits_past"
"""Field of a pool's state."""


class ScalerHost:
    """An autoscaler with what it answers to and what it keeps, in whatever process.

    Args:
        section: The configuration's `scaling`.
        folder: Where its relative paths start.
        sources: The gateways to ask.
        actuators: What starts and ends replicas, by pool; KEDA does for the others.
        terminal: Takes a line for each change of what is wanted.
        finder: Finds gateways that come and go, beside `sources`.
        profiles: What its own file says of engines, by pool: believed until a gateway tells what
            it believes itself.
    """

    def __init__(
        self,
        section: ScalingSection,
        folder: Path,
        sources: Sequence[ReportSource],
        actuators: Mapping[str, Actuator],
        terminal: Terminal,
        *,
        finder: Finder | None = None,
        profiles: Mapping[str, LatencyProfile] = MappingProxyType({}),
    ) -> None:
        self._section = section
        self._folder = folder
        self._terminal = terminal
        self._wanted: dict[str, int] = {}
        self._unknown = frozenset[str]()
        self._state = None if section.state_file is None else StateFile(folder / section.state_file)
        pools = [
            _scaled_pool(name, scaling, actuators.get(name), profiles.get(name, NOT_LEARNED))
            for name, scaling in section.pools.items()
        ]
        self.autoscaler = Autoscaler(
            pools,
            sources,
            section.gathering,
            clock=time.time,
            store=None if self._state is None else self._store,
            on_change=self._on_change,
            minutes=self._minutes(),
            budget=_budget_of(section),
            finder=finder,
        )
        self._keda: KedaServer | None = None
        self._restored: frozenset[str] = frozenset()
        self._past_awaited = set[str]()
        """Pools that are still to learn from the demand of the past."""
        self._task: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._writing: asyncio.Task[None] | None = None
        self._unwritten: dict[str, Any] | None = None
        """What is to be written next: of states that come while one is written, the last."""
        self._write_problem = ""

    async def start(self) -> None:
        """Go on from what was kept, answer KEDA and begin. Raises StartError."""
        self._restored = self._restore()
        source = _history_of(self._section, self._folder)
        for pool in self.autoscaler.scaled.values():
            pool.awaits_former_number = _can_tell(source, pool) and not pool.has_memory
            pool.on_anew = self._begins_anew
        if self._section.keda is not None:
            self._keda = await self._start_keda()
        self._task = asyncio.create_task(self._run(), name="autoscaler")

    async def stop(self) -> None:
        """Keep what was learned, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._written()  # what was begun; then the last
            self.autoscaler.store()
            await self._written()
        if self._keda is not None:
            await self._keda.stop()

    def aim(self, pool: str, target: ScalingTarget) -> None:
        """Keep other targets from now on."""
        scaler = self.autoscaler.scaled[pool].scaler
        scaler.settings = replace(scaler.settings, target=target)

    def take_up(
        self,
        section: ScalingSection | None,
        profiles: Mapping[str, LatencyProfile] = MappingProxyType({}),
    ) -> list[str]:
        """Scale pools by changed settings from now on, without forgetting what was learned; what of
        the changes needs a restart, by name. A restart is needed for which pools are scaled, too.
        `profiles` as at the start.
        """
        if section is None:
            return ["scaling"]
        own, kept = self._section, {**self._section.pools}
        scaled = self.autoscaler.scaled
        for name in scaled:
            scaled[name].believe(profiles.get(name, NOT_LEARNED))
            pool = section.pools.get(name)
            if pool is not None and pool != own.pools[name]:
                scaled[name].retune(pool.settings(), pool.calendar, pool.gpus_per_replica)
                kept[name] = pool
        self._section = replace(own, pools=kept, gpus=section.gpus)
        self.autoscaler.budget = _budget_of(self._section)
        return [
            f"scaling.{each.name}"
            for each in fields(ScalingSection)
            if getattr(section, each.name) != getattr(self._section, each.name)
        ]

    @property
    def keda_address(self) -> str | None:
        """Where KEDA asks, as clients on this machine write it."""
        if self._keda is None or self._section.keda is None:
            return None
        return f"{reachable(self._section.keda.host)}:{self._keda.port}"

    @property
    def keda_tls(self) -> bool:
        """Whether KEDA has to ask by TLS."""
        return self._section.keda is not None and self._section.keda.tls is not None

    async def _start_keda(self) -> KedaServer:
        settings = self._section.keda
        assert settings is not None
        try:
            # Imported where it is asked for: an extra.
            from headrace.edges.keda.server import KedaServer  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise StartError(
                f"the configuration has `scaling.keda`, but {error.name} is not installed; install "
                f"the extra: {how_to_install('keda')}, or remove the section"
            ) from None
        if settings.tls is not None:
            settings = replace(settings, tls=within(self._folder, settings.tls))
        server = KedaServer(settings, PlansForKeda(self.autoscaler))
        try:
            await server.start()
        except TlsError as error:
            raise StartError(f"scaling.keda.tls.{error.field} {error}") from None
        except OSError as error:
            raise StartError(f"scaling.keda: {error}; choose another port") from None
        return server

    async def _run(self) -> None:
        source = _history_of(self._section, self._folder)
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self.autoscaler.run())
            for pool in self.autoscaler.scaled.values():
                self._ask_history(source, pool, group)

    def _ask_history(
        self,
        source: FileHistory | PrometheusHistory | None,
        pool: ScaledPool,
        group: asyncio.TaskGroup,
    ) -> None:
        """Ask for what a pool does not know of its past."""
        if isinstance(source, PrometheusHistory) and pool.awaits_former_number:
            group.create_task(self._ask_before(source, pool))
        if source is not None and pool.name not in self._restored:
            self._past_awaited.add(pool.name)
            group.create_task(self._look_back(source, pool.name))

    def _begins_anew(self, pool: ScaledPool) -> None:
        """What was kept of a pool was no state: it is as one of which nothing was kept."""
        self._restored -= {pool.name}
        source = _history_of(self._section, self._folder)
        if self._group is not None:
            pool.awaits_former_number = _can_tell(source, pool)
            self._ask_history(source, pool, self._group)

    # ------------------------------------------------------------ what is kept

    def _minutes(self) -> MinuteLog | None:
        """Keeps the history file, if there is one."""
        source = _history_of(self._section, self._folder)
        if not isinstance(source, FileHistory):
            return None

        def keep(pool: str, sample: DemandSample) -> None:
            nonlocal told
            try:
                source.keep(pool, sample)
            except SourceError as error:
                if str(error) != told:  # once, not at every minute
                    self._terminal.problem(str(error))
                told = str(error)
            else:
                told = ""

        told = ""
        return MinuteLog(keep, interval_s=self._section.gathering.interval_s)

    async def _ask_before(self, source: PrometheusHistory, pool: ScaledPool) -> None:
        """Ask how many replicas of a pool of which nothing was kept were wanted before: those that
        start just now are in no list, and the number of those that are there would take them back.
        """
        now = time.time()
        wanted, problem = await _asked(source.wanted(pool.name, now), WANTED_S)
        steps: Sequence[tuple[float, int]] | None = None
        if problem:
            unknown = "what is ordered and not ready yet is not known"
            self._terminal.problem(f"{problem}; of pool {pool.name} {unknown}")
        elif wanted is not None:
            told = counted(wanted, "replica")
            self._terminal.status(f"pool {pool.name}: {told} wanted before, by Prometheus")
            # Who cannot tell when that was has told enough.
            steps, _ = await _asked(source.wanted_steps(pool.name, now), WANTED_S)
        pool.ordered_before(wanted, steps or ())

    async def _look_back(self, source: FileHistory | PrometheusHistory, name: str) -> None:
        """Learn from the demand of the past on a pool of which nothing else was kept, while it is
        scaled already. What was read is learned however long it takes until the engines are known;
        where that was long, with what came meanwhile.
        """
        read_s = time.time()
        history, problem = await _asked(source.read(name, read_s), HISTORY_S)
        if history is not None:
            told = counted(len(history), "minute")
            self._terminal.status(f"pool {name}: {told} of history read")
            await self.autoscaler.engines_known(name)
            if time.time() - read_s > OLD_S:
                newer, _ = await _asked(source.read(name, time.time()), HISTORY_S)
                history = newer or history
            _, problem = await _asked(self.autoscaler.remember(name, history))
        if problem:
            self._terminal.problem(f"{problem}; pool {name} begins without its past")
        self._past_awaited.discard(name)

    def _restore(self) -> frozenset[str]:
        """Go on from what was kept; the names of the pools that have no past to learn from."""
        if self._state is None:
            return frozenset()
        try:
            kept = self._state.read()
        except StateFileError as error:
            self._terminal.problem(f"{error}; the scaler begins anew")
            return frozenset()
        there = [pool for name, pool in self.autoscaler.scaled.items() if name in kept]
        gone_on = [pool.name for pool in there if self._goes_on(pool, kept[pool.name])]
        return frozenset(name for name in gone_on if not kept[name].get(_AWAITS_PAST))

    def _goes_on(self, pool: ScaledPool, kept: dict[str, Any]) -> bool:
        """Whether a pool could go on from what was kept of it; if not, nothing of it is used."""
        assert self._state is not None
        scaler = pool_scaler(pool.scaler.settings, pool.scaler.figures)
        if fault := impossible(kept, time.time()):
            self._terminal.problem(
                f"{self._state.path}: what is kept of pool {pool.name} cannot be true: {fault}; "
                "the pool begins anew"
            )
            return False
        try:
            scaler.restore(kept)
            orders = None
            if "orders" in kept:  # a file of before they were kept has none
                orders = Orders()
                orders.restore(kept["orders"])
        except Exception as error:  # noqa: BLE001 - whatever another version or a torn file holds
            self._terminal.problem(
                f"{self._state.path}: what is kept of pool {pool.name} is of another version "
                f"({error!r}); the pool begins anew"
            )
            return False
        pool.go_on(scaler, orders)
        return True

    def _store(self, state: dict[str, Any]) -> None:
        for name, kept in state.items():
            if name in self._past_awaited:  # at a restart it is read again
                kept[_AWAITS_PAST] = True
        self._unwritten = state
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="store")

    async def _write_all(self) -> None:
        """Beside everything else: a disk may take long."""
        while self._unwritten is not None:
            state, self._unwritten = self._unwritten, None
            await self._write(state)

    async def _write(self, state: dict[str, Any]) -> None:
        assert self._state is not None
        try:
            await asyncio.to_thread(self._state.write, state)
        except StateFileError as error:
            if str(error) != self._write_problem:
                self._terminal.problem(f"{error}; what is learned is lost at a restart")
            self._write_problem = str(error)
        else:
            self._write_problem = ""

    async def _written(self) -> None:
        if self._writing is not None:
            await self._writing

    # ------------------------------------------------------------ what is told

    def _on_change(self, pool: ScaledPool) -> None:
        plan, before = pool.plan, self._wanted.get(pool.name)
        assert plan is not None
        # At the very first look others have not answered yet: who never does is told by name.
        if before is not None and plan.complete is (pool.name in self._unknown):
            self._unknown ^= {pool.name}
            why = f"not known, so nothing is lowered: {next(iter(plan.holds), '')}"
            told = "known again" if plan.complete else why
            self._terminal.status(f"pool {pool.name}: demand is {told}")
        if plan.replicas == before:
            return
        self._wanted[pool.name] = plan.replicas
        was = "" if before is None else f", not {before}"
        self._terminal.status(
            f"pool {pool.name}: {counted(plan.replicas, 'replica')} wanted{was} "
            f"({step_in_words(msgspec.to_builtins(plan))})"
        )


async def _asked(question: Awaitable[T], limit_s: float | None = None) -> tuple[T | None, str]:
    """What comes of a history within so long, or why nothing does."""
    try:
        async with asyncio.timeout(limit_s):
            return await question, ""
    except (SourceError, TimeoutError) as error:
        return None, str(error) or f"history: no answer within {limit_s or 0.0:g} s"
    except Exception as error:  # noqa: BLE001 - figures that no engine could have had end no scaler
        return None, f"history: {error!r}"


def _history_of(section: ScalingSection, folder: Path) -> FileHistory | PrometheusHistory | None:
    history = section.history
    if history is None:
        return None
    if history.file is not None:
        return FileHistory(folder / history.file, history.days)
    assert history.prometheus is not None
    return PrometheusHistory(history.prometheus, history.days)


def _can_tell(source: FileHistory | PrometheusHistory | None, pool: ScaledPool) -> bool:
    """Whether a history knows more of what is ordered: what this process starts it knows itself."""
    return isinstance(source, PrometheusHistory) and pool.actuator is None


def _budget_of(section: ScalingSection) -> GpuBudget | None:
    if section.gpus is None:
        return None
    return GpuBudget(section.gpus, {n: each.gpu_weight for n, each in section.pools.items()})


def _scaled_pool(
    name: str, scaling: PoolScaling, actuator: Actuator | None, profile: LatencyProfile
) -> ScaledPool:
    figures = EngineFigures(profile, DEFAULT_KV_CAPACITY_TOKENS, gpus=scaling.gpus_per_replica)
    scaler = pool_scaler(scaling.settings(), figures.priced_by(profile))
    return ScaledPool(name, scaler, actuator=actuator, calendar=scaling.calendar)
