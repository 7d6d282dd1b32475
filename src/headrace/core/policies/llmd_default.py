"""llm-d's default profile: the highest weighted sum of queue, KV and prefix scores.

    cost = -(queue_weight * queue + kv_weight * kv + prefix_weight * prefix)
    queue  = (max - q) / (max - min) of the waiting requests; all equal: 1
    kv     = 1 - KV cache usage
    prefix = cached blocks / blocks of the prompt

Who has not been scraped yet scores 0 for queue and KV. Equal sums are drawn among at random, here
by numbers that repeat from run to run.

Inputs: the last scrape's waiting requests and KV usage, the prefix index.

Source: llm-d-router, config/charts/routerlib/templates/_config.yaml (weights 2, 2, 3) and
pkg/epp/framework/plugins/scheduling/scorer.

As there: scores, weights, the draw, blocks of 64 tokens (its approximate index takes no smaller
ones). Different here: the prefix comes from this gateway's index, which frees a block when it
believes that the engine does, and not from a list of the 31,250 blocks last seen per replica; and
metrics are as old as this gateway's scrape (up to 1 s; 1 to 2 s in a simulation, by default), where
llm-d reads them every 50 ms, with which the rule does far better:
docs/reference/routing-results.md.

Parameters:
    queue_weight: weight of the queue score.
    kv_weight: weight of the KV score.
    prefix_weight: weight of the prefix score.
    block_tokens: tokens per block of the prefix score.
"""

from __future__ import annotations

from headrace.core.baselines import (
    Memoryless,
    cheapest_candidates,
    draw,
    hit_tokens_of,
    matched_share,
)
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.llmd_scores import kv_scores, queue_scores
from headrace.core.model import Replica
from headrace.core.ties import Ties

SWEEP = {"queue_weight": (1.0, 2.0), "kv_weight": (0.0, 2.0), "prefix_weight": (1.0, 3.0, 6.0)}


class LlmdDefault(Memoryless):
    """Prices by the weighted scores, negated; remembers only how often it drew."""

    scope = Scope.ALL
    holds = False

    def __init__(
        self,
        queue_weight: float = 2.0,
        kv_weight: float = 2.0,
        prefix_weight: float = 3.0,
        block_tokens: int = 64,
    ) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}; give 1 or more")
        self._queue_weight = queue_weight
        self._kv_weight = kv_weight
        self._prefix_weight = prefix_weight
        self._block_tokens = block_tokens
        self._ties = Ties()

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Score every replica."""
        prefix = self._prefix_of(ask, replicas)
        costs = [
            -(self._queue_weight * queue + self._kv_weight * kv + self._prefix_weight * share)
            for queue, kv, share in zip(
                queue_scores(replicas), kv_scores(replicas), prefix, strict=True
            )
        ]
        draw(costs, self._ties)
        return cheapest_candidates(ask, replicas, costs, now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The prefix's part; what else there is comes from the scrape of that moment."""
        prompt_tokens = candidate.hit_tokens + candidate.uncached_tokens
        share = matched_share(candidate.hit_tokens, prompt_tokens, self._block_tokens)
        prefix = -self._prefix_weight * share
        return (
            CostTerm("queue and KV cache", candidate.cost - prefix, "score"),
            CostTerm("prefix", prefix, "score"),
        )

    def _prefix_of(self, ask: Ask, replicas: list[Replica]) -> list[float]:
        block_tokens, prompt_tokens = self._block_tokens, ask.prompt_tokens
        shares: dict[int, float] = {}
        found: list[float] = []
        for hit_tokens in hit_tokens_of(ask, replicas):
            share = shares.get(hit_tokens)
            if share is None:
                share = shares[hit_tokens] = matched_share(hit_tokens, prompt_tokens, block_tokens)
            found.append(share)
        return found


POLICY = LlmdDefault
