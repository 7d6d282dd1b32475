"""The bounded queue of requests that wait at the gateway for a replica with room.

A request is held where no replica has room for it, so that the choice is made when one has: in the
order of priority bands, and within a band by deadline and by size.

    place in time = arrival + TTFT target + OVERTAKEN * prefill
    place late    = arrival               + OVERTAKEN * prefill
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from headrace.core.admission import Tier
from headrace.core.late_waits import SPAN_S, LateWaits

if TYPE_CHECKING:
    from headrace.core.flights import Flight

_ROUNDING_S: Final = 1e-9
OVERTAKEN: Final = 2.0
"""A request lets by those that come so much later, in times of their difference in prefill. While
all are in time, it costs nobody his target that short ones go first, and the mean wait is shorter;
a deadline is still one, for a request's place is fixed when it comes. With 30, waits are a tenth
shorter near capacity, and more answers are slow, since more of them run at a time."""
UNUSED_S: Final = 2.0
"""If nothing was sent for so long, those who starve owe nothing to others any more."""
OVERDUE: Final = 8.0
"""An overload lasts once the oldest of a queue have waited for so many TTFT targets. With 4, bursts
and agents, whose prefills are long, count as one, too: longer waits for no fewer misses."""
LOOKED_THROUGH: Final = 8
LEAST_OVERDUE: Final = 2
"""Of so many of the oldest so many have to: one may have reasons of its own."""
NEWEST: Final = 0.02
"""Weight of a request that comes in the TPOT target of a queue."""
EARLY: Final = 0.25
"""Of its TTFT target: who has less than this left beyond his prefill is late, in an overload that
lasts. Everybody is sent at the last moment there, and what comes between would make all late."""
STARVED_FIRST: Final = 2
"""Starved requests of one priority that go first at a time. If one did, it could wait for a replica
that never has room, and the others behind it."""
STARVED_AHEAD: Final = 4
"""Starved requests that go first at a time in all: others must be among those looked at, too."""
STARVED_SHARE: Final = 0.2
"""Of the prefill seconds that are sent while starved requests wait, what those get by going first.
If they got all, a lasting overload would make everybody wait until he is starved, and nobody would
be in time."""


class Held:
    """One request in the queue.

    `latest_s` is when it must be sent at the latest to meet its target, `prefill_s` what its
    prompt takes, `expires_s` when it has waited for too long. The lower `place` goes first.
    `promised_s` is the TTFT target of its tier, or its own where that is longer. `is_late` says
    that it waits with those that are too late, `tolerated_s` what TTFT its tier tolerates.
    """

    __slots__ = (
        "expires_s",
        "flight",
        "is_late",
        "latest_s",
        "place",
        "prefill_s",
        "priority",
        "promised_s",
        "tolerated_s",
    )

    def __init__(
        self, flight: Flight, tier: Tier, prefill_s: float, least_ttl_s: float = 0.0
    ) -> None:
        self.flight = flight
        self.priority = tier.priority
        self.promised_s = max(tier.ttft_s, flight.ttft_target_s)
        self.prefill_s = prefill_s
        deadline_s = flight.arrived_s + flight.ttft_target_s
        self.latest_s = deadline_s - prefill_s
        self.place = deadline_s + OVERTAKEN * prefill_s
        self.expires_s = flight.arrived_s + max(tier.ttl_s, least_ttl_s)
        # Who waits for the next replica waits for no other request.
        tolerates_any = least_ttl_s or not tier.shed_after_factor
        self.tolerated_s = inf if tolerates_any else tier.shed_after_factor * flight.ttft_target_s
        self.is_late = False


class Queue:
    """Requests held for one model, in the order in which they are to be sent.

        starved (the oldest of each priority, first where least was given, within STARVED_SHARE)
        ──► by priority: in time (by deadline) ──► too late (by age),
        short prompts before long ones (`OVERTAKEN`)

    What cannot be in time any more goes behind all of its band that can: to hurry it would only
    make others late as well.
    """

    __slots__ = (
        "_absent_s",
        "_absent_ttl_s",
        "_ahead",
        "_ahead_s",
        "_bands",
        "_given_s",
        "_held",
        "_newly_late",
        "_overdue_s",
        "_owed_s",
        "_turn",
        "_waits",
        "is_overdue",
        "tpot_target_s",
    )

    def __init__(self, now: float) -> None:
        self._waits = LateWaits(now)
        self._newly_late: dict[str, Held] = {}
        """Found to be late when it was last asked for the first ones."""
        self._overdue_s = now
        """Since when an overload lasts."""
        self._ahead: dict[str, Held] = {}
        """Starved ones that go first now."""
        self._ahead_s = 0.0
        """When the last of them was sent."""
        self._owed_s = 0.0
        """Prefill seconds of others that are to be sent before the next of them does."""
        self._given_s: dict[int, float] = {}
        """By priority, prefill seconds that went first because they starved, of the priorities that
        have such. Who newly has some begins with the least of the others."""
        self._absent_s = self._absent_ttl_s = 0.0
        """When nobody was ready last, and how long all wait then at least."""
        self.tpot_target_s = 0.0
        """The mean of those that come while requests are held here, the latest weighing most."""
        self.is_overdue = False
        """Whether an overload lasts, as of the last time it was asked for the first ones."""
        self._held: dict[str, tuple[Held, int]] = {}  # with their turns, in the order of these
        self._bands: dict[int, _Band] = {}  # by priority
        self._turn = 0

    def __len__(self) -> int:
        return len(self._held)

    def flights(self) -> list[Flight]:
        """What waits here, the oldest first."""
        return [held.flight for held, _ in self._held.values()]

    def add(self, held: Held) -> None:
        """Take in a request."""
        if not self._held:
            self.tpot_target_s = held.flight.tpot_target_s
        self._turn += 1
        self._held[held.flight.id] = (held, self._turn)
        band = self._bands.get(held.priority)
        if band is None:
            band = self._bands[held.priority] = _Band()
        band.work_s += held.prefill_s
        band.by_age[held.flight.id] = held
        insort(band.in_time, (held.place, self._turn, held))

    def remove(self, request_id: str) -> Held | None:
        """Take a request out, whatever its place; None if it is not here."""
        if request_id not in self._held:
            return None
        held, turn = self._held.pop(request_id)
        if held.is_late:
            self._waits.leave(held.priority, held.prefill_s)
        band = self._bands[held.priority]
        band.remove(held, turn)
        band.work_s -= held.prefill_s
        if not band.in_time and not band.late:
            del self._bands[held.priority]
        return held

    def work_before_s(self, priority: int) -> float:
        """Seconds of prefill, on one replica, that are sent before one of this priority that comes
        now: all of its priority and above, and what starving ones below it get in that time.
        """
        before_s = below_s = 0.0
        for other, band in self._bands.items():
            if other >= priority:
                before_s += band.work_s
            else:
                below_s += band.work_s
        return before_s + min(below_s, before_s * STARVED_SHARE / (1.0 - STARVED_SHARE))

    def has_above(self, priority: int) -> bool:
        """Whether one of a higher priority waits here."""
        return max(self._bands, default=priority) > priority

    def last_below(self, priority: int) -> Held | None:
        """Who would be sent last of those of the lowest priority, if that is below this one."""
        lowest = min(self._bands, default=priority)
        return self._bands[lowest].last() if lowest < priority else None

    def first(self, now: float, starved_after_s: float, most: int) -> list[Held]:
        """Those to be sent next, at most so many; they stay here until they are removed."""
        starved = self._starved(now, starved_after_s)
        unused_s, waited_s = now - self._waits.last_sent_s, now - self._ahead_s
        if not starved or unused_s > UNUSED_S or waited_s > starved_after_s:
            self._owed_s = 0.0
        self._ahead = {} if self._owed_s > _ROUNDING_S else starved
        self.is_overdue = self._lasts(now)
        if not self.is_overdue:
            self._overdue_s = now
        self._newly_late.clear()
        early = EARLY if self.is_overdue else 0.0
        found = dict(self._ahead)
        for priority in sorted(self._bands, reverse=True):
            band = self._bands[priority]
            found |= {
                held.flight.id: held for held in band.first(now, early, most, self._note_late)
            }
        return list(found.values())[:most]

    def _starved(self, now: float, starved_after_s: float) -> dict[str, Held]:
        """Those who are to go first because they starve: the oldest of the priority that got least,
        then of the next, and so on. If all were one line by age, a lower priority would wait as
        long as the oldest of a higher one that is overloaded.
        """
        waiting = dict[int, list[Held]]()
        for priority, band in self._bands.items():
            oldest = islice(band.by_age.values(), STARVED_FIRST)
            starved = [each for each in oldest if now - each.flight.arrived_s >= starved_after_s]
            if starved:
                waiting[priority] = starved
        given_s = self._given_s
        least_s = min((given_s[each] for each in waiting if each in given_s), default=0.0)
        self._given_s = given_s = {each: given_s.get(each, least_s) for each in waiting}

        def turn(starved: list[Held]) -> tuple[float, int]:
            return given_s[starved[0].priority], self._held[starved[0].flight.id][1]

        lines = sorted(waiting.values(), key=turn)
        ahead = [
            line[place] for place in range(STARVED_FIRST) for line in lines if place < len(line)
        ]
        return {held.flight.id: held for held in ahead[:STARVED_AHEAD]}

    def hopeless(self, now: float, starved_after_s: float) -> list[tuple[Held, float]]:
        """Those found to be late by the last `first` whose wait their tiers do not tolerate, and
        the TTFT that they would have. Only once an overload has lasted for so long that the wait
        is known: many of those that it makes late are served when it ends soon.
        """
        found = list[tuple[Held, float]]()
        if now - self._overdue_s < SPAN_S or not self._waits.is_known(now):
            return found
        for priority in {held.priority for held in self._newly_late.values()} & self._bands.keys():
            ahead_s = 0.0
            for _, _, held in self._bands[priority].late:
                if held.flight.id in self._newly_late:
                    ttft_s = self._ttft_s(held, ahead_s, now, starved_after_s)
                    if ttft_s > held.tolerated_s:
                        found.append((held, ttft_s))
                        continue
                ahead_s += held.prefill_s
        return found

    def _ttft_s(self, held: Held, ahead_s: float, now: float, starved_after_s: float) -> float:
        """What a late one would have behind so much work of its priority; 0 if it does not wait for
        long, for then its own length is to blame.
        """
        waited_s = now - held.flight.arrived_s
        starves_in_s = max(starved_after_s - waited_s, 0.0)
        wait_s = waited_s + self._waits.wait_s(
            held.priority,
            ahead_s=ahead_s,
            own_s=held.prefill_s,
            starves_in_s=starves_in_s if now + starves_in_s < held.expires_s else inf,
            share=STARVED_SHARE,
        )
        return wait_s + held.prefill_s if wait_s > held.flight.ttft_target_s else 0.0

    def _note_late(self, held: Held) -> None:
        # Who waits for a replica of his own choice waits for no other.
        if not held.flight.request.replica:
            held.is_late = True
            self._waits.join(held.priority, held.prefill_s)
            self._newly_late[held.flight.id] = held

    def sent(self, request_id: str, prefill_s: float, now: float) -> None:
        """A request of this model goes to a replica, out of this queue or past it."""
        entry = self._held.get(request_id)
        if entry is None:
            self._waits.sent(prefill_s, None, now)
        else:
            # As it is counted while it waits: its prefix may have been cached since.
            held = entry[0]
            self._waits.sent(held.prefill_s, held.priority if held.is_late else None, now)
        if request_id in self._ahead:
            self._owed_s += prefill_s * (1.0 / STARVED_SHARE - 1.0)
            self._given_s[self._ahead[request_id].priority] += prefill_s
            self._ahead_s = now
        else:
            self._owed_s = max(self._owed_s - prefill_s, 0.0)

    def came(self, tpot_target_s: float) -> None:
        """A request of this model has come, whether it is held or not."""
        self.tpot_target_s += (tpot_target_s - self.tpot_target_s) * NEWEST

    def _lasts(self, now: float) -> bool:
        """Whether more comes than can be done in time, and not only for a moment."""
        overdue = 0
        for held, _ in islice(self._held.values(), LOOKED_THROUGH):
            # Who waits for a replica of his own choice says nothing of the others.
            if not held.flight.request.replica:
                overdue += now - held.flight.arrived_s > OVERDUE * held.promised_s
        return overdue >= LEAST_OVERDUE

    def nobody_is_ready(self, least_ttl_s: float, now: float) -> None:
        """There is no replica to wait for but the next one, for which all may wait so long."""
        self._absent_s, self._absent_ttl_s = now, least_ttl_s

    def lacks_replicas(self, now: float) -> bool:
        """Whether none was ready when those that wait were looked at now."""
        return self._absent_s >= now

    def expired(self, now: float) -> list[Held]:
        """Those that have waited for too long, the oldest first."""
        least_s = self._absent_ttl_s if self.lacks_replicas(now) else 0.0
        return [
            held
            for held, _ in self._held.values()
            if held.expires_s <= now and held.flight.arrived_s + least_s <= now
        ]


class _Band:
    """Requests of one priority: those in time, as far as is known, those too late, and all of them
    `by_age`; `work_s` is what their prefills take on one replica.
    """

    __slots__ = ("by_age", "in_time", "late", "work_s")

    def __init__(self) -> None:
        self.by_age: dict[str, Held] = {}
        self.in_time: list[_Place] = []
        self.late: list[_Place] = []
        self.work_s = 0.0

    def last(self) -> Held:
        """Who is sent after all others; there must be one."""
        return (self.late or self.in_time)[-1][2]

    def first(
        self, now: float, early: float, most: int, found_late: Callable[[Held], None]
    ) -> list[Held]:
        """The first ones. Whether somebody is late matters only when it is his turn: he is if what
        is left is less than his prefill takes and so much of his target, for what may come between.
        """
        in_time, found = self.in_time, list[Held]()
        while len(found) < most and len(found) < len(in_time):
            _, turn, held = in_time[len(found)]
            if held.latest_s < now + early * held.flight.ttft_target_s:
                del in_time[len(found)]
                held.place = held.flight.arrived_s + OVERTAKEN * held.prefill_s
                insort(self.late, (held.place, turn, held))
                found_late(held)
            else:
                found.append(held)
        return found + [held for _, _, held in self.late[: most - len(found)]]

    def remove(self, held: Held, turn: int) -> None:
        del self.by_age[held.flight.id]
        for entries in (self.in_time, self.late):
            at = bisect_left(entries, (held.place, turn))
            if at < len(entries) and entries[at][1] == turn:
                del entries[at]
                return


_Place: TypeAlias = tuple[float, int, Held]
"""`Held.place`, the turn that it came in, which decides between equals, and itself."""
