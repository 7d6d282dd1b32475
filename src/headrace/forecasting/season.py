"""How demand goes with the time of the day and the day of the week.

    profile[day of week][slot] = faded mean of log(load / level)       level: mean of the last day
    smooth = mean of profile over the slots within half an hour, nearer ones counting more
    height = profile or smooth, whichever has explained more of the changes between slots lately,
             by what they said before they knew the slot that a change begins with
    expected ratio from slot a to slot b = exp(weight * (height[b] - height[a]))
    weight = share of the change between slots that heights have explained lately, 0 to 1
    usual = exp(mean of (log(load) - weight * height) over the last slots + weight * height[b])

A slot is 10 minutes. A slot of this weekday counts as far as weeks of it are known; the same slot
of all days is what it is shrunk to. Single slots know a job that begins at two o'clock, but each of
them rests on few days and trembles as those did: a day that goes up and down slowly shows only in
many of them. A profile that explains nothing gets no weight, so that demand
without season is not pushed about by noise of last week.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

SLOT_MINUTES = 10
SLOTS = 1440 // SLOT_MINUTES
DAYS = 7
LEVEL_KEEP = 0.5 ** (1.0 / SLOTS)
DAY_STEP = 0.3
"""How far a slot of all days goes towards what it was today."""
WEEK_STEP = 0.5
WEEK_PRIOR = 1.0
"""Weeks of a weekday's slot that count as much as the mean of all days."""
WEIGHT_KEEP = 0.5 ** (1.0 / (3.0 * SLOTS))
LEAST_DAYS = 1.5
"""Before so many days are known there is no season."""
WIDTHS = (0, 3)
"""Slots on either side that a height is a mean of."""
RECENT_SLOTS, RECENT_KEEP = 6, 0.5 ** (1.0 / 2.0)
"""The level of the last hours: so many slots, those twenty minutes older counting half."""


