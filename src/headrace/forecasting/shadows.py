"""What each margin would have cost and missed, had it been used: the margin is learned from that.

    capacity that is ready at t = least that was wanted in the last cold start
                                  (it must have been ordered then and never let go since)
    missed += part * (excess + contagion * (load - excess))
                                  where excess = max(load - ready, 0) > 1 % of load
    paid += wanted                                                          fading over a week

A replica that starts within a minute ends a shortage within it: of a minute's excess only the first
`part` = horizon / 60 s is missed then.

Contagion is how many of those for whom there is room miss as well while there is not room for all:
none where the queue serves first whoever can still be in time, all where it is first come, first
served. It is learned from what was really missed (`Contagion`).

All margins are tried at once on every minute, so nothing has to be risked to learn, and the share
that a margin misses includes whatever makes it miss: the cold start, the delay of measuring, noise.
The margin in use is the one with the least  paid + PRICE * missed beyond what is allowed / target,
between two by linear interpolation. Where a margin keeps within it, that is the least one
that does (online calibration in the manner of conformal prediction: the quantile is not taken from
a distribution but from what it would have left uncovered). Where none does that is allowed, because
demand jumps further than it ever did, replicas that lessen the misses by little are not paid for:
a jump that finds half the room it needs is missed as one that finds none.

That is judged twice: over all that is known, and over the recent part of it, whose weights halve in
a quarter of the time that is known. The smaller of the two margins is used: a jump of the first
hour is no reason to hold for the rest of a day what has prevented nothing since, and a quiet day is
none to forget that it was never worth its replicas. What is left of the error budget is spent by
the first alone: to spend it twice, by two estimates of which the smaller counts, is to overdraw it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import exp
from typing import Any, TypeAlias

MARGINS = (
    0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.3, 1.7, 2.2, 2.8, 3.5, 4.5, 6.0, 8.0, 11.0, 15.0, 22.0, 33.0,
)  # fmt: skip
"""In units of a rule's spread."""
KEEP = 0.5 ** (1.0 / (7.0 * 1440.0))
RECENT_SHARE, LEAST_RECENT_MINUTES = 0.25, 60.0
"""Half-life of what is recent, of the time that is known; it has no scale of its own, so that a
ramp of hours and weeks are judged alike."""
SHORT_SHARE = 0.01
"""Of the load without room, before others feel it."""
RECOVERY_MINUTES = 3
"""So long after a shortage what is missed is still its."""
CONTAGION_MINUTES = 10.0
FIRST_CONTAGION = 0.7
"""Taken for true of so many minutes of shortage before there was any."""
PRICE = 0.5
"""Of a miss of all that may be missed, in what serving all demand takes: to lower attainment from
99 to 98 % must save at least half as many replicas as demand needs."""
PRIOR_HORIZONS = 36.0
"""So many horizons of mean demand are taken to have been missed by `prior_missed`, before anything
is known."""


def prior_missed(margin: float) -> float:
    """Share that a margin misses, before anything is known: few, but not none."""
    return 0.03 * exp(-margin)


def missed_of(load: float, ready: float) -> tuple[float, float]:
    """Of the load, what has no room, and how much else feels that."""
    over = max(load - ready, 0.0)
    return over, load - over if over > SHORT_SHARE * load else 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a margin is chosen by."""

    mean_load: float
    target: float
    """The share that may be missed."""
    allowed: float
    """The share that may be missed with what is left of the error budget."""
    contagion: float
    factor: float = 1.0
    """What is really missed, of what shadows say."""
    most: float = MARGINS[-1]
    """No margin is larger."""
    part: float = 1.0
    """As in `Shadows.score`."""


class Contagion:
    """How far a shortage reaches beyond those it has no room for: 0 none, 1 all."""

    __slots__ = ("_excess", "_measured", "_recent", "_whole")

    def __init__(self) -> None:
        self._excess = self._whole = self._measured = 0.0
        self._recent = 0

    def observe(self, load: float, carried: float, missed_share: float) -> None:
        """A minute's load, what there was room for, and the share that was really missed."""
        excess = max(load - carried, 0.0)
        if excess > SHORT_SHARE * load:
            self._recent = RECOVERY_MINUTES
        elif self._recent:
            self._recent -= 1
        self._excess, self._whole = self._excess * KEEP, self._whole * KEEP
        self._measured *= KEEP
        if self._recent:
            self._measured += missed_share * load
            if excess > SHORT_SHARE * load:
                self._excess += excess
                self._whole += load

    def value(self, mean_load: float) -> float:
        """The share of the others that miss as well."""
        prior = CONTAGION_MINUTES * mean_load
        others = self._whole - self._excess + prior
        beyond = max(self._measured - self._excess, 0.0) + FIRST_CONTAGION * prior
        return min(beyond / max(others, 1e-12), 1.0)

    def state(self) -> list[float]:
        """All of it."""
        return [self._excess, self._whole, self._measured, self._recent]

    def restore(self, state: list[float]) -> None:
        """Go on from what `state` said."""
        self._excess, self._whole, self._measured = state[:3]
        self._recent = int(state[3])


Point: TypeAlias = tuple[float, float, float]
"""A margin, what it paid, what it missed beyond what may be missed."""


