"""A pool of local processes that grows and shrinks as its scaler plans.

    order ──► STARTING ──► READY ──► DRAINING ──► gone
                 └─► STANDBY ──┘ wake    ├─► READY again, if it is wanted after all
                        └────────────────┘ while fewer stand by than should

A standby is a process that has loaded its model and that the gateway does not know: to wake it is
to tell the gateway, which takes no time. Where engines can sleep, it sleeps meanwhile: it is
STANDBY as soon as it says so, and STARTING while it wakes. One that does not fall asleep stands by
awake; one that does not wake is ended. A replica that drains gets nothing new and ends when its
last stream has. What is ordered while one drains, or is on its way to stand by, is that one: it is
loaded, or will be before a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from headrace.core.durations import in_words
from headrace.core.events import ReplicaChanged, ReplicaGone
from headrace.core.scaling.observation import Phase, ReplicaObservation, StandbyWakes
from headrace.core.scaling.plan import ScalePlan
from headrace.edges.fleets.keep_alive import LocalReplicas
from headrace.edges.fleets.local import (
    FleetEvent,
    LocalFleet,
    ReplicaAnswers,
    ReplicaDown,
    ReplicaLost,
    ReplicaSilent,
    ReplicaUp,
)
from headrace.edges.fleets.readiness import Emit, Trouble, nobody
from headrace.edges.fleets.sleep_mode import Sleeper, SleepError, SleepRefusedError

Notice = Callable[[str, str], None]
"""Takes the name of a replica and one line about it, for the operator."""

SILENT = "does not answer its health"
_DRAIN_LOOK_S = 0.05
"""A draining replica is looked at so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledPool:
    """Which pool of a gateway the processes are, and how they leave."""

    pool: str
    prefix: str = ""
    """What the replicas' names begin with; the pool's name by default."""
    max_context_tokens: int | None = None
    """Prompt and answer together, where it is known."""
    drain_s: float = 300.0
    """After so long, what still runs on a replica that leaves is cut."""


class _Member:
    """One process. `joins` says that the gateway is told as soon as it is ready; `task` is what it
    is busy with: its drain, falling asleep, waking; a `silent` one does not answer its health.
    """

    __slots__ = (
        "asleep",
        "joins",
        "name",
        "ordered_s",
        "phase",
        "ready_s",
        "silent",
        "task",
        "url",
    )

    def __init__(self, name: str, ordered_s: float, *, joins: bool) -> None:
        self.name = name
        self.joins = joins
        self.phase = Phase.STARTING
        self.url = ""
        self.ordered_s = ordered_s
        self.ready_s: float | None = None
        self.asleep = False
        self.silent = False
        self.task: asyncio.Task[None] | None = None

    def stop_task(self) -> None:
        """Whatever it is busy with."""
        if self.task is not None:
            self.task.cancel()
            self.task = None


