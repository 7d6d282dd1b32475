"""Each replica in turn, in the order of their names, whatever they are doing.

    cost = turns until its own

Inputs: who was chosen last.

Source: every proxy.
"""

from __future__ import annotations

from bisect import bisect_right

from headrace.core.candidates import ENOUGH, Ask, Candidate, Scope, candidates_at
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica


class RoundRobin:
    """Prices by turn: 0 for the replica whose turn it is, 1 for the next one, and so on."""

    scope = Scope.ALL
    holds = False

    def __init__(self) -> None:
        self._last = ""

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price the next few replicas by their distance from the one whose turn it is."""
        first = bisect_right(replicas, self._last, key=lambda replica: replica.name)
        count = len(replicas)
        turns = range(min(count, ENOUGH))
        following = [replicas[(first + turn) % count] for turn in turns]
        return candidates_at(ask, following, map(float, turns), now)

    def chosen(self, replica: str) -> None:
        """The next turn is that of the one after it."""
        self._last = replica

    def left(self, replica: str) -> None:
        """Its turn is that of the one after it."""

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The turns before its own."""
        return (CostTerm("turns before it", candidate.cost, "turns"),)


POLICY = RoundRobin
