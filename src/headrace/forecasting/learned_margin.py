"""The forecast of Headrace: what demand will be at most until a replica ordered now is ready.

    high = center + margin * spread

Several rules say what center and spread are (`RULES`), from signs of the recent minutes and the
season. For each of them the margin is the least that would have kept what is missed within the
target (`shadows`); the rule in use is the one whose margin would have cost the fewest
replica-hours. So steady demand gets next to no margin, demand that jumps gets one in proportion to
its jumps while it jumps, and demand with a season gets its replicas before it rises.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import Any, NamedTuple

from headrace.core.scaling.demand import MINUTE_S, MinuteLoad
from headrace.core.scaling.plan import DemandOutlook
from headrace.forecasting.calibration import Calibration
from headrace.forecasting.reversion import Reversion
from headrace.forecasting.season import Season
from headrace.forecasting.shadows import KEEP, Budget, Contagion, Shadows
from headrace.forecasting.signs import Faded, Signs

RULES = ("restless", "marked", "share", "trend", "level", "season", "marked_season")
FIRST_RULE = "restless"
SWITCH_GAIN = 0.005
"""A rule must be cheaper by so much to be taken instead of the one in use."""
FIRST_MARGIN, MARGIN_PER_HORIZON = 1.6, 0.03
"""The margin may be so large at first, and by so much more for each horizon seen: one jump in an
hour takes what may be missed in a day, and does not prove that the next hour has one.
"""
FIRST_DAY_MINUTES = 540.0
"""Before a working day is known, more is provided for than was seen, fading with time."""
FIRST_RISE, SMALL_LOAD = 0.25, 2.0
"""So much of the load may come on top within a cold start: what plain autoscalers keep free at all
times (a target of 80 %). Of a small load it is less, for few replicas keep a margin for chance that
covers it."""
FIRST_HORIZON_S = 255.0
"""That is meant for a cold start of four minutes and a tick, or a longer one. What moves at random
moves with the root of time, so that of a shorter one less is taken."""
MOST_OVER_SEEN = 1.5
"""Nor is more expected than so many times the highest load of the last week."""
LEAST_MINUTES = 60.0
"""Before so much is known the first rule is used, with its prior, and cold starts may not have been
measured yet."""
CHANCE_SHARE = 0.9
"""Of what may be missed, the part that is left for demand that was not foreseen; the rest is for
chance within a pool that has the replicas it needs."""
NOISE_SIGMAS = 2.0
"""What chance alone makes of a minute is no shortage: capacity has a margin for it."""
MOST_PULL = 3.0
"""In units of restlessness: what is further from its usual level may have left it, and is expected
to go back no further than this."""
LONGEST_STEP_BACK_MINUTES = 1440
LONGEST_GAP_MINUTES = 3
ERROR_MINUTES = 720.0


class _Ahead(NamedTuple):
    """How far is looked ahead: whole minutes, the part of a minute where it is less than one, and
    what a first day's prior is multiplied with.
    """

    minutes: int
    part: float
    prior: float


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
        "_reversion",
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
        self._reversion = Reversion()
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
        """Take the mean demand of one minute; they come in order, and some may be missing. After a
        clock that was a day or more ahead, its minutes are forgotten and not waited for.
        """
        number = int(minute.begin_s // MINUTE_S)
        ahead = self._ahead(horizon_s)
        if self._minute is not None:
            if self._minute - LONGEST_STEP_BACK_MINUTES <= number <= self._minute:
                return
            if not 0 < number - self._minute <= LONGEST_GAP_MINUTES:
                self._gap()
            else:
                # Two minutes without a word were as the one that ended them.
                for missing in range(self._minute + 1, number):
                    self._take(missing, minute, ahead)
        self._take(number, minute, ahead)
        if minute.carried is not None and minute.missed_share is not None:
            self._contagion.observe(_sure(minute), minute.carried, minute.missed_share)

    def outlook(self, load: float, now: float, horizon_s: float) -> DemandOutlook:
        """The highest demand within `horizon_s`, where `load` is demand now."""
        if self._minute is None:
            # Nothing is known but demand itself.
            return DemandOutlook(load, load, load, horizon_s, self.target)
        minute = max(self._minute, int(now // MINUTE_S) - 1)
        ahead = self._ahead(horizon_s)
        center, spread = self._rule(self.rule, load, minute, ahead)
        high = min(center + self.margin * spread, MOST_OVER_SEEN * self._highest)
        return DemandOutlook(
            load,
            center,
            max(high, self._least(load, ahead)),
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
            "reversion": self._reversion.state(),
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
        if "reversion" in state:  # a file of before it was learned has none
            self._reversion.restore(state["reversion"])
        self._contagion.restore(state["contagion"])
        self._calibration.restore(state["calibration"])
        for rule, shadows in self._shadows.items():
            if rule in state["shadows"]:
                shadows.restore(state["shadows"][rule], self._demand)

    # ---- one minute

    def _take(self, minute: int, told: MinuteLoad, ahead: _Ahead) -> None:
        load, part = told.load, ahead.part
        sure = _sure(told)
        if self._minutes >= LEAST_MINUTES:
            self._look_to(ahead.minutes)
        self._highest = max(self._highest * KEEP, load)
        self._demand = self._demand * KEEP + load
        self._minutes = self._minutes * KEEP + 1.0
        for shadows in self._shadows.values():
            shadows.score(sure, part, self._minutes)
        self._season.observe(minute, load)
        self._signs.observe(minute, load, ahead.minutes, told.noise, part)
        pull = self._pull(load, minute, ahead.minutes)
        self._reversion.observe(minute, load, pull, ahead.minutes)
        self._minute = minute
        for rule, shadows in self._shadows.items():
            center, spread = self._rule(rule, load, minute, ahead)
            shadows.want(self._least(load, ahead), center, spread, ahead.minutes)
        if self._minutes > 1.0:
            contagion = self._contagion.value(self._demand / self._minutes)
            self._calibration.observe(sure, told.missed_share, contagion, part)
        self._choose(ahead)
        center, spread = self._rule(self.rule, load, minute, ahead)
        wanted = max(center + self.margin * spread, self._least(load, ahead))
        self._calibration.want(wanted, ahead.minutes)
        self._measure_error(minute, load, ahead)

    def _look_to(self, horizon: int) -> None:
        """Where a cold start takes longer than it did, or less long, bring what was learned to it:
        the minutes in which to order are others.
        """
        self._signs.look_to(horizon)
        self._reversion.look_to(horizon)
        for shadows in self._shadows.values():
            shadows.look_to(horizon)

    def _ahead(self, horizon_s: float) -> _Ahead:
        known = self._minutes >= LEAST_MINUTES
        return _Ahead(
            max(ceil(horizon_s / MINUTE_S), 1),
            min(horizon_s / MINUTE_S, 1.0),
            min(sqrt(horizon_s / FIRST_HORIZON_S), 1.0) if known else 1.0,
        )

    def _rule(self, rule: str, load: float, minute: int, ahead: _Ahead) -> tuple[float, float]:
        """(center, spread) by one rule.

        Where a cold start is over within a part of a minute, so much of a minute's move is all that
        has to be foreseen.
        """
        center, spread = self._told(rule, load, minute, ahead.minutes)
        return load + ahead.part * (center - load), ahead.part * spread

    def _least(self, load: float, ahead: _Ahead) -> float:
        """What is provided for at least: demand now, and the rise that an unknown one may take, as
        far as the error budget could not bear it.
        """
        rise = ahead.prior * FIRST_RISE * load / (load + SMALL_LOAD)
        return load * (1.0 + ahead.part * self._unknown * self._insured * rise)

    @property
    def _unknown(self) -> float:
        """The share of a first day that is still to come."""
        return max(1.0 - self._minutes / FIRST_DAY_MINUTES, 0.0)

    @property
    def _insured(self) -> float:
        """Of a first day's rise, the share that is held: less as more of the budget is unspent."""
        if self._minutes <= 0.0:
            return 1.0
        return 1.0 - self._calibration.unspent(self._demand / self._minutes, self.target)

    def _told(self, rule: str, load: float, minute: int, horizon: int) -> tuple[float, float]:
        signs = self._signs
        if rule == "trend":
            return load + signs.slope * horizon, signs.restless
        if rule == "level":
            # What of these hours was not seen is taken to be as now: a ramp has no level yet.
            return load + signs.level.known * (signs.level.mean - load) / 2.0, signs.restless
        if rule == "season":
            return load * self._season.ratio(minute, horizon), signs.restless
        if rule == "marked_season":
            return load * self._season.ratio(minute, horizon), signs.restless * signs.mark
        center = load + self._reversion.share(minute) * self._pull(load, minute, horizon)
        if rule == "share":
            return center, signs.share
        return center, signs.restless * (signs.mark if rule == "marked" else 1.0)

    def _pull(self, load: float, minute: int, horizon: int) -> float:
        """How far demand is from where it usually is."""
        usual, signs = self._season.usual(minute, horizon), self._signs
        if usual is None:
            return 0.0
        most = MOST_PULL * signs.restless
        return min(max(usual - load, -most), most)

    def _choose(self, ahead: _Ahead) -> None:
        """Take the cheapest rule, and its margin."""
        mean_load = self._demand / self._minutes
        contagion = self._contagion.value(mean_load)
        most = FIRST_MARGIN + MARGIN_PER_HORIZON * self._minutes / ahead.minutes
        factor = self._calibration.factor(mean_load, self.target)
        allowed = self._calibration.allowed(mean_load, self.target)
        budget = Budget(
            mean_load,
            self.target,
            allowed,
            contagion,
            factor,
            most,
            ahead.part,
        )
        found = {rule: shadows.margin(budget) for rule, shadows in self._shadows.items()}
        if self._minutes >= LEAST_MINUTES:
            cheapest = min(RULES, key=lambda rule: found[rule][1])
            if found[cheapest][1] < (1.0 - SWITCH_GAIN) * found[self.rule][1]:
                self.rule = cheapest
        self.margin = found[self.rule][0]

    def _measure_error(self, minute: int, load: float, ahead: _Ahead) -> None:
        """Compare what was expected one horizon ago with the highest that came."""
        center, _ = self._rule(self.rule, load, minute, ahead)
        pending = [(due, expected, max(seen, load)) for due, expected, seen in self._pending]
        while pending and pending[0][0] <= minute:
            _, expected, seen = pending.pop(0)
            if expected > 0.0 and seen > 0.0:
                self._error.add(abs(log(seen / expected)))
        pending.append((minute + ahead.minutes, center, 0.0))
        self._pending = pending[-2 * ahead.minutes :]

    def _gap(self) -> None:
        """Too long a silence to bridge: neighbours in time are none any more."""
        self._signs.gap()
        self._reversion.gap()
        self._calibration.gap()
        for shadows in self._shadows.values():
            shadows.gap()
        self._pending = []


def _sure(told: MinuteLoad) -> float:
    """The load of a minute that was there whatever chance did."""
    return max(told.load - NOISE_SIGMAS * told.noise, 0.0)
