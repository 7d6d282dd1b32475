"""AIBrix's prefix-cache: the best match among those that are not much busier than the others.

    max - min > imbalance            ->  the fewest requests in flight
    else the longest match among those with requests in flight <= mean + sigmas * deviation,
         of equal matches the fewest in flight
    no such match                    ->  the fewest requests in flight

    cost = requests in flight + RULED_OUT for all but the matches that were taken

Mean and standard deviation are those of the requests in flight of all replicas. Equals are drawn
among at random, here by numbers that repeat from run to run.

Inputs: own requests in flight, the prefix index.

Source: pkg/plugins/gateway/algorithms/prefix_cache.go with the values of its readme and its charts.
Where these are not set, its code of August 2026 takes 8 and 1; when imbalanced, it then still takes
a match among the least loaded.

As there: thresholds, order, the draw. Different here: the match is that of this gateway's index.

Parameters:
    imbalance: requests by which the most and the least loaded may differ.
    sigmas: standard deviations above the mean that a match may be.
"""

from __future__ import annotations

from math import sqrt

from headrace.core.baselines import RULED_OUT, Memoryless, cheapest_candidates, draw, load_and_rule
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica
from headrace.core.ties import Ties

SWEEP = {"imbalance": (8, 16, 32), "sigmas": (1.0, 2.0, 4.0)}


class AibrixPrefixCache(Memoryless):
    """Prices by requests in flight; remembers only how often it drew."""

    scope = Scope.ALL
    holds = False

    def __init__(self, imbalance: int = 16, sigmas: float = 2.0) -> None:
        self._imbalance = imbalance
        self._sigmas = sigmas
        self._ties = Ties()

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price all by their load, and rule out all but the matches that are taken."""
        costs = [float(replica.in_flight) for replica in replicas]
        if ask.hits and max(costs) - min(costs) <= self._imbalance:
            taken = self._taken(ask, replicas, costs)
            if taken:
                for position, replica in enumerate(replicas):
                    if not taken >> replica.index & 1:
                        costs[position] += RULED_OUT
        draw(costs, self._ties)
        return cheapest_candidates(ask, replicas, costs, now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The load, and what is added to all but the matches that were taken."""
        return load_and_rule(candidate, "in flight", "requests", "not the match taken")

    def _taken(self, ask: Ask, replicas: list[Replica], loads: list[float]) -> int:
        """Bit mask of the longest match that is not too busy; 0 if all matches are."""
        mean = sum(loads) / len(loads)
        deviation = sqrt(sum((load - mean) ** 2 for load in loads) / len(loads))
        bound = mean + self._sigmas * deviation
        idle_enough = 0
        for replica, load in zip(replicas, loads, strict=True):
            if load <= bound:
                idle_enough |= 1 << replica.index
        for _, holders in ask.hits:
            if holders & idle_enough:
                return holders & idle_enough
        return 0


POLICY = AibrixPrefixCache
