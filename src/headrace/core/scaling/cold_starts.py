"""How long a replica takes from ordered to ready: measured, else expected.

cold_start_s = p90 of the last 50 measured, shrunk towards what was expected while few
"""

from __future__ import annotations

from collections import deque
from math import ceil

from headrace.core.scaling.observation import ReplicaObservation
from headrace.core.scaling.settings import ColdStart

KEPT = 50
WORST_SHARE = 0.9
LONGEST_S = 86_400.0
"""What takes longer was no start: nobody looks a day ahead for one."""
TRUSTED = 3
"""From so many on, what was measured stands alone."""


class ColdStarts:
    """The cold starts of one pool."""

    __slots__ = ("_known", "_measured_s")

    def __init__(self) -> None:
        self._measured_s: deque[float] = deque(maxlen=KEPT)
        self._known: set[str] = set()

    def observe(self, replicas: tuple[ReplicaObservation, ...]) -> None:
        """Note who has become ready since the last time."""
        here = {replica.name for replica in replicas}
        for replica in replicas:
            if replica.ready_at_s is None or replica.name in self._known:
                continue
            self._known.add(replica.name)
            took_s = replica.ready_at_s - replica.ordered_at_s
            # Ordered at 0: nobody knows when. Not after it was ready: two clocks.
            if replica.ordered_at_s > 0.0 and 0.0 < took_s <= LONGEST_S:
                self._measured_s.append(took_s)
        self._known &= here

    def expected_s(self, prior: ColdStart) -> float:
        """What to reckon with for the next one."""
        count = len(self._measured_s)
        if not count:
            return prior.expected_s
        ordered = sorted(self._measured_s)
        measured_s = ordered[ceil(WORST_SHARE * count) - 1]
        if count >= TRUSTED:
            return measured_s
        share = count / TRUSTED
        return share * measured_s + (1.0 - share) * prior.expected_s

    @property
    def measured(self) -> int:
        """How many it rests on."""
        return len(self._measured_s)

    def state(self) -> list[float]:
        """The measurements, as JSON can hold them."""
        return list(self._measured_s)

    def restore(self, state: list[float]) -> None:
        """Go on from what `state` said."""
        self._measured_s = deque(state, maxlen=KEPT)
