"""How long those will wait who are too late to be in time: told by how fast such were sent.

    by turn     = work of late ones before it / such work sent in a second,
                  both of its priority and above
    by starving = time until it starves + work of all late ones / work that starving ones get
                  or, of its priority alone, / its part of that: priorities get the same
    wait        = the least of these

Whatever it is that they wait for: a prediction in prefills says nothing where decoding takes the
time. Work is seconds of prefill as reckoned when each was held, on both sides of a quotient.
"""

from __future__ import annotations

from math import exp, inf
from typing import Final

SPAN_S: Final = 30.0
"""Over about so long is measured, and nothing is said before."""
STALE_S: Final = 5.0
"""If nothing was sent for so long, there was nobody to send to: what was measured says nothing of
the time when there is again."""
_LEAST_S: Final = 1e-9


class LateWaits:
    """Of the held requests of one model."""

    __slots__ = ("_all_s", "_by_priority", "_since_s", "last_sent_s")

    def __init__(self, now: float) -> None:
        self._since_s = self.last_sent_s = now
        self._all_s = 0.0
        """Work that was sent lately, of whatever kind."""
        self._by_priority: dict[int, _Late] = {}

    def join(self, priority: int, work_s: float) -> None:
        """One has become late."""
        self._by_priority.setdefault(priority, _Late()).join(work_s)

    def leave(self, priority: int, work_s: float) -> None:
        """A late one waits no more, whatever became of it."""
        self._by_priority[priority].leave(work_s)

    def sent(self, work_s: float, late_priority: int | None, now: float) -> None:
        """A request went to a replica; `late_priority` if it waited with the late ones."""
        kept = exp((self.last_sent_s - now) / SPAN_S)
        if now - self.last_sent_s > STALE_S:
            kept, self._since_s = 0.0, now
        self.last_sent_s = now
        self._all_s = self._all_s * kept + work_s
        for late in self._by_priority.values():
            late.sent_s *= kept
        if late_priority is not None:
            self._by_priority[late_priority].sent_s += work_s

    def is_known(self, now: float) -> bool:
        """Whether enough was seen to say anything."""
        return now - self._since_s >= SPAN_S and now - self.last_sent_s <= STALE_S

    def wait_s(
        self, priority: int, *, ahead_s: float, own_s: float, starves_in_s: float, share: float
    ) -> float:
        """How long a late one of this priority will wait from now on.

        `ahead_s` is the work of its priority that goes before it, `own_s` its own, `share` what
        starving ones get of all; `starves_in_s` is infinite if it never starves.
        """
        sent_s = every_s = 0.0
        lines = 0
        for other, late in self._by_priority.items():
            every_s += late.waiting_s
            lines += late.waiting > 0
            if other >= priority:
                sent_s += late.sent_s
            if other > priority:
                ahead_s += late.waiting_s
        by_turn_s = SPAN_S * ahead_s / max(sent_s, _LEAST_S)
        if starves_in_s == inf:
            return by_turn_s
        alike_s = lines * (self._by_priority[priority].waiting_s - own_s)
        others_s = max(min(every_s - own_s, alike_s), 0.0)
        by_starving_s = starves_in_s + SPAN_S * others_s / max(share * self._all_s, _LEAST_S)
        return min(by_turn_s, by_starving_s)


class _Late:
    """Late ones of one priority: how many wait, and seconds of prefill that wait and were sent."""

    __slots__ = ("sent_s", "waiting", "waiting_s")

    def __init__(self) -> None:
        self.waiting = 0
        self.waiting_s = self.sent_s = 0.0

    def join(self, work_s: float) -> None:
        self.waiting += 1
        self.waiting_s += work_s

    def leave(self, work_s: float) -> None:
        self.waiting -= 1
        self.waiting_s = max(self.waiting_s - work_s, 0.0) if self.waiting else 0.0
