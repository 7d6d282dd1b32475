"""What was ordered of a platform that does not tell: replicas that KEDA is making and that no
gateway sees yet.

A gateway sees a replica when it is ready. What comes before is known here only: when the number
that we published went up. So each replica that is missing stands in the observation as one that
starts, and the next new one that is seen takes its place, and with it the time of its order: that
is how cold starts are measured. Orders outlive a restart with the times they were made at. Those
that are kept nowhere have a time that was put together from elsewhere, or none: no cold start is
measured from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from headrace.core.scaling.observation import Phase, ReplicaObservation

GIVEN_UP_S = 1800.0
"""An order that brought nothing for so long is not shown any more, so that it is made anew."""


@dataclass(slots=True)
class _Order:
    name: str
    since_s: float
    """Since when it is open."""
    at_s: float
    """When it was ordered, 0 where nobody knows."""
    is_own: bool
    """Whether we ordered it, and know when to the second."""


class Orders:
    """The open orders of one pool."""

    __slots__ = ("_goes_on", "_number", "_open", "_ordered", "_seen")

    def __init__(self) -> None:
        self._open: list[_Order] = []  # the oldest first
        self._ordered: dict[str, float] = {}
        self._seen: set[str] | None = None
        self._number = 0
        self._goes_on = False

    def observed(
        self, replicas: Iterable[ReplicaObservation], now: float
    ) -> tuple[ReplicaObservation, ...]:
        """The replicas that are seen, those we ordered with the time of their order, and after
        them those that are still missing.
        """
        present = list(replicas)
        names = {each.name for each in present}
        if self._seen is not None:
            for each in present:
                if each.name not in self._seen and self._open:
                    order = self._open.pop(0)
                    # Who came between two scalers may have been ready long ago.
                    if order.is_own and not self._goes_on:
                        self._ordered[each.name] = order.at_s
        self._seen, self._goes_on = names, False
        self._ordered = {name: at for name, at in self._ordered.items() if name in names}
        # None is of later than now: clocks may be set back.
        self._open = [each for each in self._open if now - each.since_s < GIVEN_UP_S]
        for each in self._open:
            each.since_s, each.at_s = min(each.since_s, now), min(each.at_s, now)
        known = [
            replace(each, ordered_at_s=self._ordered.get(each.name, each.ordered_at_s))
            for each in present
        ]
        missing = [
            ReplicaObservation(each.name, Phase.STARTING, ordered_at_s=each.at_s)
            for each in self._open
        ]
        return (*known, *missing)

    def state(self) -> dict[str, Any]:
        """What is open, and who was there, as JSON can hold it."""
        seen = None if self._seen is None else sorted(self._seen)
        rows = [[each.since_s, each.at_s, each.is_own] for each in self._open]
        return {"open": rows, "seen": seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        for since_s, at_s, is_own in state["open"]:
            self._open_one(float(since_s), float(at_s), is_own=bool(is_own))
        seen = state["seen"]
        self._seen = None if seen is None else {str(name) for name in seen}
        self._goes_on = True

    def want(
        self,
        replicas: int,
        present: int,
        now: float,
        *,
        former_s: Callable[[int], float | None] = lambda _place: None,
    ) -> None:
        """So many are wanted now, of which so many are there or on their way out of `observed`.

        `former_s` tells of the first, second, … replica about when it was ordered before we came, 0
        where nobody knows; None of one that is ordered now.
        """
        missing = max(0, replicas - present)
        del self._open[missing:]
        while len(self._open) < missing:
            before_s = former_s(present + len(self._open) + 1)
            at_s = now if before_s is None else before_s
            self._open_one(now, at_s, is_own=before_s is None)

    def _open_one(self, since_s: float, at_s: float, *, is_own: bool) -> None:
        self._number += 1
        self._open.append(_Order(f"ordered-{self._number}", since_s, at_s, is_own))
