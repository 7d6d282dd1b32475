"""Whether shadows say what is really missed: what they said of the margin in use, against it.

    said     += what a shadow would have missed with the margins that were in use
    measured += share of requests that load made late * load
    factor = (measured + prior) / (said + prior)        fading over a week

Shadows know only what was wanted by the forecast. Whole replicas, hysteresis, and orders for a
backlog add to that, and chance takes away from it: by how much shows only in what came of it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headrace.forecasting.shadows import KEEP, missed_of

PRIOR_MINUTES = 360.0
"""Of mean demand with the target just met, that were told right before anything is known."""
LEAST, MOST = 0.4, 2.0


class Calibration:
    """`factor` is what shadows' misses are to be multiplied with."""

    __slots__ = ("_measured", "_said", "_wanted")

    def __init__(self) -> None:
        self._measured = self._said = 0.0
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

    def factor(self, mean_load: float, target: float) -> float:
        """Measured over said."""
        prior = target * PRIOR_MINUTES * mean_load
        ratio = (self._measured + prior) / max(self._said + prior, 1e-12)
        return min(max(ratio, LEAST), MOST)

    def gap(self) -> None:
        """Minutes are missing."""
        self._wanted.clear()

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        wanted = list(self._wanted)
        sums = [self._measured, self._said]
        return {"sums": sums, "wanted": wanted, "horizon": self._wanted.maxlen}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self._measured, self._said = state["sums"]
        self._wanted = deque(state["wanted"], maxlen=state["horizon"])
