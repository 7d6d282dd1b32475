"""What both modes share: a scaler is asked, its HPA decides, the fleet changes, all is noted."""

from __future__ import annotations

from math import ceil, nan

from headrace.simulator.scaling.actuation import Actuator
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.fleet import SimulatedFleet, SimulatedReplica
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.scalers import Scaler
from headrace.simulator.scaling.scores import Timeline
from headrace.simulator.scaling.settings import ScalingSimulation

FIRST_MARGIN = 1.25
"""All that know nothing start with this many times the replicas that the first minute takes."""
FIRST_S = 60.0


class ControlLoop:
    """One scaler with its fleet. `next_look_s` is when it is to be asked next."""

    __slots__ = ("_actuator", "_next_note_s", "_scaler", "_settings", "end_s", "fleet",
                 "next_look_s", "timeline")  # fmt: skip

    def __init__(self, settings: ScalingSimulation, demand: Demand, scaler: Scaler) -> None:
        self._settings = settings
        self._scaler = scaler
        if demand.history and (learn := getattr(scaler, "learn", None)) is not None:
            learn(demand.history)
        self._actuator = Actuator(scaler.behaviour, settings.min_replicas, settings.max_replicas)
        first = getattr(scaler, "starts_with", None)
        if first is None:
            first = first_replicas(settings, demand)
        first = min(max(first, settings.min_replicas), settings.max_replicas)
        self.fleet = SimulatedFleet(first, settings.cold_start_s)
        self.timeline = Timeline()
        self.end_s = demand.end_s
        self.next_look_s = scaler.period_s
        self._next_note_s = settings.sync_s

    def look(self, reading: Reading, missed: float) -> list[SimulatedReplica]:
        """Ask the scaler and do what becomes of its wish; returns who now drains.

        `missed` requests missed their targets since the last look.
        """
        now, fleet = reading.now, self.fleet
        self.next_look_s += self._scaler.period_s
        wish = self._scaler.wish(reading)
        self._note(reading, missed)
        if now >= self.end_s - 1e-6:
            return []
        number = self._actuator.number(wish, fleet.number, now)
        if number == fleet.number:
            return []
        return fleet.scale_to(number, now, getattr(self._scaler, "wished_first", ()))

    def _note(self, reading: Reading, missed: float) -> None:
        timeline, settings = self.timeline, self._settings
        if reading.now < self._next_note_s - 1e-6:
            if timeline.missed:
                timeline.missed[-1] += missed
            return
        self._next_note_s += settings.sync_s
        rate = reading.mix.rate_at(settings.slo.tpot_s, settings.engine.latency.per_step_s)
        plan = getattr(self._scaler, "plan", None)
        outlook = None if plan is None else plan.outlook
        timeline.at_s.append(reading.now)
        timeline.demand.append(reading.requests_per_s / rate)
        timeline.forecast.append(nan if outlook is None else outlook.high)
        timeline.ready.append(reading.ready)
        timeline.ordered.append(reading.number)
        timeline.missed.append(missed)


def first_replicas(settings: ScalingSimulation, demand: Demand) -> int:
    """How many there are when the trace begins."""
    ticks = min(max(int(FIRST_S / demand.tick_s), 1), demand.ticks)
    per_step_s, tpot_s = settings.engine.latency.per_step_s, settings.slo.tpot_s
    load = sum(
        demand.requests[tick] / demand.mix(tick).rate_at(tpot_s, per_step_s)
        for tick in range(ticks)
    ) / (ticks * demand.tick_s)
    least = max(settings.min_replicas, 1)
    return min(max(ceil(FIRST_MARGIN * load), least), settings.max_replicas)
