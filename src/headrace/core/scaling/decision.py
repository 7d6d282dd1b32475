"""The scaler of one pool: observations in, plans out.

    observation ──► demand, misses, cold starts ──► signals ──► wish ──► bounds ──► hysteresis
                          │        ▲                                                    │
                          └► forecaster                                               plan

The highest wish wins; signals that may only raise come on top; floor and ceiling bound it; up it
goes at once, down late, and not at all while anything is missing. `tick` is a pure function of the
observations so far: no clock, no chance, so that two scalers that are told the same decide the
same, and one that restarts (`restore`) goes on as if it had not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from headrace.core.scaling.backlog import backlog_of, clear_s
from headrace.core.scaling.bounds import bounds, in_groups, standby_seats
from headrace.core.scaling.capacity import load_carried
from headrace.core.scaling.cold_starts import ColdStarts
from headrace.core.scaling.demand import DemandMeter, MinuteLoad, minutes_of
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.drain_choice import drain_order
from headrace.core.scaling.hysteresis import Hysteresis
from headrace.core.scaling.misses import MissLog
from headrace.core.scaling.observation import PoolObservation, ReplicaObservation
from headrace.core.scaling.plan import DemandOutlook, ScalePlan, Signal
from headrace.core.scaling.served_curve import ServedCurve
from headrace.core.scaling.settings import EngineFigures, ScalingSettings
from headrace.core.scaling.view import Phases, ScalingView
from headrace.core.signals import opinions
from headrace.core.signals.memory_bandwidth import memory_use

KNOWS_AFTER_S = 300.0
"""A scaler that has just started does not lower anything before it has seen demand for so long: a
quiet minute is no reason to take down a fleet."""
WENT_BACK_S = 30.0
"""A clock that is set back by no more only stands still for so long."""
LOST_SHARE = 0.5
"""Of the ready replicas gone from one look to the next without an order: not to be believed."""


class Forecaster(Protocol):
    """Looks ahead on demand, in replicas fully used; `headrace.forecasting` has one."""

    def observe(self, minute: MinuteLoad, horizon_s: float) -> None:
        """Take the mean demand of one minute; they come in order, and some may be missing."""
        ...

    def outlook(self, load: float, now: float, horizon_s: float) -> DemandOutlook:
        """The highest demand within `horizon_s`, where `load` is demand now."""
        ...

    def state(self) -> dict[str, Any]:
        """All it has learned, as JSON can hold it."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        ...


