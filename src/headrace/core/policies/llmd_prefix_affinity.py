"""llm-d's prefix-cache-affinity filter: sticky until the sticky replicas are too far behind.

    sticky = those with prefix >= affinity_threshold
    all are kept if none is sticky, or if
        best TTFT of the sticky - best TTFT of the others > max_ttft_penalty_s
    TTFT   = uncached tokens in flight / peak prefill tokens per second
    cost   = -(token_weight * token + queue_weight * queue + kv_weight * kv)
             + RULED_OUT for those that are not kept

`prefix`, `token`, `queue` and `kv` are llm-d's scorers. The token load scorer alone follows the
filter by default, as in llm-d's guides; its README asks for no weighted prefix scorer behind it.
Equal scores are drawn among at random, here by numbers that repeat from run to run.

The peak is that of the pool's latency profile, measured as llm-d's calibration does: one chunk of
8,192 tokens on an idle replica. Without a profile it is llm-d's default of 15,928 tokens per
second (Qwen3-32B on two H100), and a value that is given overrules both.

Inputs: own uncached tokens in flight until their first token, the prefix index, the profile; with
weights for them, the last scrape's queue and KV usage.

Source: llm-d-router, pkg/epp/framework/plugins/scheduling/filter/prefixcacheaffinity and
scorer/tokenload; guides/optimized-baseline.

As there: thresholds, the gate, tokens that are released at the first token. Different here: the
prefix comes from this gateway's index; no exploration, which is off there too.

Parameters:
    affinity_threshold: share of the prompt that makes a replica sticky.
    max_ttft_penalty_s: seconds that the sticky may be behind (llm-d takes 5 with its predictor);
        0 always sticks.
    peak_tokens_per_s: peak prefill; 0 takes the profile's.
    token_weight: weight of the token load score.
    queue_weight: weight of the queue score.
    kv_weight: weight of the KV score.
    block_tokens: tokens per block of the prefix score.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.baselines import (
    RULED_OUT,
    Memoryless,
    cheapest_candidates,
    draw,
    hit_tokens_of,
    matched_share,
    ruled_out,
)
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.llmd_scores import kv_scores, queue_scores, token_load_score
from headrace.core.model import Replica
from headrace.core.ties import Ties

SWEEP = {"affinity_threshold": (0.3, 0.5, 0.8), "max_ttft_penalty_s": (0.3, 1.0, 5.0, 18.0)}
DEFAULT_PEAK_TOKENS_PER_S = 15_928.0
CALIBRATION_TOKENS = 8192


class LlmdPrefixAffinity(Memoryless):
    """Prices by scores, negated, with all but the kept ruled out."""

    scope = Scope.ALL
    holds = False

    def __init__(
        self,
        *,
        affinity_threshold: float = 0.8,
        max_ttft_penalty_s: float = 18.0,
        peak_tokens_per_s: float = 0.0,
        token_weight: float = 1.0,
        queue_weight: float = 0.0,
        kv_weight: float = 0.0,
        block_tokens: int = 64,
    ) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}; give 1 or more")
        self._affinity_threshold = affinity_threshold
        self._max_ttft_penalty_s = max_ttft_penalty_s
        self._peak_tokens_per_s = peak_tokens_per_s
        self._token_weight = token_weight
        self._queue_weight = queue_weight
        self._kv_weight = kv_weight
        self._block_tokens = block_tokens
        self._ties = Ties()

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Score every replica and rule out those that the filter drops."""
        hits = hit_tokens_of(ask, replicas)
        prompt_tokens, token_weight = ask.prompt_tokens, self._token_weight
        costs = [
            -token_weight * token_load_score(replica.backlog_tokens + prompt_tokens - hit_tokens)
            for replica, hit_tokens in zip(replicas, hits, strict=True)
        ]
        self._add(costs, self._queue_weight, queue_scores, replicas)
        self._add(costs, self._kv_weight, kv_scores, replicas)
        for position in self._dropped(ask, replicas, hits):
            costs[position] += RULED_OUT
        draw(costs, self._ties)
        return cheapest_candidates(ask, replicas, costs, now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The token load, what the scrape of that moment added, and the filter."""
        tokens = candidate.backlog_tokens + candidate.uncached_tokens
        load = -self._token_weight * token_load_score(tokens)
        excluded = ruled_out(candidate)
        # Without weights there is no rest, but for the last digits of what is ruled out.
        rest = candidate.cost - excluded - load if self._queue_weight or self._kv_weight else 0.0
        return (
            CostTerm("token load", load, "score"),
            CostTerm("queue and KV cache", rest, "score"),
            CostTerm("too little of the prefix", excluded, "score"),
        )

    def _add(
        self,
        costs: list[float],
        weight: float,
        scores_of: Callable[[list[Replica]], list[float]],
        replicas: list[Replica],
    ) -> None:
        if weight:
            for position, score in enumerate(scores_of(replicas)):
                costs[position] -= weight * score

    def _dropped(self, ask: Ask, replicas: list[Replica], hits: list[int]) -> list[int]:
        """The positions that are not sticky; none if all are kept."""
        prompt_tokens, threshold = ask.prompt_tokens, self._affinity_threshold
        others = [
            position
            for position, hit_tokens in enumerate(hits)
            if matched_share(hit_tokens, prompt_tokens, self._block_tokens) < threshold
        ]
        if not others or len(others) == len(replicas):
            return []
        if not self._max_ttft_penalty_s:
            return others
        dropped = set(others)
        behind = min(r.backlog_tokens for i, r in enumerate(replicas) if i not in dropped)
        behind -= min(replicas[position].backlog_tokens for position in others)
        if behind / self._peak(replicas[0]) > self._max_ttft_penalty_s:
            return []
        return others

    def _peak(self, replica: Replica) -> float:
        """Tokens per second that an idle replica prefills."""
        if self._peak_tokens_per_s:
            return self._peak_tokens_per_s
        profile = replica.pool.latency.profile
        if profile is None:
            return DEFAULT_PEAK_TOKENS_PER_S
        return CALIBRATION_TOKENS / profile.prefill_s(CALIBRATION_TOKENS)


POLICY = LlmdPrefixAffinity