class Season:
    """Profiles by the slot; minutes are numbered since the epoch."""

    __slots__ = (
        "_both", "_count", "_daily", "_heights", "_last_slot", "_level", "_own", "_recent", "_said",
        "_seen", "_sum", "_weekly",
    )  # fmt: skip

    def __init__(self) -> None:
        self._daily = [0.0] * SLOTS
        self._seen = [0.0] * SLOTS
        self._weekly = [[0.0] * SLOTS for _ in range(DAYS)]
        self._count = [[0.0] * SLOTS for _ in range(DAYS)]
        self._level = 0.0
        self._sum = [0.0, 0.0, 0.0]  # slot number, load, minutes of the slot in work
        self._last_slot: float | None = None  # log load of the slot before, if it is the neighbour
        self._both = [0.0 for _ in WIDTHS]
        self._own = [0.0 for _ in WIDTHS]
        self._said = [0.0 for _ in WIDTHS]  # of the change to the next slot
        self._heights: dict[tuple[int, int], float] = {}  # by width and slot, until one closes
        self._recent: list[tuple[int, float]] = []  # (slot, log load), oldest first

    def observe(self, minute: int, load: float) -> None:
        """Take the load of a minute."""
        slot = minute // SLOT_MINUTES
        if slot != self._sum[0]:
            if self._sum[2] >= SLOT_MINUTES / 2:
                self._close(int(self._sum[0]), self._sum[1] / self._sum[2])
            else:
                self._last_slot = None
            if slot != self._sum[0] + 1:
                self._last_slot = None
                self._recent = []
            self._sum = [float(slot), 0.0, 0.0]
        self._sum[1] += load
        self._sum[2] += 1.0

    def ratio(self, minute: int, ahead_minutes: int) -> float:
        """The highest expected load of the next `ahead_minutes` over that of `minute`."""
        if not self._is_known():
            return 1.0
        here = self._at(minute)
        return exp(self._weight() * max(self._highest(minute, ahead_minutes) - here, 0.0))

    def usual(self, minute: int, ahead_minutes: int) -> float | None:
        """The highest usual load of the next `ahead_minutes`, as the last hours go on; None where
        they are not known.
        """
        if not self._recent:
            return None
        weight, width = self._weight() if self._is_known() else 0.0, self._width()
        total = count = 0.0
        for slot, load in self._recent:
            height = weight * self._height(slot, width) if weight > 0.0 else 0.0
            total, count = RECENT_KEEP * total + load - height, RECENT_KEEP * count + 1.0
        ahead = weight * self._highest(minute, ahead_minutes) if weight > 0.0 else 0.0
        return exp(total / count + ahead)

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "_heights"}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said; a file of before heights were smoothed says less."""
        kept = {"_recent": [], "_said": [0.0 for _ in WIDTHS], **state}
        if not isinstance(state["_both"], list):
            kept |= {"_both": [state["_both"], 0.0], "_own": [state["_own"], 0.0]}
        for name, value in kept.items():
            setattr(self, name, value)
        self._heights = {}

    def _is_known(self) -> bool:
        return min(self._seen) > 0.0 and sum(self._seen) >= LEAST_DAYS * SLOTS

    def _highest(self, minute: int, ahead_minutes: int) -> float:
        last = minute + ahead_minutes
        places = [*range(minute, last, SLOT_MINUTES), last]
        return max(self._at(place) for place in places)

    def _explained(self, width: int) -> float:
        """Of the squares of all changes, what heights of the width at this place say beforehand."""
        both, own = self._both[width], self._own[width]
        return both * both / own if both > 0.0 and own > 0.0 else 0.0

    def _width(self) -> int:
        """The place of the width in use."""
        return max(range(len(WIDTHS)), key=self._explained)

    def _weight(self) -> float:
        both, own = self._both[self._width()], self._own[self._width()]
        return min(max(both / own, 0.0), 1.0) if own > 0.0 else 0.0

    def _at(self, minute: int) -> float:
        """The height at a minute, between the middles of two slots."""
        place = (minute - SLOT_MINUTES / 2) / SLOT_MINUTES
        slot, width = int(place // 1), self._width()
        part = place - slot
        return (1.0 - part) * self._height(slot, width) + part * self._height(slot + 1, width)

    def _height(self, slot: int, width: int) -> float:
        found = self._heights.get((width, slot))
        if found is None:
            reach = WIDTHS[width]
            weights = {off: reach + 1 - abs(off) for off in range(-reach, reach + 1)}
            total = sum(share * self._slot(slot + off) for off, share in weights.items())
            found = self._heights[width, slot] = total / sum(weights.values())
        return found

    def _slot(self, slot: int) -> float:
        day, place = slot // SLOTS % DAYS, slot % SLOTS
        weeks = self._count[day][place]
        share = weeks / (weeks + WEEK_PRIOR)
        return share * self._weekly[day][place] + (1.0 - share) * self._daily[place]

    def _close(self, slot: int, load: float) -> None:
        """A slot is complete: learn from it."""
        place, day = slot % SLOTS, slot // SLOTS % DAYS
        if load <= 0.0:
            # Who asks for nothing has left the level of the hours before.
            self._last_slot, self._recent = None, []
            self._heights.clear()
            return
        self._recent = [*self._recent, (slot, log(load))][-RECENT_SLOTS:]
        self._level = load if self._level <= 0.0 else self._level
        self._level += (1.0 - LEVEL_KEEP) * (load - self._level)
        if self._last_slot is not None and self._seen[place] > 0.0:
            for width, said in enumerate(self._said):
                both = said * (log(load) - self._last_slot)
                self._both[width] = self._both[width] * WEIGHT_KEEP + both
                self._own[width] = self._own[width] * WEIGHT_KEEP + said * said
        # Before this slot is learned: a profile that knows what chance made of it today would seem
        # to foresee that it is over in the next.
        places = range(len(WIDTHS))
        self._said = [self._height(slot + 1, w) - self._height(slot, w) for w in places]
        self._heights.clear()
        deviation = log(load / self._level)
        first = self._seen[place] <= 0.0
        self._daily[place] += (1.0 if first else DAY_STEP) * (deviation - self._daily[place])
        self._seen[place] += 1.0
        weeks = self._count[day][place]
        step = 1.0 if weeks <= 0.0 else WEEK_STEP
        self._weekly[day][place] += step * (deviation - self._weekly[day][place])
        self._count[day][place] = weeks + 1.0
        self._last_slot = log(load)
