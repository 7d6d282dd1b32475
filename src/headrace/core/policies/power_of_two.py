"""Of two replicas taken at random, the one with fewer requests in flight.

The second choice keeps the longest queue near log log N (Mitzenmacher, "The Power of Two Choices
in Randomized Load Balancing", 2001), and several gateways that each see only their own requests do
not all run to the same replica.

Inputs: own requests in flight.

Source: the paper; the default of Ray Serve.

As there: two different replicas at random, the same chance for each pair.
"""

from __future__ import annotations

from headrace.core.baselines import Memoryless
from headrace.core.candidates import Ask, Candidate, Scope, candidates_at
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica


class PowerOfTwo(Memoryless):
    """Prices the two that it is shown by their requests in flight; stateless."""

    scope = Scope.PAIR
    holds = False

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price both by their requests in flight."""
        return candidates_at(ask, replicas, [float(replica.in_flight) for replica in replicas], now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The requests in flight."""
        return (CostTerm("in flight", candidate.cost, "requests"),)


POLICY = PowerOfTwo
