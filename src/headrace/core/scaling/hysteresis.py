"""From wishes to a number that does not flap: up at once, down late.

    up    at once, to what of a wish is sure: the wish less the band, or the lowest wish of a
          minute if that is more
    down  where the highest wish of a window is below the number by a replica and a third of the
          band, or 3 % of the number if that is more, to that highest wish

    band = 3 * noise of the wish      noise: median |second difference| of minutes / 1.652

A floor is exact: what demand wishes below it moves nothing, and is what going down to it is judged
by. So two replicas become the one that is the floor once demand needs nearly less than one.

Of a steady demand with noise, wishes are on both sides of the number or below it, so it does not
rise; to fall, the highest of a window would have to be a whole replica below. The second difference
does not see what rises or falls steadily, and its median not the jumps, as long as most minutes
have none: what moves is followed, what only trembles is not.

More demand never gets fewer replicas by this: what is sure of a wish goes by wishes alone, not by
the number that is there, which with more demand may be the larger one. So where all wishes are
higher by a part or by an amount, so is what the number is raised to; and one that is not lowered
yet is above the highest wish of its window by no more than the slack, rounded up.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from statistics import median
from typing import Any

BAND_SIGMAS = 3.0
MEDIAN_OF_SECOND_DIFFERENCE = 1.652
"""Median of |a - 2b + c| for three normal values of standard deviation 1."""
NOISE_MINUTES = 60
CALM_MINUTES = 15
"""So many minutes without any noise are believed at first: a ramp in the first minutes is none."""
DOWN_SHARE = 1 / 3
DRIFT_SHARE = 0.03
"""Of the number, what a wish may drift by without noise that can be measured."""
UP_S = 60.0
MINUTE_S = 60.0


class Hysteresis:
    """The number of one pool. `number` is None before the first decision."""

    __slots__ = ("_differences", "_minutes", "_wishes", "band", "number")

    def __init__(self) -> None:
        self.number: int | None = None
        self.band = 0.0
        self._wishes: deque[tuple[float, float]] = deque()
        self._differences: deque[float] = deque(maxlen=NOISE_MINUTES)
        self._minutes: deque[tuple[float, float]] = deque(maxlen=3)

    def decide(
        self, wish: float, now: float, window_s: float, forbidden: str = "", floor: int = 0
    ) -> str:
        """Set `number`; the answer says why it is above the wish, "" if it is not.

        `wish` is what demand needs, `floor` the least that there may be whatever it needs.
        `forbidden` says why it must not be lowered, "" if it may.
        """
        self._note(wish, now, window_s, floor)
        need = max(_whole(wish), floor)
        if self.number is None or floor > self.number:
            self.number = need
            return ""
        if need > self.number:
            return self._raise(wish, now)
        if need == self.number:
            return ""
        if forbidden:
            return f"not lowered to {need} {forbidden}"
        if now - self._wishes[0][0] < window_s - 1e-6:
            return f"not lowered to {need} before {window_s:.0f} s of wishes are known"
        highest = max(each for at_s, each in self._wishes if at_s >= now - window_s - 1e-6)
        slack = max(DOWN_SHARE * self.band, DRIFT_SHARE * self.number)
        if highest <= 0.0:
            slack = 0.0  # nothing is wished: there is no noise in that
        if highest + 1.0 + slack <= self.number:
            self.number = max(_whole(highest), floor)
        return "" if self.number == need else f"held at {self.number} above a wish of {wish:.2f}"

    def _raise(self, wish: float, now: float) -> str:
        sure = wish - self.band
        if now - self._wishes[0][0] >= UP_S - 1e-6:
            sure = max(sure, min(each for at_s, each in self._wishes if at_s >= now - UP_S - 1e-6))
        assert self.number is not None
        self.number = max(self.number, _whole(sure))
        if self.number >= _whole(wish):
            return ""
        return f"not raised to {_whole(wish)} within its noise of {self.band:.2f}"

    def state(self) -> dict[str, Any]:
        """What a restart needs, as JSON can hold it."""
        return {
            "number": self.number,
            "band": self.band,
            "wishes": [list(each) for each in self._wishes],
            "differences": list(self._differences),
            "minutes": [list(each) for each in self._minutes],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self.number = state["number"]
        self.band = state["band"]
        self._wishes = deque((at_s, wish) for at_s, wish in state["wishes"])
        self._differences = deque(state["differences"], maxlen=NOISE_MINUTES)
        self._minutes = deque(((at_s, wish) for at_s, wish in state["minutes"]), maxlen=3)

    def _note(self, wish: float, now: float, window_s: float, floor: int) -> None:
        self._wishes.append((now, wish))
        # One older than the windows stays, to show that they are covered.
        oldest_s = now - max(window_s, UP_S)
        while len(self._wishes) > 1 and self._wishes[1][0] <= oldest_s:
            self._wishes.popleft()
        minutes = self._minutes
        if minutes and now - minutes[-1][0] < MINUTE_S - 1e-6:
            return
        minutes.append((now, max(wish, float(floor))))
        if len(minutes) == 3:
            first, second, third = (each for _, each in minutes)
            self._differences.append(abs(first - 2.0 * second + third))
        calm = [0.0] * (CALM_MINUTES - len(self._differences))
        noise = median([*self._differences, *calm]) / MEDIAN_OF_SECOND_DIFFERENCE
        self.band = BAND_SIGMAS * noise


def _whole(replicas: float) -> int:
    return ceil(replicas - 1e-6)
