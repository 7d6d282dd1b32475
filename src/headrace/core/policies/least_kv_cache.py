"""AIBrix's least-kv-cache: the replica whose KV cache is used least.

    cost = KV cache usage of the last scrape, from 0 to 1
           + RULED_OUT for who has not reported any

Equals are drawn among at random, here by numbers that repeat from run to run; so is the pick when
nobody reports.

Inputs: the last scrape's KV usage.

Source: pkg/plugins/gateway/algorithms/least_kv_cache.go.

As there: the usage of the GPU's cache. Different here: no part for a CPU cache, which today's
engines do not report either.
"""

from __future__ import annotations

from headrace.core.baselines import RULED_OUT, Memoryless, cheapest_candidates, draw, load_and_rule
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica
from headrace.core.ties import Ties


class LeastKvCache(Memoryless):
    """Prices by the usage that was scraped last; remembers only how often it drew."""

    scope = Scope.ALL
    holds = False

    def __init__(self) -> None:
        self._ties = Ties()

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price every replica by its usage."""
        usages = [replica.report.kv_usage_ratio for replica in replicas]
        unknown = RULED_OUT if any(usage is not None for usage in usages) else 0.0
        costs = [unknown if usage is None else usage for usage in usages]
        draw(costs, self._ties)
        return cheapest_candidates(ask, replicas, costs, now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The usage, and what is added where it is not known."""
        return load_and_rule(candidate, "KV cache usage", "ratio", "nothing reported")


POLICY = LeastKvCache