class ScaledFleet:
    """Carries out the plans for one pool.

    Args:
        replicas: What a replica is.
        pool: Whose they are.
        emit: Takes what the gateway is to know.
        in_flight: How many requests a replica has now, by name.
        notice: Takes lines for the operator.
        clock: Unix time in seconds, the clock of observations.
        trouble: Takes what was wrong with a replica just now.
        sleeper: Puts standbys to sleep; without it they wait as they are.
    """

    def __init__(
        self,
        replicas: LocalReplicas,
        pool: ScaledPool,
        *,
        emit: Emit,
        in_flight: Callable[[str], int],
        notice: Notice,
        clock: Callable[[], float],
        trouble: Trouble = nobody,
        sleeper: Sleeper | None = None,
    ) -> None:
        self._pool = pool
        self.drain_s = pool.drain_s
        """For drains that begin from now on."""
        self._emit = emit
        self._in_flight = in_flight
        self._notice = notice
        self._clock = clock
        self._trouble = trouble
        self._sleeper = sleeper
        self._fleet = LocalFleet(replicas, self._on_event, prefix=pool.prefix or pool.pool)
        self._members: dict[str, _Member] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._standby = 0
        self._again_s = 0.0
        self._closed = False
        self._order_delay_s = replicas.keep.max_restart_delay_s
        self.refused = ""
        """Why the last replica that was ordered could not be had; "" once one was ready."""
        self.wakes = StandbyWakes()
        """What became of standbys."""

    def start(self, replicas: int) -> None:
        """Order the first ones. Raises LocalFleetError if none could ever start."""
        self._closed = False
        self._fleet.start(0)
        for _ in range(replicas):
            self._order(joins=True)

    async def wait_ready(self) -> None:
        """Return when all that were ordered were ready once. Raises LocalFleetError."""
        await self._fleet.wait_ready()

    def urls(self) -> dict[str, str]:
        """Where each replica that is ready listens, by name."""
        members = self._members.values()
        return {each.name: each.url for each in members if each.phase is Phase.READY}

    async def close(self) -> None:
        """End every process. Nothing is begun or reported any more."""
        self._closed = True
        tasks = [member.task for member in self._members.values() if member.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._members.clear()
        await self._fleet.stop()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    # ------------------------------------------------------------ what a scaler sees and wants

    def observed(self) -> tuple[ReplicaObservation, ...]:
        """The processes as they are; a standby counts from when it is ready."""
        return tuple(
            ReplicaObservation(
                member.name,
                member.phase,
                ordered_at_s=member.ordered_s,
                ready_at_s=member.ready_s,
            )
            for member in self._members.values()
            if member.joins or member.phase is not Phase.STARTING
        )

    def carry_out(self, plan: ScalePlan) -> None:
        """Begin what a plan says; nothing is waited for.

        After a replica that could not be had, no other one is ordered for a while; after `close`
        nothing is begun.
        """
        if self._closed:
            return
        missing = plan.order
        self._standby = plan.standby
        for name in plan.wake:
            missing += not self._wake(name)
        for name in plan.drain:
            self._leave(name)
        may_order = self._may_order()
        for _ in range(max(0, missing)):
            if not self._stay() and not self._turn_back() and may_order:
                name = self._order(joins=True)
                self._notice(name, f"replica {name} is started")
        self._keep_standby()

    def _may_order(self) -> bool:
        """Not within `max_restart_delay` of a replica that could not be had; a wait that is longer
        is of a clock that was set back.
        """
        return not 0.0 < self._again_s - self._clock() <= self._order_delay_s

    def _order(self, *, joins: bool) -> str:
        name = self._fleet.order()
        self._members[name] = _Member(name, self._clock(), joins=joins)
        return name

    def _wake(self, name: str) -> bool:
        """Have a standby join; whether it could."""
        member = self._members.get(name)
        if member is None or member.phase is not Phase.STANDBY or member.silent:
            return False
        member.joins = True
        if member.asleep:
            member.phase = Phase.STARTING
            member.task = asyncio.create_task(self._awaken(member), name=f"wake {name}")
        else:
            self._join_from_standby(member, 0.0)
        return True

    def _stay(self) -> bool:
        """Have a replica that drains stay after all; whether there is one."""
        for member in self._members.values():
            if member.phase is Phase.DRAINING and member.task is not None and not member.silent:
                member.stop_task()
                self._join(member)
                self._notice(member.name, f"replica {member.name} stays: it is wanted again")
                return True
        return False

    def _turn_back(self) -> bool:
        """Have a replica on its way to stand by join instead; whether there is one.

        No plan can wake it, for it is not observed yet. One that falls asleep does so first: what
        an engine makes of a wake meanwhile is not known.
        """
        turning = [
            member
            for member in self._members.values()
            if member.phase is Phase.STARTING and not member.joins
        ]
        if not turning:
            return False
        # The nearest first: one that wakes, one that falls asleep, one that loads.
        member = min(turning, key=lambda each: (not each.asleep, each.task is None))
        member.joins = True
        self._notice(member.name, f"replica {member.name} joins when it can: it is wanted")
        return True

    def _leave(self, name: str) -> None:
        member = self._members.get(name)
        if member is None or member.phase is Phase.DRAINING:
            return
        busy = member.silent and self._in_flight(name) > 0
        if member.phase is Phase.READY or busy:
            member.phase = Phase.DRAINING
            self._report(member, ready=True)
            running = self._in_flight(name)
            self._notice(name, f"replica {name} drains: {running} in flight")
            member.task = asyncio.create_task(self._drain(member), name=f"drain {name}")
        elif member.asleep or member.task is not None:
            member.joins = False  # it wakes or falls asleep, and then stands by or ends
        else:  # it has nothing to finish
            self._retire(member)

    async def _drain(self, member: _Member) -> None:
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + self.drain_s
        while self._in_flight(member.name) and clock() < deadline_s:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_DRAIN_LOOK_S)
        member.task = None
        if self._in_flight(member.name) or len(self._standbys()) >= self._standby:
            self._retire(member)
            return
        self._emit(ReplicaGone(member.name))
        self._stand_by(member)

    def _retire(self, member: _Member) -> None:
        """It has nothing to do any more: the gateway forgets it and its process ends."""
        member.stop_task()
        del self._members[member.name]
        if member.url:
            self._emit(ReplicaGone(member.name))
        self._notice(member.name, f"replica {member.name} is gone")
        task = asyncio.create_task(self._fleet.retire(member.name))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # ------------------------------------------------------------ those that stand by

    def _standbys(self) -> list[_Member]:
        """Those that stand by or are on their way to it, the ones that are there first."""
        found = [
            member
            for member in self._members.values()
            if member.phase is Phase.STANDBY
            or (member.phase is Phase.STARTING and not member.joins)
        ]
        return sorted(found, key=lambda member: member.phase is not Phase.STANDBY)

    def _keep_standby(self) -> None:
        standby = self._standbys()
        for member in standby[self._standby :]:
            self._retire(member)
        # One that drains will stand by; until then it is as near, for it may stay.
        drain = sum(member.phase is Phase.DRAINING for member in self._members.values())
        missing = self._standby - len(standby) - drain
        for _ in range(missing if self._may_order() else 0):
            name = self._order(joins=False)
            self._notice(name, f"replica {name} is started as a standby")

    def _stand_by(self, member: _Member) -> None:
        """It is loaded and nobody's: it may sleep."""
        member.joins = False
        if self._sleeper is None:
            member.phase = Phase.STANDBY
            self._notice(member.name, f"replica {member.name} stands by")
        else:
            member.phase = Phase.STARTING
            sleeps = self._fall_asleep(member, self._sleeper)
            member.task = asyncio.create_task(sleeps, name=f"sleep {member.name}")

    async def _fall_asleep(self, member: _Member, sleeper: Sleeper) -> None:
        try:
            await sleeper.sleep(member.url)
        except SleepError as error:
            # Nobody knows what the others did; to wake one that is awake does no harm.
            member.asleep = not isinstance(error, SleepRefusedError)
            self._trouble(member.name, str(error))
            how = f" awake: it {error}"
        else:
            member.asleep = True
            how = ", asleep"
        if member.joins and member.asleep:  # it is wanted after all
            await self._awaken(member)
            return
        member.task = None
        if member.joins:
            self._join_from_standby(member, 0.0)
            return
        member.phase = Phase.STANDBY
        self._notice(member.name, f"replica {member.name} stands by{how}")

    async def _awaken(self, member: _Member) -> None:
        assert self._sleeper is not None
        began_s = self._clock()
        try:
            await self._sleeper.wake(member.url)
        except SleepError as error:
            self.wakes.failed += 1
            self.refused = f"replica {member.name} {error}"
            self._trouble(member.name, str(error))
            self._notice(member.name, f"replica {member.name} is ended: it {error}")
            member.task = None
            self._retire(member)
            return
        member.asleep = False
        member.task = None
        if member.joins:
            self._join_from_standby(member, self._clock() - began_s)
        else:  # it is not wanted any more
            self._stand_by(member)

    def _join_from_standby(self, member: _Member, took_s: float) -> None:
        self.wakes.joined += 1
        self.wakes.last_s = took_s
        self.refused = ""
        self._join(member)
        woke = f", awake after {in_words(took_s)}" if took_s else ""
        self._notice(member.name, f"replica {member.name} joins from standby{woke}")

    # ------------------------------------------------------------ what the processes do

    def _on_event(self, event: FleetEvent) -> None:
        member = self._members.get(event.name)
        if member is None or self._closed:
            return
        match event:
            case ReplicaUp(name, url, _, cold_start_s):
                self.refused = ""
                member.url = url
                member.ready_s = self._clock()
                took = f"ready at {url} after {in_words(cold_start_s)}"
                if member.joins:
                    self._join(member)
                    self._notice(name, f"replica {name} is {took}")
                else:
                    self._notice(name, f"replica {name} is {took}")
                    self._stand_by(member)
            case ReplicaDown(name, reason):
                self._down(member, reason)
            case ReplicaSilent(name):
                self._trouble(name, SILENT)
                self._notice(name, f"replica {name} {SILENT}")
                member.silent = True
                if member.phase is Phase.READY:
                    member.phase = Phase.FAILING
                    self._report(member, ready=False)
            case ReplicaAnswers(name):
                self._notice(name, f"replica {name} answers again")
                member.silent = False
                if member.phase is Phase.FAILING:
                    self._join(member)
            case ReplicaLost(name, reason):
                self.refused = f"replica {name} {reason}"
                self._again_s = self._clock() + self._order_delay_s
                self._trouble(name, reason)
                self._notice(name, f"replica {name} is given up: it {reason}")
                self._retire(member)

    def _down(self, member: _Member, reason: str) -> None:
        member.stop_task()
        member.asleep = member.silent = False
        if member.phase is Phase.DRAINING:
            self._retire(member)
            return
        self._trouble(member.name, reason)
        self._notice(member.name, f"replica {member.name} is down: {reason}; it is started again")
        if member.phase is Phase.READY:
            self._report(member, ready=False)
        failing = member.joins and member.ready_s is not None
        member.phase = Phase.FAILING if failing else Phase.STARTING

    def _join(self, member: _Member) -> None:
        member.phase = Phase.READY
        self._report(member, ready=True)

    def _report(self, member: _Member, *, ready: bool) -> None:
        self._emit(
            ReplicaChanged(
                member.name,
                self._pool.pool,
                member.url,
                ready=ready,
                max_context_tokens=self._pool.max_context_tokens,
                draining=member.phase is Phase.DRAINING,
            )
        )