class PoolScaler:
    """Decides how many replicas a pool has. Without a forecaster it follows demand.

    `settings` and `figures` may be replaced between ticks.
    """

    __slots__ = (
        "_cold_starts",
        "_counts",
        "_demand",
        "_fits_since_s",
        "_forecaster",
        "_granted",
        "_guessed",
        "_hysteresis",
        "_kv_marks",
        "_misses",
        "_phases",
        "_ready_before",
        "_served",
        "figures",
        "settings",
    )

    def __init__(
        self,
        settings: ScalingSettings,
        figures: EngineFigures,
        forecaster: Forecaster | None = None,
    ) -> None:
        self.settings = settings
        self.figures = figures
        self._forecaster = forecaster
        self._demand = DemandMeter()
        self._misses = MissLog()
        self._cold_starts = ColdStarts()
        self._hysteresis = Hysteresis()
        self._counts: deque[tuple[float, int]] = deque()
        self._kv_marks: deque[tuple[float, float]] = deque(maxlen=8)
        self._phases = Phases((), 0.0)
        self._served = ServedCurve()
        self._ready_before = 0
        self._granted = 0
        self._guessed = False
        self._fits_since_s: float | None = None

    def tick(self, observation: PoolObservation, now: float) -> ScalePlan:
        """Decide anew. `now` is the observation's clock; where it was set back, demand is not known
        for a while, as after a first start.
        """
        seen_s = self._demand.seen_s
        if seen_s is not None and now < seen_s - WENT_BACK_S:
            self._rewind()
        troubles = self._take(observation, now)
        view = self._view(observation, now)
        told = opinions(view)
        floor, ceiling = bounds(view, told)
        wish, decided_by = _wish(told)
        is_idle = self._may_be_zero(view)
        if is_idle:
            wish, decided_by = 0.0, "idle"
        needed = wish
        if floor.replicas > wish:
            wish, decided_by = floor.replicas, f"floor: {floor.why}"
        if self._hysteresis.number is None or self._guessed:
            self._adopt(view, floor)
        forbidden = "while data are missing" if troubles else self.unknown(now)
        if not forbidden and self._demand.left:
            forbidden = f"so soon after gateway {', '.join(self._demand.left)} has left"
        # A budget bounds what it comes to, not what is asked of it: others share by that, and what
        # trembles there would take replicas from one and give them to the other all the time.
        why = self._hysteresis.decide(
            min(needed, self.settings.max_replicas),
            now,
            self.settings.scale_down_window_s,
            forbidden,
            int(floor.replicas),
        )
        holds = [*troubles, *self._demand.remarks, *([why] if why else [])]
        most = ceiling.replicas
        if max(wish, self._hysteresis.number or 0) > most:
            decided_by = f"ceiling: {ceiling.why}"
            asked = f"{wish:.2f} wished" if wish > most else f"{self._hysteresis.number} held"
            holds = [*holds, f"{asked}, {most:.0f} allowed by {ceiling.why}"]
        elif why:
            decided_by = "hysteresis"
        number = self._granted = self._bounded(floor, ceiling)
        signals = (*told, floor, ceiling)
        plan = self._plan(view, number, signals, decided_by, holds, complete=not troubles)
        is_known = not troubles and not self._demand.left
        return replace(plan, may_fall=not forbidden, may_yield=is_idle and is_known)

    def learn(self, samples: Iterable[DemandSample]) -> None:
        """Take history from elsewhere, oldest first, before the first tick."""
        if self._forecaster is None:
            return
        for minute in minutes_of(samples, self.settings, self.figures):
            self._forecaster.observe(minute, self.horizon_s)

    def expect(self, number: int) -> None:
        """So many were wanted before this scaler knew anything: they may all be starting, and be in
        no list. Begin from them.
        """
        self._guessed |= self._hysteresis.number is None  # what is there may be more
        self._hysteresis.number = max(self._hysteresis.number or 0, number)
        self._granted = max(self._granted, number)

    @property
    def number(self) -> int:
        """What was decided last, by an earlier process too; 0 before anything was."""
        return self._granted

    @property
    def horizon_s(self) -> float:
        """How far is looked ahead: a cold start and the time until the next decision."""
        return self._cold_starts.expected_s(self.settings.cold_start) + self.settings.tick_s

    def state(self) -> dict[str, Any]:
        """What a restarted scaler needs to go on as if it had not, as JSON can hold it."""
        return {
            "hysteresis": self._hysteresis.state(),
            "cold_starts_s": self._cold_starts.state(),
            "misses": self._misses.state(),
            "served": self._served.state(),
            "counts": [list(each) for each in self._counts],
            "ready_before": self._ready_before,
            "granted": self._granted,
            "guessed": self._guessed,
            "fits_since_s": self._fits_since_s,
            "kv_marks": [list(each) for each in self._kv_marks],
            "demand": self._demand.state(),
            "forecast": None if self._forecaster is None else self._forecaster.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self._hysteresis.restore(state["hysteresis"])
        self._cold_starts.restore(state["cold_starts_s"])
        self._misses.restore(state["misses"])
        self._served.restore(state["served"])
        self._counts = deque((at_s, count) for at_s, count in state["counts"])
        self._ready_before = state["ready_before"]
        # A file of before budgets bounded the outcome alone has no other number. What is none has
        # to be found here: a budget shares by it before this pool decides anything.
        self._granted = int(state.get("granted", self._hysteresis.number or 0))
        self._guessed = state.get("guessed", False)  # a file of before this was kept has none
        self._fits_since_s = state["fits_since_s"]
        self._kv_marks.extend((at_s, ratio) for at_s, ratio in state["kv_marks"])
        self._demand.restore(state["demand"])
        if self._forecaster is not None and state["forecast"] is not None:
            self._forecaster.restore(state["forecast"])

    # ---- what is known

    def _rewind(self) -> None:
        """Forget what has a time that is still to come. The number stays, and what was learned of
        demand, engines and their starts.
        """
        number, usable = self._hysteresis.number, self._demand.usable
        self._demand, self._misses, self._hysteresis = DemandMeter(), MissLog(), Hysteresis()
        self._demand.usable, self._hysteresis.number = usable, number
        self._fits_since_s = None
        self._counts.clear()
        self._kv_marks.clear()

    def _take(self, observation: PoolObservation, now: float) -> list[str]:
        """Learn from an observation; the answer says what is missing in it."""
        if observation.replicas is not self._phases.replicas:
            self._phases = Phases(observation.replicas, self.settings.stale_s)
        phases = self._phases
        self._demand.observe(observation, self.settings, self.figures, now, self.horizon_s)
        self._misses.observe(observation.gateways, now)
        self._teach(observation)
        troubles = list(self._demand.troubles)
        ready = len(phases.ready)
        if not observation.replicas_known:
            troubles.append("the list of replicas could not be read")
            return troubles
        self._cold_starts.observe(observation.replicas)
        number, ordered = self._granted, len(phases.ordered)
        if ordered < LOST_SHARE * min(number, self._ready_before):
            troubles.append(f"{ordered} replicas are told, {self._ready_before} were ready before")
        self._ready_before = ready
        if 2 * len(phases.fresh) < ready and any(
            replica.measured_age_s is not None for replica in observation.replicas
        ):
            lost = ready - len(phases.fresh)
            troubles.append(f"figures of {lost} of {ready} replicas are missing or old")
        self._mark_kv(phases.fresh, now)
        return troubles

    def _teach(self, observation: PoolObservation) -> None:
        """Learn from the minutes that are complete, and from how they were served."""
        capacity = self._demand.capacity
        for minute in self._demand.minutes:
            told = minute
            if capacity is not None and observation.replicas_known:
                ready = len(self._phases.ready)
                missed_share = self._misses.missed_share(minute.begin_s)
                carried = load_carried(capacity, ready)
                told = replace(minute, carried=carried, missed_share=missed_share)
                if missed_share is not None and carried > 0.0:
                    use = self._demand.usable * minute.load / carried
                    allowed = 1.0 - self.settings.target.attainment
                    self._served.observe(use, missed_share, ready, allowed)
            if self._forecaster is not None:
                self._forecaster.observe(told, self.horizon_s)
        self._demand.usable = self._served.usable

    def _mark_kv(self, fresh: tuple[ReplicaObservation, ...], now: float) -> None:
        usages = [each.kv_usage_ratio for each in fresh if each.kv_usage_ratio is not None]
        if usages:
            self._kv_marks.append((now, sum(usages) / len(usages)))

    def unknown(self, now: float) -> str:
        """Why demand is not known well enough to lower anything; "" if it is."""
        since_s = self._demand.known_since_s
        if since_s is not None and now - since_s >= KNOWS_AFTER_S:
            return ""
        return f"before demand is known for {KNOWS_AFTER_S:.0f} s"

    def _view(self, observation: PoolObservation, now: float) -> ScalingView:
        demand, settings = self._demand, self.settings
        cold_start_s = self._cold_starts.expected_s(settings.cold_start)
        phases = self._phases
        ready = phases.ready
        outlook = None
        if self._forecaster is not None and demand.known_since_s is not None:
            outlook = self._forecaster.outlook(demand.load, now, self.horizon_s)
        view = ScalingView(
            now=now,
            observation=observation,
            settings=settings,
            figures=self.figures,
            capacity=demand.capacity,
            lengths=demand.lengths,
            load=demand.load,
            requests_per_s=demand.requests_per_s,
            held_requests=demand.held_requests,
            cold_start_s=cold_start_s,
            outlook=outlook,
            burn_rates=self._misses.burn_rates(settings.target.attainment, now),
            kv_growth_per_s=_growth(self._kv_marks),
            steady_replicas=self._ordered_before(len(phases.ordered), now, cold_start_s),
            number=self._hysteresis.number or 0,
            idle_s=self._idle_s(ready, now),
            ready=ready,
            fresh=phases.fresh,
            ordered=phases.ordered,
            standby=phases.standby,
        )
        view.backlog = backlog_of(view)
        view.fits_s = self._fits_s(view, now)
        return view

    def _fits_s(self, view: ScalingView, now: float) -> float:
        """For how long the ready replicas have had room for demand, and time for the backlog that
        a shortage left.
        """
        ready = len(view.ready)
        if view.staffed(view.load) > ready:
            self._fits_since_s = None
            return 0.0
        if self._fits_since_s is None:
            left_s = 0.0
            if view.backlog is not None and view.capacity is not None:
                left_s = clear_s(view.backlog.excess_s, view.capacity, ready, view.load)
            self._fits_since_s = now + min(left_s, view.cold_start_s)
        return max(now - self._fits_since_s, 0.0)

    def _ordered_before(self, ordered: int, now: float, ago_s: float) -> int:
        """How many were ordered so long ago, or when that was first known."""
        self._counts.append((now, ordered))
        while len(self._counts) > 1 and self._counts[1][0] <= now - ago_s:
            self._counts.popleft()
        return self._counts[0][1]

    def _idle_s(self, ready: tuple[ReplicaObservation, ...], now: float) -> float:
        """For how long nothing has come and nothing runs."""
        since_s = self._demand.idle_since_s
        if since_s is None or any(replica.running for replica in ready):
            return 0.0
        return now - since_s

    def _may_be_zero(self, view: ScalingView) -> bool:
        """Whether nothing has been asked for so long that what may come can wait for a start."""
        settings = self.settings
        is_idle = view.idle_s >= settings.idle_to_zero_s and view.held_requests <= 0.0
        return settings.min_replicas == 0 and is_idle

    # ---- the plan

    def _adopt(self, view: ScalingView, floor: Signal) -> None:
        """A first tick begins from what is there: nobody knows yet what it is good for. Where that
        is not known, the first one that knows it does.
        """
        there = len(view.ordered) if view.observation.replicas_known else 0
        number = self._hysteresis.number or 0
        self._hysteresis.number = max(number, there, int(floor.replicas))
        self._guessed = not view.observation.replicas_known

    def _bounded(self, floor: Signal, ceiling: Signal) -> int:
        number = self._hysteresis.number
        assert number is not None
        least, most = int(floor.replicas), int(ceiling.replicas)
        number = max(min(number, most), min(least, most))
        return in_groups(number, self.settings.group_replicas, most, self.settings.min_replicas)

    def _plan(
        self,
        view: ScalingView,
        number: int,
        signals: tuple[Signal, ...],
        decided_by: str,
        holds: list[str],
        *,
        complete: bool,
    ) -> ScalePlan:
        observation, settings = view.observation, self.settings
        asleep = tuple(replica.name for replica in view.standby)
        missing = max(number - len(view.ordered), 0) if observation.replicas_known else 0
        surplus = max(len(view.ordered) - number, 0) if complete else 0
        unplaced = len(self._phases.unplaced)
        if unplaced:
            holds = [*holds, f"{unplaced} ordered replicas have no place yet"]
        if observation.refused_order:
            holds = [*holds, f"the last order was refused: {observation.refused_order}"]
        wake = asleep[:missing]
        return ScalePlan(
            view.now,
            observation.pool,
            number,
            signals=signals,
            decided_by=decided_by,
            holds=tuple(holds),
            order=missing - len(wake),
            wake=wake,
            drain=drain_order(view.ordered, view.now)[:surplus] if surplus else (),
            standby=standby_seats(view, number),
            asked=self._hysteresis.number,
            active=number > 0 or view.held_requests > 0.0,
            complete=complete,
            next_tick_s=view.now + settings.tick_s,
            outlook=view.outlook,
            memory=memory_use(view) if view.ready else None,
            demand_since_s=self._demand.counted_since_s,
        )


def _wish(signals: Iterable[Signal]) -> tuple[float, str]:
    """The highest wish and whose it is."""
    wish, decided_by = 0.0, ""
    for signal in signals:
        if signal.kind in {"wants", "raises"} and signal.replicas > wish:
            wish, decided_by = signal.replicas, signal.name
    return wish, decided_by


def _growth(marks: Iterable[tuple[float, float]]) -> float:
    """Mean growth per second from the first to the last mark; 0 where there are no two."""
    there = list(marks)
    if len(there) < 2 or there[-1][0] <= there[0][0]:
        return 0.0
    return (there[-1][1] - there[0][1]) / (there[-1][0] - there[0][0])
