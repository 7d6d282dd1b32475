"""Whether shadows say what is really missed: what they said of the margin in use, against it.

    said     += what a shadow would have missed with the margins that were in use
    measured += share of requests that load made late * load
    factor = (measured + prior) / (said + prior)        fading over a week
    allowed = target + (target * judged - measured) / ahead     from 0 to 2 target
              ahead: as long as judged, at least 6 h; at most a day to spend what is left
    unspent = (allowed - target) / target                       from 0 to 1

Shadows know only what was wanted by the forecast. Whole replicas, hysteresis, and orders for a
backlog add to that, and chance takes away from it: by how much shows only in what came of it.

The target is a share of all requests, so that what was not missed of it may be missed later, and
the other way round: `allowed` is what may be missed from here on.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headrace.forecasting.shadows import KEEP, missed_of

PRIOR_MINUTES = 360.0
"""Of mean demand with the target just met, that were told right before anything is known."""
LEAST, MOST = 0.4, 2.0
BUDGET_MINUTES = 1440.0
"""What is left of the error budget, or overdrawn, is spent, or earned back, in as long as it was
saved in; and at least in the minutes of the prior, for a minute without a miss tells next to
nothing of those to come. What is left is spent in a day at most."""
MOST_PACE = 2.0
"""Of the target, how far what may be missed goes up for that. Down it goes to nothing: what is held
then is bounded by what a miss is worth."""


class Calibration:
    """`factor` is what shadows' misses are to be multiplied with."""

    __slots__ = ("_judged", "_measured", "_said", "_wanted")

    def __init__(self) -> None:
        self._measured = self._said = self._judged = 0.0
        self._wanted: deque[float] = deque(maxlen=1)

    def want(self, wanted: float, horizon: int) -> None:
        """The forecast wants this from now on."""
        if self._wanted.maxlen != horizon:
            self._wanted = deque(self._wanted, maxlen=horizon)
        self._wanted.append(wanted)

    def observe(
        self, load: float, missed_share: float | None, contagion: float, part: float
    ) -> None:
        """Take a minute's load and the share of requests that really missed because of it."""
        if missed_share is None or not self._wanted:
            return
        over, others = missed_of(load, min(self._wanted))
        self._said = self._said * KEEP + part * (over + contagion * others)
        self._measured = self._measured * KEEP + missed_share * load
        self._judged = self._judged * KEEP + load

    def factor(self, mean_load: float, target: float) -> float:
        """Measured over said."""
        prior = target * PRIOR_MINUTES * mean_load
        ratio = (self._measured + prior) / max(self._said + prior, 1e-12)
        return min(max(ratio, LEAST), MOST)

    def allowed(self, mean_load: float, target: float) -> float:
        """The share that may be missed from here on, for the whole to come to `target`."""
        if self._judged <= 0.0:
            return target
        ahead = max(self._judged, PRIOR_MINUTES * mean_load)
        left = target * self._judged - self._measured
        if left > 0.0:
            ahead = min(ahead, BUDGET_MINUTES * mean_load)
        return min(max(target + left / ahead, 0.0), MOST_PACE * target)

    def unspent(self, mean_load: float, target: float) -> float:
        """How far what may be missed is above the target: 0 not at all, 1 as far as it goes."""
        pace = self.allowed(mean_load, target) / target
        return max(pace - 1.0, 0.0) / (MOST_PACE - 1.0)

    def gap(self) -> None:
        """Minutes are missing."""
        self._wanted.clear()

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        wanted = list(self._wanted)
        sums = [self._measured, self._said, self._judged]
        return {"sums": sums, "wanted": wanted, "horizon": self._wanted.maxlen}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        # A file of before the budget was kept does not say how much was judged.
        self._measured, self._said, self._judged = (*state["sums"], 0.0)[:3]
        if len(state["sums"]) < 3:
            self._measured = self._said = 0.0
        self._wanted = deque(state["wanted"], maxlen=state["horizon"])
