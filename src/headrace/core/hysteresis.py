"""From wishes to a number that does not flap: up at once, down late.

    up    as soon as a wish is above the number
    down  to the highest wish of a window plus a band, and only if that is at least one whole
          replica below the number

    band = BAND_SIGMAS * noise of the wish          noise: median |change| of a minute / 0.954

Noise around a steady demand raises the number once, to the top of what it reaches; to come down
again, the highest wish of a whole window would have to stay a replica and the band below that top.
The median does not see jumps, as long as most minutes have none: what moves is followed, and what
only trembles is not.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from statistics import median
from typing import Any

BAND_SIGMAS = 3.0
MEDIAN_OF_DIFFERENCE = 0.954
"""Median of |a - b| for two normal values of standard deviation 1."""
NOISE_MINUTES = 60
MINUTE_S = 60.0


class Hysteresis:
    """The number of one pool. `number` is None before the first decision."""

    __slots__ = ("_differences", "_minute_s", "_minute_wish", "_wishes", "number", "raised_s")

    def __init__(self) -> None:
        self.number: int | None = None
        self.raised_s = 0.0
        self._wishes: deque[tuple[float, float]] = deque()
        self._differences: deque[float] = deque(maxlen=NOISE_MINUTES)
        self._minute_s: float | None = None
        self._minute_wish = 0.0

    @property
    def band(self) -> float:
        """Replicas that noise may move the wish by."""
        if len(self._differences) < 5:
            return 0.0
        return BAND_SIGMAS * median(self._differences) / MEDIAN_OF_DIFFERENCE

    def decide(self, wish: float, now: float, window_s: float, forbidden: str = "") -> str:
        """Set `number`; the answer says why it is above the wish, "" if it is not.

        `forbidden` says why it must not be lowered, "" if it may.
        """
        self._note(wish, now, window_s)
        need = _whole(wish)
        if self.number is None or need > self.number:
            self.number = need
            self.raised_s = now
            return ""
        if need == self.number:
            return ""
        if forbidden:
            return f"not lowered to {need} {forbidden}"
        if now - self._wishes[0][0] < window_s - 1e-6:
            return f"not lowered to {need} before {window_s:.0f} s of wishes are known"
        highest = max(each for _, each in self._wishes)
        lower = _whole(highest + self.band)
        self.number = min(self.number, lower)
        return "" if self.number == need else f"held at {self.number} above a wish of {wish:.2f}"

    def state(self) -> dict[str, Any]:
        """What a restart needs, as JSON can hold it."""
        return {
            "number": self.number,
            "raised_s": self.raised_s,
            "wishes": [list(each) for each in self._wishes],
            "differences": list(self._differences),
            "minute_s": self._minute_s,
            "minute_wish": self._minute_wish,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self.number = state["number"]
        self.raised_s = state["raised_s"]
        self._wishes = deque((at_s, wish) for at_s, wish in state["wishes"])
        self._differences = deque(state["differences"], maxlen=NOISE_MINUTES)
        self._minute_s = state["minute_s"]
        self._minute_wish = state["minute_wish"]

    def _note(self, wish: float, now: float, window_s: float) -> None:
        self._wishes.append((now, wish))
        # One older than the window stays, to show that the window is covered.
        while len(self._wishes) > 1 and self._wishes[1][0] <= now - window_s:
            self._wishes.popleft()
        if self._minute_s is None:
            self._minute_s, self._minute_wish = now, wish
        elif now - self._minute_s >= MINUTE_S - 1e-6:
            self._differences.append(abs(wish - self._minute_wish))
            self._minute_s, self._minute_wish = now, wish


def _whole(replicas: float) -> int:
    return ceil(replicas - 1e-6)
