"""SGLang's and SMG's cache_aware: the best match while the load is balanced, else the least loaded.

    imbalanced  <=>  max - min > balance_abs  and  max > balance_rel * min
    cost = requests in flight
           + RULED_OUT unless it holds the longest match,
             where loads are balanced and the match is more than cache_threshold of the prompt

The load is requests in flight through this router, as there. Without a long enough match, and when
imbalanced, the fewest requests in flight win.

Inputs: own requests in flight, the prefix index.

Source: sgl-model-gateway/src/policies/cache_aware.rs and the defaults of its command line. The
library's own defaults are another rule: `cache_threshold=0.5,balance_abs=32,balance_rel=1.1`. Older
versions send what matches nothing to the replica with the smallest tree of prefixes.

As there: thresholds, order of the tests, the load. Different here: the match is counted in tokens
of this gateway's index, which knows how large the caches are, and not in characters of a tree that
grows until 67 million; of equal matches the least loaded is taken, where there it is an arbitrary
one; SMG's newer triggers on KV usage are off, as they are by default.

Parameters:
    cache_threshold: share of the prompt that the best match must exceed.
    balance_abs: requests by which the most and the least loaded may differ.
    balance_rel: factor by which they may differ.
"""

from __future__ import annotations

from headrace.core.baselines import RULED_OUT, Memoryless, cheapest_candidates, load_and_rule
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica

SWEEP = {"cache_threshold": (0.1, 0.3, 0.5), "balance_abs": (8, 16, 32, 64)}


class SglangCacheAware(Memoryless):
    """Prices by requests in flight; stateless."""

    scope = Scope.ALL
    holds = False

    def __init__(
        self, cache_threshold: float = 0.3, balance_abs: int = 64, balance_rel: float = 1.5
    ) -> None:
        self._cache_threshold = cache_threshold
        self._balance_abs = balance_abs
        self._balance_rel = balance_rel

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price all by their load, and rule out all but the best holders if their match counts."""
        loads = [replica.in_flight for replica in replicas]
        costs = [float(load) for load in loads]
        holders = self._holders(ask)
        if holders and not self._is_imbalanced(max(loads), min(loads)):
            for position, replica in enumerate(replicas):
                if not holders >> replica.index & 1:
                    costs[position] += RULED_OUT
        return cheapest_candidates(ask, replicas, costs, now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The load, and what is added to all but the best match."""
        return load_and_rule(candidate, "in flight", "requests", "not the longest match")

    def _holders(self, ask: Ask) -> int:
        """Bit mask of those that hold the longest match; 0 if it is too short to count."""
        if not ask.hits:
            return 0
        _, holders = ask.hits[0]
        matched = ask.hit_tokens(holders.bit_length() - 1)
        return holders if matched > self._cache_threshold * ask.prompt_tokens else 0

    def _is_imbalanced(self, most: int, least: int) -> bool:
        return most - least > self._balance_abs and most > self._balance_rel * least


POLICY = SglangCacheAware
