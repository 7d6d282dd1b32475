"""The forecast of Headrace: what demand will be at most until a replica ordered now is ready.

    high = center + margin * spread

Several rules say what center and spread are (`RULES`), from signs of the recent minutes and the
season. For each of them the margin is the least that would have kept what is missed within the
target (`shadows`); the rule in use is the one whose margin would have cost the fewest
replica-hours. So steady demand gets next to no margin, demand that jumps gets one in proportion to
its jumps while it jumps, and demand with a season gets its replicas before it rises.
"""

from __future__ import annotations

from math import ceil, log
from typing import Any

from headrace.core.demand import MINUTE_S, MinuteLoad
from headrace.core.scaling_plan import DemandOutlook
from headrace.forecasting.calibration import Calibration
from headrace.forecasting.season import Season
from headrace.forecasting.shadows import KEEP, Budget, Contagion, Shadows
from headrace.forecasting.signs import Faded, Signs

RULES = ("restless", "marked", "share", "trend", "level", "season", "marked_season")
FIRST_RULE = "restless"
SWITCH_GAIN = 0.01
"""A rule must be cheaper by so much to be taken instead of the one in use."""
FIRST_MARGIN, MARGIN_PER_HORIZON = 1.6, 0.02
"""The margin may be so large at first, and by so much more for each horizon seen: one jump in an
hour takes what may be missed in a day, and does not prove that the next hour has one.
"""
FIRST_DAY_MINUTES = 1440.0
"""Before a day is known, more is provided for than was seen, fading with time."""
FIRST_RISE, SMALL_LOAD = 0.25, 2.0
"""So much of the load may come on top within a cold start: what plain autoscalers keep free at all
times (a target of 80 %). Of a small load it is less, for few replicas keep a margin for chance that
covers it."""
FIRST_SPREAD, FREE_LOAD = 0.12, 5.0
"""And what moves within a cold start is at least this share of the load beyond a few replicas'."""
MOST_OVER_SEEN = 1.5
"""Nor is more expected than so many times the highest load of the last week."""
LEAST_MINUTES = 60.0
"""Before so much is known the first rule is used, with its prior."""
CHANCE_SHARE = 0.9
"""Of what may be missed, the part that is left for demand that was not foreseen; the rest is for
chance within a pool that has the replicas it needs."""
LONGEST_GAP_MINUTES = 3
ERROR_MINUTES = 720.0


