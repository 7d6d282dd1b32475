"""How demand goes with the time of the day and the day of the week.

    profile[day of week][slot] = faded mean of log(load / level)       level: mean of the last day
    expected ratio from slot a to slot b = exp(weight * (profile[b] - profile[a]))
    weight = share of the change between slots that profiles have explained lately, 0 to 1

A slot is 10 minutes. A slot of this weekday counts as far as weeks of it are known; the same slot
of all days is what it is shrunk to. A profile that explains nothing gets no weight, so that demand
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


class Season:
    """Profiles by the slot; minutes are numbered since the epoch."""

    __slots__ = (
        "_both", "_count", "_daily", "_last_slot", "_level", "_own", "_seen", "_sum", "_weekly",
    )  # fmt: skip

    def __init__(self) -> None:
        self._daily = [0.0] * SLOTS
        self._seen = [0.0] * SLOTS
        self._weekly = [[0.0] * SLOTS for _ in range(DAYS)]
        self._count = [[0.0] * SLOTS for _ in range(DAYS)]
        self._level = 0.0
        self._sum = [0.0, 0.0, 0.0]  # slot number, load, minutes of the slot in work
        self._last_slot: float | None = None  # log load of the slot before, if it is the neighbour
        self._both = 0.0
        self._own = 0.0

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
            self._sum = [float(slot), 0.0, 0.0]
        self._sum[1] += load
        self._sum[2] += 1.0

    def ratio(self, minute: int, ahead_minutes: int) -> float:
        """The highest expected load of the next `ahead_minutes` over that of `minute`."""
        if min(self._seen) <= 0.0 or sum(self._seen) < LEAST_DAYS * SLOTS:
            return 1.0
        here = self._at(minute)
        last = minute + ahead_minutes
        places = [*range(minute, last, SLOT_MINUTES), last]
        highest = max(self._at(place) for place in places)
        return exp(self._weight() * max(highest - here, 0.0))

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        for name in self.__slots__:
            setattr(self, name, state[name])

    def _weight(self) -> float:
        return min(max(self._both / self._own, 0.0), 1.0) if self._own > 0.0 else 0.0

    def _at(self, minute: int) -> float:
        """The profile at a minute, between the middles of two slots."""
        place = (minute - SLOT_MINUTES / 2) / SLOT_MINUTES
        slot = int(place // 1)
        part = place - slot
        return (1.0 - part) * self._slot(slot) + part * self._slot(slot + 1)

    def _slot(self, slot: int) -> float:
        day, place = slot // SLOTS % DAYS, slot % SLOTS
        weeks = self._count[day][place]
        share = weeks / (weeks + WEEK_PRIOR)
        return share * self._weekly[day][place] + (1.0 - share) * self._daily[place]

    def _close(self, slot: int, load: float) -> None:
        """A slot is complete: learn from it."""
        place, day = slot % SLOTS, slot // SLOTS % DAYS
        if load <= 0.0:
            self._last_slot = None
            return
        self._level = load if self._level <= 0.0 else self._level
        self._level += (1.0 - LEVEL_KEEP) * (load - self._level)
        if self._last_slot is not None and self._seen[place] > 0.0:
            # What the profile said of this change, before it learns from it.
            said = self._slot(slot) - self._slot(slot - 1)
            self._both = self._both * WEIGHT_KEEP + said * (log(load) - self._last_slot)
            self._own = self._own * WEIGHT_KEEP + said * said
        deviation = log(load / self._level)
        first = self._seen[place] <= 0.0
        self._daily[place] += (1.0 if first else DAY_STEP) * (deviation - self._daily[place])
        self._seen[place] += 1.0
        weeks = self._count[day][place]
        step = 1.0 if weeks <= 0.0 else WEEK_STEP
        self._weekly[day][place] += step * (deviation - self._weekly[day][place])
        self._count[day][place] = weeks + 1.0
        self._last_slot = log(load)
