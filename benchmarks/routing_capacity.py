"""What a fleet can carry: the highest speed at which no routing loss would still be good enough.

    capacity = the highest speed at which `pooled_reference` keeps a goodput share of 0.95

Found by doubling and halving, then by bisection to about 2 %, with the first seed. Where prompts
are so long that even an idle fleet misses more than 5 % of the targets, the share is 0.95 of the
idle fleet's.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

from benchmarks.routing_runs import Conditions, Play, Runner
from headrace.simulator.runs import POOLED_REFERENCE

SHARE = 0.95
IDLE_SPEED = 1 / 64
"""Of the speed to begin with: nobody waits for anybody."""
MOST_SPEED = 4096
"""Times the speed to begin with: so few requests that any fleet carries them at once."""
STEPS = 5
"""Halvings of a factor of two: 2^(1/32) is 2.2 %."""

Fleet = tuple[str, int]
"""A workload and a number of replicas."""


class _Search:
    """The bracket around one fleet's capacity."""

    def __init__(self, fleet: Fleet) -> None:
        self.workload, self.replicas = fleet
        self.wanted = SHARE
        self.low = self.high = 0.0
        self.steps = STEPS
        # Published traces come at the rate of one fleet; generated ones at 1/s a replica.
        self.speed = self._idle = IDLE_SPEED * (self.replicas / 8)

    @property
    def is_over(self) -> bool:
        """Whether the bracket is narrow enough."""
        return self.steps == 0

    def take(self, share: float) -> None:
        """Narrow the bracket by the share that `speed` gave, and choose the next speed."""
        if self.speed == self._idle:
            self.wanted = SHARE if share >= SHARE else SHARE * share
            self.low, self.speed = self.speed, 64 * self.speed
            return
        if self.high and self.low > self._idle:
            self.steps -= 1
        if share >= self.wanted:
            self.low = self.speed
        else:
            self.high = self.speed
        self.speed = self._next()

    def _next(self) -> float:
        if not self.high:
            if 2 * self.low > MOST_SPEED * self._idle / IDLE_SPEED:
                self.steps = 0
            return 2 * self.low
        if self.low > self._idle:
            return sqrt(self.low * self.high)
        if self.high <= 2 * self._idle:
            self.steps = 0
        return self.high / 2


def capacities(runner: Runner, fleets: Iterable[Fleet], scale: float) -> dict[Fleet, float]:
    """The capacity of each fleet as a speed; all searches advance side by side."""
    searches = {fleet: _Search(fleet) for fleet in dict.fromkeys(fleets)}
    while open_ones := [search for search in searches.values() if not search.is_over]:
        plays = {
            search: Play(
                Conditions(search.workload, search.replicas, round(search.speed, 4)),
                POOLED_REFERENCE,
                0,
                scale,
            )
            for search in open_ones
        }
        outcomes = runner.run(plays.values())
        for search, play in plays.items():
            search.take(1 - outcomes[play].misses)
    return {fleet: round(search.low, 4) for fleet, search in searches.items()}