class Ledger:
    """What each margin paid and missed, fading, and the load that it was scored on."""

    __slots__ = ("_missed", "_paid", "_whole", "demand")

    def __init__(self) -> None:
        self.demand = 0.0
        self._paid = [0.0] * len(MARGINS)
        self._missed = [0.0] * len(MARGINS)
        self._whole = [0.0] * len(MARGINS)

    def fade(self, keep: float, load: float) -> None:
        """A minute more, of so much load."""
        self.demand = self.demand * keep + load
        for sums in (self._paid, self._missed, self._whole):
            sums[:] = [keep * each for each in sums]

    def add(self, place: int, paid: float, missed: float, whole: float) -> None:
        """What the margin at `place` paid and missed in it, and how much else felt that."""
        self._paid[place] += paid
        self._missed[place] += missed
        self._whole[place] += whole

    def stretch(self, longer: float) -> None:
        """Tell what was missed as with a cold start that takes so many times as long."""
        self._missed = [each * longer for each in self._missed]
        self._whole = [each * longer for each in self._whole]

    def margin(self, budget: Budget, horizon: int) -> tuple[float, float]:
        """(the margin that costs the least, what it costs in load minutes)."""
        price = PRICE / budget.target
        choices = self._choices(budget, horizon)
        costs = ((margin, paid + price * over) for margin, paid, over in choices)
        return min(costs, key=lambda each: each[1])

    def _choices(self, budget: Budget, horizon: int) -> Iterator[Point]:
        """The points up to the first that keeps within the target, or to the largest margin."""
        before: Point | None = None
        for point in self._points(budget, horizon):
            margin, paid, over = point
            share = 1.0
            if before is not None and margin > budget.most:
                share = (budget.most - before[0]) / (margin - before[0])
            if before is not None and over < 0.0:
                share = min(share, before[2] / (before[2] - over))
            if before is not None and share < 1.0:
                margin, paid, over = (
                    a + share * (b - a) for a, b in zip(before, point, strict=True)
                )
            yield margin, paid, max(over, 0.0)
            if share < 1.0 or over <= 0.0 or margin >= budget.most:
                return
            before = point

    def _points(self, budget: Budget, horizon: int) -> Iterator[Point]:
        """By margin: what it paid, and what it missed beyond what may be missed."""
        prior = PRIOR_HORIZONS * horizon * budget.mean_load
        allowed = budget.allowed * (self.demand + prior)
        for place, margin in enumerate(MARGINS):
            missed = self._missed[place] + budget.contagion * self._whole[place]
            missed *= budget.factor
            missed += budget.part * prior * prior_missed(margin)
            yield margin, self._paid[place], missed - allowed

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "demand": self.demand,
            "paid": list(self._paid),
            "missed": list(self._missed),
            "whole": list(self._whole),
        }

    def restore(self, state: dict[str, Any], demand: float) -> None:
        """Go on from what `state` said; `demand` is for a file that does not say it."""
        self.demand = state.get("demand", demand)
        self._paid = list(state["paid"])
        self._missed = list(state["missed"])
        self._whole = list(state["whole"])


class Shadows:
    """The margins of one rule, each with what it wanted, paid and missed."""

    __slots__ = ("_all", "_recent", "_wanted")

    def __init__(self) -> None:
        self._wanted: list[deque[float]] = [deque(maxlen=1) for _ in MARGINS]
        self._all, self._recent = Ledger(), Ledger()

    def score(self, load: float, part: float = 1.0, known_minutes: float = 0.0) -> None:
        """A minute had this load: what of it had each margin had no room for?

        `part` of a minute is how long it takes until there is room, `known_minutes` how long demand
        has been known.
        """
        if not self._wanted[0]:
            return
        self._all.fade(KEEP, load)
        self._recent.fade(recent_keep(known_minutes), load)
        for place, wanted in enumerate(self._wanted):
            over, others = missed_of(load, min(wanted))
            self._all.add(place, wanted[-1], part * over, part * others)
            self._recent.add(place, wanted[-1], part * over, part * others)

    def want(self, least: float, center: float, spread: float, horizon: int) -> None:
        """What each margin wants from now on, `least` at least; a cold start is over in `horizon`
        minutes.
        """
        if self._wanted[0].maxlen != horizon:
            self._wanted = [deque(wanted, maxlen=horizon) for wanted in self._wanted]
        for margin, wanted in zip(MARGINS, self._wanted, strict=True):
            wanted.append(max(center + margin * spread, least))

    def look_to(self, horizon: int) -> None:
        """Tell what was missed as with a cold start of so many minutes: it is missed until what was
        ordered then is there.
        """
        before = self._wanted[0].maxlen or 1
        if horizon == before:
            return
        for ledger in (self._all, self._recent):
            ledger.stretch(horizon / before)

    def margin(self, budget: Budget) -> tuple[float, float]:
        """(the margin that is worth its replicas by all that is known and lately too, what the one
        by all costs in load minutes).
        """
        horizon = self._wanted[0].maxlen or 1
        margin, cost = self._all.margin(budget, horizon)
        frugal = replace(budget, allowed=min(budget.allowed, budget.target))
        return min(margin, self._recent.margin(frugal, horizon)[0]), cost

    def gap(self) -> None:
        """Minutes are missing: what was wanted before says nothing of what comes."""
        for wanted in self._wanted:
            wanted.clear()

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "wanted": [list(wanted) for wanted in self._wanted],
            "horizon": self._wanted[0].maxlen,
            **self._all.state(),
            "recent": self._recent.state(),
        }

    def restore(self, state: dict[str, Any], demand: float = 0.0) -> None:
        """Go on from what `state` said. `demand` is for a file of before the load was kept here, in
        which all that is known is recent.
        """
        self._wanted = [deque(wanted, maxlen=state["horizon"]) for wanted in state["wanted"]]
        self._all.restore(state, demand)
        self._recent.restore(state.get("recent", state), demand)


def recent_keep(known_minutes: float) -> float:
    """What of a minute's weight is left in the next, where weights halve in a quarter of what is
    known.
    """
    return 0.5 ** (1.0 / max(RECENT_SHARE * known_minutes, LEAST_RECENT_MINUTES))
