"""The replica with the fewest requests in flight, whatever their size.

    cost = requests in flight

Inputs: own requests in flight.

Source: the default of most proxies (`least_conn`, LEAST_REQUEST); AIBrix's least-request.

As there: the rule. Different here: equals are taken in turns, where most draw.
"""

from __future__ import annotations

from headrace.core.baselines import Memoryless
from headrace.core.candidates import Ask, Candidate, Scope, candidates_at, fewest_in_flight
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica


class LeastRequests(Memoryless):
    """Prices by the requests in flight; stateless."""

    scope = Scope.ALL
    holds = False

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price those with the fewest requests in flight, by these."""
        fewest = fewest_in_flight(replicas)
        return candidates_at(ask, fewest, [float(replica.in_flight) for replica in fewest], now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The requests in flight."""
        return (CostTerm("in flight", candidate.cost, "requests"),)


POLICY = LeastRequests
