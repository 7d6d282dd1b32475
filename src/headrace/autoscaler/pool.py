"""One pool under the autoscaler: its scaler, what was decided last, and what is published of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from headrace.autoscaler.gathering import Gathering
from headrace.autoscaler.orders import Orders
from headrace.autoscaler.ports import Actuator
from headrace.autoscaler.tolerance import HpaValue, rising_value
from headrace.core.latency import LatencyProfile
from headrace.core.profile_fit import UNKNOWN
from headrace.core.scaling.decision import KNOWS_AFTER_S, PoolScaler
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.observation import Phase, PoolObservation, ReplicaObservation
from headrace.core.scaling.plan import ScalePlan
from headrace.core.scaling.report import PoolReport
from headrace.core.scaling.settings import ScalingSettings
from headrace.engine_model.profiles import weight_bytes
from headrace.forecasting import pool_scaler
from headrace.forecasting.calendar import CalendarEntry, floors

MOST_KEPT = 240
"""Plans that are remembered for `headrace why --scaling`."""
LEARNED_AT_ONCE = 10
"""Minutes of the past that are learned from before others have their turn: some milliseconds."""
CALENDAR_EVERY_S = 3600.0
CALENDAR_AHEAD_S = 86_400.0
"""Floors are worked out once an hour, for a day: far more than any cold start."""
NOT_LEARNED = LatencyProfile(UNKNOWN, "not learned yet", 1e-6, 1e-9)
"""Stands for a profile until one is learned: so fast that only floors and held requests count."""

_ORDERED = (Phase.STARTING, Phase.UNSCHEDULABLE, Phase.READY, Phase.FAILING)


class ScaledPool:
    """Decides for one pool whenever it is due.

    Without an `actuator`, somebody else (KEDA) makes the replicas. The scaler's own figures hold
    until gateways tell what they believe of the engines. `calendar` becomes floors as its times
    come near.
    """

    def __init__(
        self,
        name: str,
        scaler: PoolScaler,
        *,
        actuator: Actuator | None = None,
        calendar: Sequence[CalendarEntry] = (),
    ) -> None:
        self.name = name
        self.scaler = scaler
        self.actuator = actuator
        self.plan: ScalePlan | None = None
        self.plans: deque[ScalePlan] = deque(maxlen=MOST_KEPT)
        """Those that differ from the one before, the newest last."""
        self.changes = 0
        """How many differed."""
        self.fault = ""
        """Why the last decision failed, if it did: a mistake of ours."""
        self.observation: PoolObservation | None = None
        self.need_known = actuator is not None
        """Whether it was ever known that replicas are needed, or that none are. Where others start
        them, those that all start just now are in no list yet, and KEDA would end them at once."""
        self.awaits_former_number = False
        """Whether it is still being asked what was wanted before this scaler came. Less than that
        must not be published: what is ready now may be the least part of what was ordered."""
        self._former_number_is_new = False
        """Whether a number of before has come since the last decision."""
        self._heard_again = False
        """Whether a gateway has told something that the last decision had to do without."""
        self.on_anew: Callable[[ScaledPool], None] | None = None
        """Called where the pool begins anew, since no decision could be made from what was kept."""
        self._former = 0
        """As many were ordered before this scaler came; 0 once those that miss are open orders."""
        self._former_steps: Sequence[tuple[float, int]] = ()
        """How many were wanted at which times before, as far as that is known; oldest first."""
        self._untried = False
        """Whether the scaler went on from what was kept and has not decided since."""
        self._wanted_before = 0
        """The number before the one that is wanted now; 0 before it was another one."""
        self._figures = scaler.figures
        self._weighed = ""
        """The profile whose weights a cold start is reckoned with."""
        self._orders = Orders()
        self._calendar = calendar
        self._calendar_read_s: float | None = None

    def go_on(self, scaler: PoolScaler, orders: Orders | None = None) -> None:
        """Decide by a scaler that has decided before; `orders` were open then, where they were
        kept.
        """
        self.scaler, self.need_known, self._untried = scaler, True, True
        self._former = scaler.number
        if orders is not None:
            self._orders = orders

    def state(self) -> dict[str, Any]:
        """What a restart needs, as JSON can hold it."""
        return {**self.scaler.state(), "orders": self._orders.state()}

    def ordered_before(self, replicas: int | None, steps: Sequence[tuple[float, int]] = ()) -> None:
        """So many were wanted before this scaler came; None where nobody can tell. `steps` are the
        numbers of the time before that, oldest first.
        """
        self.awaits_former_number = False
        if replicas is not None:
            self.scaler.expect(replicas)
            self._former, self._former_steps = replicas, steps
            self._former_number_is_new = True

    @property
    def is_guess(self) -> bool:
        """Whether the number is of what is there alone, and what was wanted before may be more."""
        return self.awaits_former_number or self._former_number_is_new

    @property
    def has_memory(self) -> bool:
        """Whether it goes on from what was kept."""
        return self._untried

    @property
    def min_replicas(self) -> int:
        """Never fewer."""
        return self.scaler.settings.min_replicas

    def retune(
        self, settings: ScalingSettings, calendar: Sequence[CalendarEntry], gpus: int
    ) -> None:
        """Use other settings from the next decision on; what was learned stays.

        `gpus` is what one replica takes.
        """
        self.scaler.settings, self._weighed = settings, ""
        self._calendar, self._calendar_read_s = calendar, None
        self._figures = replace(self._figures, gpus=gpus)
        self.scaler.figures = replace(self.scaler.figures, gpus=gpus)

    def believe(self, profile: LatencyProfile) -> None:
        """Take this for the engines' profile where no gateway tells of one."""
        self._figures = self._figures.priced_by(profile)

    def look(self, gathering: Gathering, now: float) -> PoolObservation:
        """What is known of the pool now."""
        actuator = self.actuator
        own, refused = (None, "") if actuator is None else (actuator.observed(), actuator.refused)
        seen = gathering.observation(self.name, now, own=own, refused=refused)
        if actuator is None and seen.replicas_known:
            seen = replace(seen, replicas=self._orders.observed(seen.replicas, now))
        self._learn(gathering.latest(self.name))
        self.observation = seen
        return seen

    def hear_again(self) -> None:
        """A gateway that was missing has told something: what was not known may be now."""
        self._heard_again = self.plan is not None and not self.plan.complete

    def grant(self, gpus: float | None) -> None:
        """Its share of a budget, where there is one, for what was seen last."""
        if self.observation is not None:
            self.observation = replace(self.observation, gpus_available=gpus)

    def is_due(self, now: float) -> bool:
        """Whether what was seen should be decided now: it is time, or requests wait and nobody
        comes, or others are being given its GPUs.
        """
        # Decided later than now: the clock was set back.
        if self.plan is None or not self.plan.at_s <= now < self._due_s(self.plan):
            return True
        if self._former_number_is_new or self._heard_again:
            return True
        seen = self.observation
        if seen is None:
            return False
        granted, used = seen.gpus_available, self.plan.replicas * self._figures.gpus
        if granted is not None and used > max(granted, self.min_replicas * self._figures.gpus):
            return True
        return self.plan.replicas == 0 and any(each.held_requests > 0.0 for each in seen.gateways)

    def _due_s(self, plan: ScalePlan) -> float:
        """When it is decided next: at the ticks of the clock, so that two scalers, whenever they
        were started, decide by what is the same at the same time.
        """
        tick_s = self.scaler.settings.tick_s
        return min((plan.at_s // tick_s + 1.0) * tick_s, plan.next_tick_s)

    def decide(self, now: float) -> bool:
        """Decide by what was seen and carry it out; whether what is wanted is another thing than
        before.
        """
        seen = self.observation
        assert seen is not None
        self._read_calendar(now)
        self._former_number_is_new = self._heard_again = False
        before, plan = self.plan, self._tick(seen, now)
        self.plan = plan
        if before is not None and before.replicas != plan.replicas:
            self._wanted_before = before.replicas
        self.need_known = self.need_known or plan.active or self._knows_need(seen, now)
        if self.actuator is not None:
            self.actuator.carry_out(plan)
        elif plan.complete:
            former, steps = self._former, self._former_steps

            def former_s(place: int) -> float | None:
                return reached_s(steps, place) if place <= former else None

            self._orders.want(plan.replicas, seen_by_gateways(seen), now, former_s=former_s)
            self._former, self._former_steps = 0, ()
        changed = before is None or _decision(before) != _decision(plan)
        if changed:
            self.plans.append(plan)
            self.changes += 1
        return changed

    def _tick(self, seen: PoolObservation, now: float) -> ScalePlan:
        """A decision. A scaler that went on from what was kept and cannot make its first one will
        make none: the pool begins anew, as without memory.
        """
        untried, self._untried = self._untried, False
        try:
            return self.scaler.tick(seen, now)
        except Exception as error:
            if not untried:
                raise
            self.scaler = pool_scaler(self.scaler.settings, self.scaler.figures)
            self.need_known = self.actuator is not None
            self._orders, self._former = Orders(), 0
            if self.on_anew is not None:
                self.on_anew(self)
            raise ValueError("what was kept is no state; the pool begins anew") from error

    def published(self, tolerance: float, now: float) -> tuple[ScalePlan, HpaValue] | None:
        """The plan, and the value for an HPA with this tolerance; None while it is not known, also
        if no newer one was made when it was due: then something is wrong here.
        """
        plan, seen = self.plan, self.observation
        if plan is None or seen is None or not self.is_known(now):
            return None
        # Whether the HPA has done what it was told is known when a gateway sees the replica. What
        # is told to one that has not leaves one that has as it is, within its tolerance.
        there = seen_by_gateways(seen)
        return plan, rising_value(plan.replicas, there, self._wanted_before, tolerance)

    def is_known(self, now: float) -> bool:
        """Whether what is wanted is known, and lately."""
        plan = self.plan
        if plan is None or not plan.complete or not (plan.active or self.need_known):
            return False
        return not self.is_guess and self._is_new(plan, now)

    def needs_replicas(self, now: float) -> bool:
        """Whether there is something to do for replicas, as a request that waits at one gateway
        says whatever the others do.
        """
        plan = self.plan
        return plan is not None and plan.active and self._is_new(plan, now)

    def _is_new(self, plan: ScalePlan, now: float) -> bool:
        return now - plan.next_tick_s <= self.scaler.settings.stale_s

    def _knows_need(self, seen: PoolObservation, now: float) -> bool:
        """Whether there are replicas, or it is known that nobody asks for any."""
        if seen.replicas or not self.scaler.unknown(now):
            return True
        told = seen.gateways
        long = all(now - each.started_at_s >= KNOWS_AFTER_S for each in told)
        return bool(told) and long and not any(each.requests for each in told)

    def present(self) -> int:
        """Replicas that are there or ordered and do not leave."""
        return 0 if self.observation is None else count(self.observation.replicas, _ORDERED)

    def _read_calendar(self, now: float) -> None:
        """Tell the scaler the floors of the next day, now and then."""
        read_s = self._calendar_read_s
        if self._calendar and (read_s is None or not 0.0 <= now - read_s < CALENDAR_EVERY_S):
            self._calendar_read_s = now
            schedule = floors(self._calendar, now, CALENDAR_AHEAD_S)
            self.scaler.settings = replace(self.scaler.settings, schedule=schedule)

    @property
    def engines_known(self) -> bool:
        """Whether requests and tokens can be told in replicas already."""
        return self.scaler.figures.latency is not NOT_LEARNED

    def look_back(self, history: Sequence[DemandSample]) -> Iterator[None]:
        """Learn from the demand of the past, oldest first, a little with each step; decisions in
        between are made without it. The engines must be known.
        """
        learned = pool_scaler(self.scaler.settings, self.scaler.figures)
        # With the cold starts that are known: what is learned depends on how far is looked ahead.
        learned.restore({**self.scaler.state(), "forecast": None})
        for begin in range(0, len(history), LEARNED_AT_ONCE):
            learned.learn(history[begin : begin + LEARNED_AT_ONCE])
            yield
        state = {**self.scaler.state(), "forecast": learned.state()["forecast"]}
        again = pool_scaler(self.scaler.settings, self.scaler.figures)
        again.restore(state)
        self.scaler = again

    def _learn(self, reports: Sequence[PoolReport]) -> None:
        """Use what gateways believe of the engines now: the first profile that any of them has,
        and the largest limits.
        """
        given = self._figures
        latencies = [each.latency for each in reports if each.latency is not None]
        kv_tokens = [each.kv_capacity_tokens for each in reports if each.kv_capacity_tokens]
        places = [int(each.max_sequences) for each in reports if each.max_sequences]
        priced = given.priced_by(latencies[0]) if latencies else given
        self.scaler.figures = replace(
            priced,
            kv_capacity_tokens=max(kv_tokens, default=given.kv_capacity_tokens),
            max_sequences=max(places, default=given.max_sequences),
        )
        if priced.latency is not NOT_LEARNED:
            self._weigh(priced.latency.name)

    def _weigh(self, profile: str) -> None:
        """Reckon a cold start, where it is reckoned, with the weights of a shipped profile."""
        settings = self.scaler.settings
        if profile == self._weighed or not settings.cold_start.weight_bytes:
            return
        self._weighed = profile
        try:
            weights = weight_bytes(profile)
        except ValueError:
            return  # a measured one, or one that was learned
        cold_start = replace(settings.cold_start, weight_bytes=weights)
        self.scaler.settings = replace(settings, cold_start=cold_start)


def reached_s(steps: Sequence[tuple[float, int]], number: int) -> float:
    """Since when at least so many were wanted until the end without a break; 0 if they were not."""
    since_s = 0.0
    for at_s, wanted in reversed(steps):
        if wanted < number:
            break
        since_s = at_s
    return since_s


def seen_by_gateways(seen: PoolObservation) -> int:
    """Replicas that are there, without those that we only wait for."""
    present = [each for each in seen.replicas if not each.name.startswith("ordered-")]
    return count(present, _ORDERED)


def count(replicas: Sequence[ReplicaObservation], phases: Sequence[Phase]) -> int:
    """How many are in one of these phases."""
    return sum(each.phase in phases for each in replicas)


def _decision(plan: ScalePlan) -> tuple[object, ...]:
    return plan.replicas, plan.active, plan.complete, plan.standby, plan.decided_by, plan.holds
