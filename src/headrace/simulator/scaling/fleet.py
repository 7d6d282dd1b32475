"""The replicas of a pool: ordered, started, drained, gone, and what they cost.

    replica_hours  from ordered to gone, within the trace: a cold start is paid, and so is a drain

A smaller number takes replicas that are still starting first, the youngest before the others, as a
Kubernetes ReplicaSet does; ready ones drain: they take nothing new and go when told so.
"""

from __future__ import annotations

from collections import deque
from math import inf


class SimulatedReplica:
    """One replica; `ready_s` is when it will be or became ready."""

    __slots__ = ("name", "ordered_s", "ready_s")

    def __init__(self, name: str, ordered_s: float, ready_s: float) -> None:
        self.name = name
        self.ordered_s = ordered_s
        self.ready_s = ready_s


class SimulatedFleet:
    """Starts with `replicas` that are ready. `number` is what was ordered: starting and ready."""

    __slots__ = (
        "_cold_start_s",
        "_counter",
        "changes",
        "draining",
        "paid_s",
        "peak",
        "ready",
        "starting",
        "version",
    )  # fmt: skip

    def __init__(self, replicas: int, cold_start_s: float) -> None:
        self._cold_start_s = cold_start_s
        self._counter = 0
        self.ready: list[SimulatedReplica] = []
        self.starting: deque[SimulatedReplica] = deque()
        self.draining: list[tuple[float, SimulatedReplica]] = []
        """With when they go; infinite while that is not known."""
        self.paid_s = 0.0
        """Of replicas that are gone."""
        self.peak = replicas
        """The most that were paid at once, draining ones too."""
        self.changes = 0
        """How often the number was changed."""
        self.version = 0
        """Goes up whenever any replica changes."""
        for _ in range(replicas):
            self.ready.append(self._new(0.0, 0.0))

    @property
    def number(self) -> int:
        """Replicas ordered: ready ones and those that start."""
        return len(self.ready) + len(self.starting)

    @property
    def paid(self) -> int:
        """Replicas that cost something now."""
        return self.number + len(self.draining)

    def next_ready_s(self) -> float:
        """When the next one becomes ready."""
        return self.starting[0].ready_s if self.starting else inf

    def become_ready(self, now: float) -> list[SimulatedReplica]:
        """Those whose cold start is over by now."""
        came: list[SimulatedReplica] = []
        while self.starting and self.starting[0].ready_s <= now + 1e-9:
            came.append(self.starting.popleft())
        if came:
            self.ready += came
            self.version += 1
        return came

    def scale_to(
        self, number: int, now: float, first_to_go: tuple[str, ...] = ()
    ) -> list[SimulatedReplica]:
        """Order or remove until there are `number`; returns the ready ones that now drain.

        `first_to_go` names whom a scaler would take; others go from the youngest on.
        """
        if number == self.number:
            return []
        self.changes += 1
        self.version += 1
        while self.number < number:
            self.starting.append(self._new(now, now + self._cold_start_s))
        self.peak = max(self.peak, self.paid)
        while self.number > number and self.starting:
            self.paid_s += now - self.starting.pop().ordered_s
        excess = self.number - number
        if excess <= 0:
            return []
        wish = {name: place for place, name in enumerate(first_to_go)}
        ranked = sorted(
            self.ready, key=lambda each: (wish.get(each.name, len(wish)), -each.ready_s)
        )
        leaving = ranked[:excess]
        names = {each.name for each in leaving}
        self.ready = [each for each in self.ready if each.name not in names]
        self.draining += [(inf, each) for each in leaving]
        return leaving

    def set_gone(self, leaving: list[SimulatedReplica], gone_s: float) -> None:
        """Say when the drain of these is over."""
        names = {each.name for each in leaving}
        self.draining = [
            (gone_s if each.name in names else at_s, each) for at_s, each in self.draining
        ]

    def let_go(self, now: float) -> None:
        """Stop paying for those whose drain is over."""
        if not self.draining:
            return
        left: list[tuple[float, SimulatedReplica]] = []
        for gone_s, each in self.draining:
            if gone_s <= now:
                self.paid_s += gone_s - each.ordered_s
            else:
                left.append((gone_s, each))
        if len(left) != len(self.draining):
            self.draining = left
            self.version += 1

    def replica_hours(self, end_s: float) -> float:
        """Paid until `end_s`, those that are still there too."""
        there = [*self.ready, *self.starting, *(each for _, each in self.draining)]
        return (self.paid_s + sum(end_s - each.ordered_s for each in there)) / 3600.0

    def _new(self, ordered_s: float, ready_s: float) -> SimulatedReplica:
        self._counter += 1
        return SimulatedReplica(f"replica-{self._counter:05d}", ordered_s, ready_s)