class LearnedMargin:
    """A `Forecaster` for the scaler of one pool. `attainment` is what must be met."""

    __slots__ = (
        "_calibration",
        "_contagion",
        "_demand",
        "_error",
        "_highest",
        "_minute",
        "_minutes",
        "_pending",
        "_season",
        "_shadows",
        "_signs",
        "attainment",
        "margin",
        "rule",
    )

    def __init__(self, attainment: float = 0.99) -> None:
        self.attainment = attainment
        self.rule = FIRST_RULE
        self.margin = 1.5
        self._signs = Signs()
        self._season = Season()
        self._shadows = {rule: Shadows() for rule in RULES}
        self._contagion = Contagion()
        self._calibration = Calibration()
        self._demand = 0.0
        self._highest = 0.0
        self._minutes = 0.0
        self._minute: int | None = None
        self._error = Faded(ERROR_MINUTES)
        self._pending: list[tuple[int, float, float]] = []

    def observe(self, minute: MinuteLoad, horizon_s: float) -> None:
        """Take the mean demand of one minute; they come in order, and some may be missing."""
        number = int(minute.begin_s // MINUTE_S)
        horizon = max(ceil(horizon_s / MINUTE_S), 1)
        part = _part(horizon_s)
        if self._minute is not None:
            if number <= self._minute:
                return
            if number - self._minute > LONGEST_GAP_MINUTES:
                self._gap()
            else:
                # Two minutes without a word were as the one that ended them.
                for missing in range(self._minute + 1, number):
                    self._take(missing, minute, horizon, part)
        self._take(number, minute, horizon, part)
        if minute.carried is not None and minute.missed_share is not None:
            self._contagion.observe(minute.load, minute.carried, minute.missed_share)

    def outlook(self, load: float, now: float, horizon_s: float) -> DemandOutlook:
        """The highest demand within `horizon_s`, where `load` is demand now."""
        horizon = max(ceil(horizon_s / MINUTE_S), 1)
        if self._minute is None:
            # Nothing is known but demand itself.
            return DemandOutlook(load, load, load, horizon_s, self.target)
        minute = max(self._minute, int(now // MINUTE_S) - 1)
        part = _part(horizon_s)
        center, spread = self._rule(self.rule, load, minute, horizon, part)
        high = min(center + self.margin * spread, MOST_OVER_SEEN * self._highest)
        return DemandOutlook(
            load,
            center,
            max(high, self._least(load, part)),
            horizon_s,
            self.target,
            self._error.mean,
        )

    @property
    def target(self) -> float:
        """The share of demand that may find no room."""
        return CHANCE_SHARE * (1.0 - self.attainment)

    def state(self) -> dict[str, Any]:
        """All it has learned, as JSON can hold it."""
        return {
            "rule": self.rule,
            "margin": self.margin,
            "demand": self._demand,
            "highest": self._highest,
            "minutes": self._minutes,
            "minute": self._minute,
            "error": self._error.state(),
            "pending": [list(each) for each in self._pending],
            "signs": self._signs.state(),
            "season": self._season.state(),
            "contagion": self._contagion.state(),
            "calibration": self._calibration.state(),
            "shadows": {rule: shadows.state() for rule, shadows in self._shadows.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self.rule, self.margin = state["rule"], state["margin"]
        self._demand, self._minutes = state["demand"], state["minutes"]
        self._highest = state["highest"]
        self._minute = state["minute"]
        self._error.restore(state["error"])
        self._pending = [(int(due), expected, seen) for due, expected, seen in state["pending"]]
        self._signs.restore(state["signs"])
        self._season.restore(state["season"])
        self._contagion.restore(state["contagion"])
        self._calibration.restore(state["calibration"])
        for rule, shadows in self._shadows.items():
            if rule in state["shadows"]:
                shadows.restore(state["shadows"][rule])

    # ---- one minute

    def _take(self, minute: int, told: MinuteLoad, horizon: int, part: float) -> None:
        load = told.load
        self._highest = max(self._highest * KEEP, load)
        self._demand = self._demand * KEEP + load
        self._minutes = self._minutes * KEEP + 1.0
        for shadows in self._shadows.values():
            shadows.score(load, part)
        self._season.observe(minute, load)
        self._signs.observe(minute, load, horizon, told.noise, part)
        self._minute = minute
        for rule, shadows in self._shadows.items():
            center, spread = self._rule(rule, load, minute, horizon, part)
            shadows.want(self._least(load, part), center, spread, horizon)
        if self._minutes > 1.0:
            contagion = self._contagion.value(self._demand / self._minutes)
            self._calibration.observe(load, told.missed_share, contagion, part)
        self._choose(horizon, part)
        center, spread = self._rule(self.rule, load, minute, horizon, part)
        wanted = max(center + self.margin * spread, self._least(load, part))
        self._calibration.want(wanted, horizon)
        self._measure_error(minute, load, horizon, part)

    def _rule(
        self, rule: str, load: float, minute: int, horizon: int, part: float
    ) -> tuple[float, float]:
        """(center, spread) by one rule, and by what is believed before a day is known.

        Where a cold start is over within `part` of a minute, so much of a minute's move is all that
        has to be foreseen.
        """
        center, spread = self._told(rule, load, minute, horizon)
        spread = max(spread, self._unknown * FIRST_SPREAD * max(load - FREE_LOAD, 0.0))
        return load + part * (center - load), part * spread

    def _least(self, load: float, part: float) -> float:
        """What is provided for at least: demand now, and the rise that an unknown one may take."""
        rise = FIRST_RISE * load / (load + SMALL_LOAD)
        return load * (1.0 + part * self._unknown * rise)

    @property
    def _unknown(self) -> float:
        """The share of a first day that is still to come."""
        return max(1.0 - self._minutes / FIRST_DAY_MINUTES, 0.0)

    def _told(self, rule: str, load: float, minute: int, horizon: int) -> tuple[float, float]:
        signs = self._signs
        if rule == "share":
            return load, signs.share
        if rule == "trend":
            return load + signs.slope * horizon, signs.restless
        if rule == "level":
            return (load + signs.level.mean) / 2.0, signs.restless
        if rule == "season":
            return load * self._season.ratio(minute, horizon), signs.restless
        if rule == "marked":
            return load, signs.restless * signs.mark
        if rule == "marked_season":
            return load * self._season.ratio(minute, horizon), signs.restless * signs.mark
        return load, signs.restless

    def _choose(self, horizon: int, part: float) -> None:
        """Take the cheapest rule, and its margin."""
        mean_load = self._demand / self._minutes
        contagion = self._contagion.value(mean_load)
        most = FIRST_MARGIN + MARGIN_PER_HORIZON * self._minutes / horizon
        factor = self._calibration.factor(mean_load, self.target)
        budget = Budget(self._demand, mean_load, self.target, contagion, factor, most, part)
        found = {rule: shadows.margin(budget) for rule, shadows in self._shadows.items()}
        if self._minutes >= LEAST_MINUTES:
            cheapest = min(RULES, key=lambda rule: found[rule][1])
            if found[cheapest][1] < (1.0 - SWITCH_GAIN) * found[self.rule][1]:
                self.rule = cheapest
        self.margin = found[self.rule][0]

    def _measure_error(self, minute: int, load: float, horizon: int, part: float) -> None:
        """Compare what was expected one horizon ago with the highest that came."""
        center, _ = self._rule(self.rule, load, minute, horizon, part)
        pending = [(due, expected, max(seen, load)) for due, expected, seen in self._pending]
        while pending and pending[0][0] <= minute:
            _, expected, seen = pending.pop(0)
            if expected > 0.0 and seen > 0.0:
                self._error.add(abs(log(seen / expected)))
        pending.append((minute + horizon, center, 0.0))
        self._pending = pending[-2 * horizon :]

    def _gap(self) -> None:
        """Too long a silence to bridge: neighbours in time are none any more."""
        self._signs.gap()
        self._calibration.gap()
        for shadows in self._shadows.values():
            shadows.gap()
        self._pending = []


def _part(horizon_s: float) -> float:
    """How much of a minute a horizon is; 1 where it is one or more."""
    return min(horizon_s / MINUTE_S, 1.0)
