"""What recent minutes tell of those ahead: level, restlessness, trend, and the time of the hour.

All in load (replicas fully used), from one value a minute:

    range   = highest - lowest of the last horizon, less what chance alone makes of it: that is
              what the capacity of a small pool keeps free already
    beyond  = sqrt(mean range² - (chance + its error)²)     means first: a range less chance that is
              cut off at nothing each minute would be the noise of chance itself
    restless = 0.75 * beyond over 24 horizons + 0.2 * beyond over 144 + 1.5 % of mean load
    share   = mean of range / load over 2 days                moves in proportion to the level
    slope   = (now - a horizon ago) / horizon, if up
    level   = mean load over 6 h, to which what jumps about it comes back
    marks   = for each minute of the hour, how far demand rose behind it, over what is usual

Restlessness comes in spells: after an hour of jumps the next hour has them too. Marks: jobs and
people start on the hour, the half and the ten minutes, so that a rise is likelier there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import log2, sqrt
from typing import Any

DAY_MINUTES = 1440
HOUR_MINUTES = 60
FAST_HORIZONS, SLOW_HORIZONS = 24.0, 144.0
"""Half-lives: what moves within a minute is to be known, and forgotten, sooner than what takes ten.
Of a cold start of 4 min they are 2 h and 12 h."""
LEVEL_MINUTES = 360.0
MEAN_MINUTES = 3.0 * DAY_MINUTES
SHARE_MINUTES = 2.0 * DAY_MINUTES
FAST_WEIGHT, SLOW_WEIGHT, MEAN_WEIGHT = 0.75, 0.2, 0.015
RANGE_OF_TWO, RANGE_POWER = 1.128, 0.86
"""Expected range of n normal values of standard deviation 1: 1.128 * log2(n)^0.86, within 4 % up to
n = 16."""
RANGE_SPREAD = 0.5
"""Standard deviation of a range by chance alone, as a share of its mean."""
MARK_HOURS = 14.0 * 24.0
"""Half-life of what is known of a minute of the hour, in hours."""
MARK_PRIOR = 12.0
"""Hours of no difference that a minute of the hour begins with."""
MOST_RISE = 4.0
"""In units of restlessness: one jump says no more than this of its minute."""
LEAST_MARK, MOST_MARK = 0.1, 3.0


class Faded:
    """A mean that forgets: weights halve every `half_life` values; exact from the first on."""

    __slots__ = ("_keep", "mean", "weight")

    def __init__(self, half_life: float) -> None:
        self._keep = 0.5 ** (1.0 / half_life)
        self.mean = 0.0
        self.weight = 0.0

    def forget_after(self, half_life: float) -> None:
        """Use another half-life from now on."""
        self._keep = 0.5 ** (1.0 / half_life)

    def add(self, value: float) -> None:
        """Take one more value."""
        self.weight = self.weight * self._keep + 1.0
        self.mean += (value - self.mean) / self.weight

    @property
    def known(self) -> float:
        """The share of all the weight it can have that is of values seen."""
        return self.weight * (1.0 - self._keep)

    def state(self) -> list[float]:
        """Mean and weight."""
        return [self.mean, self.weight]

    def restore(self, state: list[float]) -> None:
        """Go on from `state`."""
        self.mean, self.weight = state


def moved(ratios: Sequence[tuple[float, float]], before: int, horizon: int) -> list[int]:
    """For each minute of the hour, whose (sum, weight) tells what a window of `horizon` minutes
    from it on shows, where those told are of windows of `before` minutes.

    A longer window holds several of the shorter ones: it shows what the one with the highest mean
    shows. A shorter one lies within several of the longer ones: what all of them show.
    """
    count, off = len(ratios), horizon - before
    reach = range(off + 1) if off >= 0 else range(off, 1)
    most = max if off >= 0 else min

    def mean(place: int) -> float:
        total, weight = ratios[place]
        return total / weight if weight > 0.0 else 0.0

    # Of equal ones the nearest: minutes without habits keep their own.
    near = sorted(reach, key=abs)
    return [most(((place + each) % count for each in near), key=mean) for place in range(count)]


class Signs:
    """The signs as of the last minute; `horizon` is in minutes and may change."""

    __slots__ = (
        "_chance",
        "_counts",
        "_fast",
        "_kept",
        "_restless_then",
        "_rises",
        "_share",
        "_slow",
        "_window",
        "level",
        "mark",
        "mean",
        "range",
        "restless",
        "share",
        "slope",
    )

    def __init__(self) -> None:
        self._window: deque[float] = deque(maxlen=2)
        self._restless_then: deque[float] = deque(maxlen=2)
        self._fast = Faded(FAST_HORIZONS)
        self._slow = Faded(SLOW_HORIZONS)
        self._chance = Faded(FAST_HORIZONS)
        self._share = Faded(SHARE_MINUTES)
        self._rises = [0.0] * HOUR_MINUTES
        self._counts = [0.0] * HOUR_MINUTES
        self._kept = 0.5 ** (1.0 / MARK_HOURS)
        self.level = Faded(LEVEL_MINUTES)
        self.mean = Faded(MEAN_MINUTES)
        self.range = self.restless = self.share = self.slope = 0.0
        self.mark = 1.0

    def observe(
        self, minute: int, load: float, horizon: int, noise: float = 0.0, part: float = 1.0
    ) -> None:
        """Take the load of a minute, numbered since the epoch; without gaps.

        `part` is how much of a minute a cold start takes, 1 from a whole one on.
        `noise` is the standard deviation that chance alone gives such a minute.
        """
        if self._window.maxlen != horizon + 1:
            self._window = deque(self._window, maxlen=horizon + 1)
            self._restless_then = deque(self._restless_then, maxlen=horizon + 1)
        self._fast.forget_after(FAST_HORIZONS * horizon * part)
        self._chance.forget_after(FAST_HORIZONS * horizon * part)
        self._slow.forget_after(SLOW_HORIZONS * horizon * part)
        window = self._window
        window.append(load)
        self.mean.add(load)
        self.level.add(load)
        highest, lowest = max(window), min(window)
        by_chance = noise * RANGE_OF_TWO * log2(max(len(window), 1)) ** RANGE_POWER
        self.range = sqrt(max((highest - lowest) ** 2 - by_chance**2, 0.0))
        if len(window) == horizon + 1:
            self._fast.add(highest - lowest)
            self._slow.add(highest - lowest)
            self._chance.add(by_chance)
            self._share.add(self.range / max(window[0], 1e-3 * self.mean.mean, 1e-9))
            self._learn_mark((minute - horizon) % HOUR_MINUTES, window)
        mean = self.mean.mean
        known = self._fast.weight > 0.0
        fast = self._beyond_chance(self._fast, horizon) if known else 0.1 * mean
        slow = self._beyond_chance(self._slow, horizon) if known else 0.1 * mean
        self.restless = FAST_WEIGHT * fast + SLOW_WEIGHT * slow + MEAN_WEIGHT * mean
        self.share = (self._share.mean if known else 0.1) * load
        self.slope = max((load - window[0]) / max(len(window) - 1, 1), 0.0)
        self.mark = self._mark_at(minute % HOUR_MINUTES)
        self._restless_then.append(self.restless)

    def look_to(self, horizon: int) -> None:
        """Tell the habits of minutes as a horizon of so many would have shown them."""
        before = (self._window.maxlen or 2) - 1
        if horizon == before:
            return
        places = moved(list(zip(self._rises, self._counts, strict=True)), before, horizon)
        self._rises = [self._rises[place] for place in places]
        self._counts = [self._counts[place] for place in places]

    def gap(self) -> None:
        """Minutes are missing: what was before is no neighbour of what comes."""
        self._window.clear()
        self._restless_then.clear()

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "window": list(self._window),
            "restless_then": list(self._restless_then),
            "horizon": self._window.maxlen,
            "faded": [each.state() for each in self._all_faded()],
            "rises": list(self._rises),
            "counts": list(self._counts),
            "now": [self.range, self.restless, self.share, self.slope, self.mark],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self._window = deque(state["window"], maxlen=state["horizon"])
        self._restless_then = deque(state["restless_then"], maxlen=state["horizon"])
        for faded, kept in zip(self._all_faded(), state["faded"], strict=True):
            faded.restore(kept)
        self._rises = list(state["rises"])
        self._counts = list(state["counts"])
        self.range, self.restless, self.share, self.slope, self.mark = state["now"]

    def _beyond_chance(self, ranges: Faded, horizon: int) -> float:
        """What a mean range has beyond what chance makes of it, and of a mean of so few ranges."""
        few = sqrt(max(horizon, 1) / ranges.weight)
        by_chance = self._chance.mean * (1.0 + RANGE_SPREAD * min(few, 1.0))
        return sqrt(max(ranges.mean**2 - by_chance**2, 0.0))

    def _all_faded(self) -> tuple[Faded, ...]:
        return (self._fast, self._slow, self._chance, self._share, self.mean, self.level)

    def _learn_mark(self, place: int, window: deque[float]) -> None:
        """How far demand rose behind the minute that began the window."""
        if len(self._restless_then) < len(window) - 1 or self._restless_then[0] <= 0.0:
            return
        rise = max(max(window) - window[0], 0.0) / self._restless_then[0]
        self._rises[place] = self._rises[place] * self._kept + min(rise, MOST_RISE)
        self._counts[place] = self._counts[place] * self._kept + 1.0

    def _mark_at(self, place: int) -> float:
        count = sum(self._counts)
        usual = sum(self._rises) / count if count > 0.0 else 0.0
        if usual <= 0.0:
            return 1.0
        known = self._counts[place]
        rise = self._rises[place] / known if known > 0.0 else usual
        ratio = min(max(rise / usual, LEAST_MARK), MOST_MARK)
        # One rise in a few hours proves no habit, however rare rises are.
        return 1.0 + (ratio - 1.0) * known / (known + MARK_PRIOR)
