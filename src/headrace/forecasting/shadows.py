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
The margin in use is the least whose missed share is within the target, between two by linear
interpolation (online calibration in the manner of conformal prediction: the quantile is not taken
from a distribution but from what it would have left uncovered).
"""

from __future__ import annotations

from collections import deque
from math import exp
from typing import Any

MARGINS = (
    0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.3, 1.7, 2.2, 2.8, 3.5, 4.5, 6.0, 8.0, 11.0, 15.0, 22.0, 33.0,
)  # fmt: skip
"""In units of a rule's spread."""
KEEP = 0.5 ** (1.0 / (7.0 * 1440.0))
SHORT_SHARE = 0.01
"""Of the load without room, before others feel it."""
RECOVERY_MINUTES = 3
"""So long after a shortage what is missed is still its."""
CONTAGION_MINUTES = 10.0
FIRST_CONTAGION = 0.7
"""Taken for true of so many minutes of shortage before there was any."""
PRIOR_HORIZONS = 36.0
"""So many horizons of mean demand are taken to have been missed by `prior_missed`, before anything
is known."""


def prior_missed(margin: float) -> float:
    """Share that a margin misses, before anything is known: few, but not none."""
    return 0.03 * exp(-margin)


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


class Shadows:
    """The margins of one rule, each with what it wanted, paid and missed."""

    __slots__ = ("_missed", "_paid", "_wanted", "_whole")

    def __init__(self) -> None:
        self._wanted: list[deque[float]] = [deque(maxlen=1) for _ in MARGINS]
        self._paid = [0.0] * len(MARGINS)
        self._missed = [0.0] * len(MARGINS)
        self._whole = [0.0] * len(MARGINS)

    def score(self, load: float, part: float = 1.0) -> None:
        """A minute had this load: what of it had each margin had no room for?

        `part` of a minute is how long it takes until there is room.
        """
        missed, whole, paid = self._missed, self._whole, self._paid
        short = SHORT_SHARE * load
        for place, wanted in enumerate(self._wanted):
            if wanted:
                over = max(load - min(wanted), 0.0)
                others = load - over if over > short else 0.0
                missed[place] = missed[place] * KEEP + part * over
                whole[place] = whole[place] * KEEP + part * others
                paid[place] = paid[place] * KEEP + wanted[-1]

    def want(self, center: float, spread: float, horizon: int) -> None:
        """What each margin wants from now on; a cold start is over in `horizon` minutes."""
        if self._wanted[0].maxlen != horizon:
            self._wanted = [deque(wanted, maxlen=horizon) for wanted in self._wanted]
        for margin, wanted in zip(MARGINS, self._wanted, strict=True):
            wanted.append(center + margin * spread)

    def margin(
        self, demand: float, mean_load: float, target: float, contagion: float, part: float = 1.0
    ) -> tuple[float, float]:
        """(the least margin that misses no more than `target`, what it would have paid).

        `part` is what it was in `score`, `demand` the load of all minutes that were scored, faded
        alike.
        """
        prior = PRIOR_HORIZONS * (self._wanted[0].maxlen or 1) * mean_load
        whole = max(demand + prior, 1e-12)
        before = 0.0
        for place, margin in enumerate(MARGINS):
            missed = self._missed[place] + contagion * self._whole[place]
            share = (missed + part * prior * prior_missed(margin)) / whole
            if share <= target:
                if place == 0:
                    return margin, self._paid[0]
                part = (before - target) / max(before - share, 1e-12)
                low, high = MARGINS[place - 1], margin
                paid = self._paid[place - 1]
                return low + part * (high - low), paid + part * (self._paid[place] - paid)
            before = share
        return MARGINS[-1], self._paid[-1]

    def gap(self) -> None:
        """Minutes are missing: what was wanted before says nothing of what comes."""
        for wanted in self._wanted:
            wanted.clear()

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "wanted": [list(wanted) for wanted in self._wanted],
            "horizon": self._wanted[0].maxlen,
            "paid": list(self._paid),
            "missed": list(self._missed),
            "whole": list(self._whole),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self._wanted = [deque(wanted, maxlen=state["horizon"]) for wanted in state["wanted"]]
        self._paid = list(state["paid"])
        self._missed = list(state["missed"])
        self._whole = list(state["whole"])
