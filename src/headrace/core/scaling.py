"""The scaler of one pool: observations in, plans out.

`tick` is a pure function of the observations so far: no clock, no chance, so that two scalers that
are told the same decide the same, and one that restarts (`restore`) goes on as if it had not.
"""

from __future__ import annotations

from math import ceil
from typing import Any, Protocol

from headrace.core.capacity import replicas_for
from headrace.core.demand import DemandMeter
from headrace.core.scaling_observation import Phase, PoolObservation
from headrace.core.scaling_plan import DemandOutlook, ScalePlan, Signal
from headrace.core.scaling_settings import EngineFigures, ScalingSettings


class Forecaster(Protocol):
    """Looks ahead on demand, in replicas fully used; `headrace.forecasting` has one."""

    def observe(self, begin_s: float, load: float, now: float) -> None:
        """Take the mean demand of the minute that began at `begin_s`, known at `now`."""
        ...

    def highest(self, now: float, horizon_s: float, miss_target: float) -> DemandOutlook:
        """The highest demand within `horizon_s`, exceeded with a chance of `miss_target`."""
        ...

    def state(self) -> dict[str, Any]:
        """All it has learned, as JSON can hold it."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        ...


class PoolScaler:
    """Decides how many replicas a pool has. Without a forecaster it follows demand."""

    __slots__ = ("_demand", "_forecaster", "_replicas", "_wishes", "figures", "settings")

    def __init__(
        self,
        settings: ScalingSettings,
        figures: EngineFigures,
        forecaster: Forecaster | None = None,
    ) -> None:
        self._forecaster = forecaster
        self.settings = settings
        self.figures = figures
        self._demand = DemandMeter()
        self._wishes: list[tuple[float, int]] = []
        self._replicas: int | None = None

    def tick(self, observation: PoolObservation, now: float) -> ScalePlan:
        """Decide anew. `now` is the observation's clock; it does not go back."""
        settings = self.settings
        self._demand.observe(observation, now)
        lengths = self._demand.lengths()
        wanted = replicas_for(
            self.figures, settings.target, lengths, self._demand.requests_per_s, settings.kv_target
        )
        signal = Signal("token_throughput", wanted, "demand", ())
        wish = min(max(ceil(wanted), settings.min_replicas), settings.max_replicas)
        self._wishes = [(at, n) for at, n in self._wishes if at > now - 300.0] + [(now, wish)]
        ordered = [
            r for r in observation.replicas if r.phase not in (Phase.DRAINING, Phase.STANDBY)
        ]
        number = max(n for _, n in self._wishes)
        idle = sorted(ordered, key=lambda r: (r.phase is Phase.READY, r.name))
        return ScalePlan(
            now,
            observation.pool,
            number,
            signals=(signal,),
            decided_by=signal.name,
            order=max(number - len(ordered), 0),
            drain=tuple(r.name for r in idle[: max(len(ordered) - number, 0)]),
            active=number > 0,
            next_tick_s=now + settings.tick_s,
        )

    def state(self) -> dict[str, Any]:
        """What a restarted scaler needs to go on, as JSON can hold it."""
        return {"wishes": [list(wish) for wish in self._wishes]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self._wishes = [(at_s, number) for at_s, number in state["wishes"]]
