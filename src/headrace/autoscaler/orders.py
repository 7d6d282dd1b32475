"""What was ordered of a platform that does not tell: replicas that KEDA is making and that no
gateway sees yet.

A gateway sees a replica when it is ready. What comes before is known here only: when the number
that we published went up. So each replica that is missing stands in the observation as one that
starts, and the next new one that is seen takes its place, and with it the time of its order: that
is how cold starts are measured. Of what a scaler before this one had ordered nobody knows when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from headrace.core.scaling.observation import Phase, ReplicaObservation

GIVEN_UP_S = 1800.0
"""An order that brought nothing for so long is not shown any more, so that it is made anew."""


class Orders:
    """The open orders of one pool."""

    __slots__ = ("_number", "_open", "_ordered", "_seen")

    def __init__(self) -> None:
        # Name, since when it is open, when it was ordered; the oldest first.
        self._open: list[tuple[str, float, float]] = []
        self._ordered: dict[str, float] = {}
        self._seen: set[str] | None = None
        self._number = 0

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
                    self._ordered[each.name] = self._open.pop(0)[2]
        self._seen = names
        self._ordered = {name: at for name, at in self._ordered.items() if name in names}
        # None is of later than now: clocks may be set back.
        self._open = [
            (name, min(since_s, now), min(at_s, now))
            for name, since_s, at_s in self._open
            if now - since_s < GIVEN_UP_S
        ]
        known = [
            replace(each, ordered_at_s=self._ordered.get(each.name, each.ordered_at_s))
            for each in present
        ]
        missing = [
            ReplicaObservation(name, Phase.STARTING, ordered_at_s=at_s)
            for name, _, at_s in self._open
        ]
        return (*known, *missing)

    def want(
        self, replicas: int, present: int, now: float, *, ordered_s: float | None = None
    ) -> None:
        """So many are wanted now, of which so many are there or on their way out of `observed`.

        `ordered_s` is when the others were ordered, now by default; 0 where nobody knows.
        """
        missing = max(0, replicas - present)
        del self._open[missing:]
        while len(self._open) < missing:
            self._number += 1
            at_s = now if ordered_s is None else ordered_s
            self._open.append((f"ordered-{self._number}", now, at_s))
