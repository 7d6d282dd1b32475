"""Whether demand that is off its usual level goes back to it within a horizon, and how far.

    pull     = usual - load                    usual: as the last hours go on, `Season.usual`
    expected = load + share * pull
    share    = sum(move * pull) / sum(pull²), 0 to 1          move = load a horizon later - load

One share for each minute of the hour, shrunk to that of all: where demand moves on the ten minutes
only, it goes back in those before them and stays in the others. Demand that trembles about its
course goes back at once, and what it is below it now need not be missed, nor what it is above it
provided for again; a random walk never goes back, so that of it nothing is learned: shares fade
over days, and are nothing while little is known.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headrace.forecasting.signs import moved

HOUR_MINUTES = 60
KEEP = 0.5 ** (1.0 / (3.0 * 1440.0))
HOUR_KEEP = KEEP**HOUR_MINUTES
PRIOR_HOURS = 6.0
"""Hours of no return that all minutes begin with, and of the usual one that each begins with."""


class Reversion:
    """The shares of one pool's demand."""

    __slots__ = ("_both", "_hours", "_own", "_pending")

    def __init__(self) -> None:
        self._both = [0.0] * HOUR_MINUTES
        self._own = [0.0] * HOUR_MINUTES
        self._hours = 0.0
        self._pending: deque[tuple[float, float]] = deque(maxlen=1)  # (load, pull)

    def observe(self, minute: int, load: float, pull: float, horizon: int) -> None:
        """Take a minute: its load, and how far it is from where it would go back to."""
        if self._pending.maxlen != horizon:
            self._pending = deque(self._pending, maxlen=horizon)
        if len(self._pending) == horizon:
            before, pulled = self._pending[0]
            place = (minute - horizon) % HOUR_MINUTES
            self._both[place] = self._both[place] * HOUR_KEEP + pulled * (load - before)
            self._own[place] = self._own[place] * HOUR_KEEP + pulled * pulled
            self._hours = self._hours * KEEP + 1.0 / HOUR_MINUTES
        self._pending.append((load, pull))

    def share(self, minute: int) -> float:
        """Of the way back, what is gone within a horizon from such a minute of the hour."""
        own = sum(self._own)
        if own <= 0.0 or self._hours <= 0.0:
            return 0.0
        of_all = sum(self._both) / own * self._hours / (self._hours + PRIOR_HOURS)
        place = minute % HOUR_MINUTES
        prior = own / HOUR_MINUTES * PRIOR_HOURS / self._hours
        share = (self._both[place] + prior * of_all) / (self._own[place] + prior)
        return min(max(share, 0.0), 1.0)

    def look_to(self, horizon: int) -> None:
        """Tell the shares as a horizon of so many minutes would have shown them."""
        before = self._pending.maxlen or 1
        if horizon == before:
            return
        places = moved(list(zip(self._both, self._own, strict=True)), before, horizon)
        self._both = [self._both[place] for place in places]
        self._own = [self._own[place] for place in places]

    def gap(self) -> None:
        """Minutes are missing."""
        self._pending.clear()

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "both": list(self._both),
            "own": list(self._own),
            "hours": self._hours,
            "pending": [list(each) for each in self._pending],
            "horizon": self._pending.maxlen,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self._both, self._own = list(state["both"]), list(state["own"])
        self._hours = state["hours"]
        self._pending = deque(((load, pull) for load, pull in state["pending"]), state["horizon"])
