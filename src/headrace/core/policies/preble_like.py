"""After Preble's E2: stay with the cache if it saves more than half, else the least cost for all.

    exploit  <=>  cached tokens > exploit_ratio * missed tokens, at the longest match
    cost = load + prefill + eviction
           + RULED_OUT for all but the longest matches when exploiting
    load     = queue + slot wait + expected output tokens * step time there
    eviction = eviction_weight * share of prompt tokens found cached so far
               * prefill seconds per token * uncached tokens

In the long run a cache is full, so that each uncached token takes the place of a cached one; what
that one was worth is how often such tokens are found. While a pool has no latency profile, all is
in tokens: those waiting for prefill there, the uncached ones, and the eviction.

Inputs: own requests in flight, the prefix index, the latency profile.

Source: Srivatsa et al., "Preble: Efficient Distributed Prompt Scheduling for LLM Serving" (2024),
from memory: hence -like.

As there: exploit or explore, and the three parts of the cost. Different here: the load is what is
in flight, not the work of a window of three minutes; the eviction uses one share for all blocks;
replicas are not rebalanced afterwards and hot prefixes not copied.

Parameters:
    exploit_ratio: cached tokens per missed token from which on the cache decides.
    eviction_weight: weight of the eviction.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.core.baselines import RULED_OUT, ruled_out
from headrace.core.candidates import Ask, Candidate, Prediction, Scope, candidate_at, predict, see
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica

SWEEP = {"exploit_ratio": (1.0, 4.0, 1000.0), "eviction_weight": (0.0, 1.0, 4.0)}
MOST_REMEMBERED_TOKENS = 20_000_000
"""Prompt tokens behind the share that was found cached; then both halves are forgotten."""


class PrebleLike:
    """Prices in seconds; remembers how much of past prompts was found cached."""

    scope = Scope.ALL
    holds = False

    def __init__(self, exploit_ratio: float = 1.0, eviction_weight: float = 1.0) -> None:
        self._exploit_ratio = exploit_ratio
        self._eviction_weight = eviction_weight
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._candidates: list[Candidate] = []

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price every replica, and rule out all but the best holders when exploiting."""
        share = self._eviction_weight * self._cached_tokens / max(1, self._prompt_tokens)
        predictions = predict(ask, replicas, now)
        if predictions is None:
            candidates = _priced_in_tokens(ask, replicas, share)
        else:
            candidates = _priced_in_seconds(replicas, predictions, share)
        holders = self._holders(ask)
        if holders:
            candidates = [
                candidate
                if holders >> replica.index & 1
                else replace(candidate, cost=candidate.cost + RULED_OUT)
                for candidate, replica in zip(candidates, replicas, strict=True)
            ]
        self._candidates = candidates
        return candidates

    def chosen(self, replica: str) -> None:
        """Count what was found cached there."""
        for candidate in self._candidates:
            if candidate.replica == replica:
                self._cached_tokens += candidate.hit_tokens
                self._prompt_tokens += candidate.hit_tokens + candidate.uncached_tokens
                break
        if self._prompt_tokens > MOST_REMEMBERED_TOKENS:
            self._prompt_tokens //= 2
            self._cached_tokens //= 2

    def left(self, replica: str) -> None:
        """Nothing to forget."""

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """Load, prefill and eviction, and what is added to all but the best holders."""
        excluded, own = ruled_out(candidate), candidate.uncached_tokens
        rest = candidate.cost - excluded
        if candidate.in_seconds:
            parts: dict[str, float] = {
                "queue": candidate.queue_s,
                "slot wait": candidate.slot_wait_s,
                "prefill": candidate.prefill_s,
                "decoding": candidate.output_tokens * candidate.tpot_s,
            }
            unit = "s"
        else:
            parts = {"queue": candidate.backlog_tokens, "uncached": own}
            unit = "tokens"
        parts["eviction"] = round(rest - sum(parts.values()), 6)
        parts["not the longest match"] = excluded
        return tuple(CostTerm(name, value, unit) for name, value in parts.items())

    def _holders(self, ask: Ask) -> int:
        """Bit mask of the longest matches if these decide, else 0."""
        if not ask.hits:
            return 0
        _, holders = ask.hits[0]
        cached = ask.hit_tokens(holders.bit_length() - 1)
        missed = ask.prompt_tokens - cached
        return holders if cached > self._exploit_ratio * missed else 0


POLICY = PrebleLike


def _priced_in_seconds(
    replicas: list[Replica], predictions: list[Prediction], share: float
) -> list[Candidate]:
    candidates: list[Candidate] = []
    for replica, seen in zip(replicas, predictions, strict=True):
        _, uncached, _, _, _, queue_s, slot_wait_s, prefill_s, tpot_s, output_tokens = seen
        profile = replica.pool.latency.profile
        token_s = profile.per_prefill_token_s if profile else 0.0
        cost_s = queue_s + slot_wait_s + prefill_s + output_tokens * tpot_s
        cost_s += share * token_s * uncached
        candidates.append(candidate_at(cost_s, replica, seen))
    return candidates


def _priced_in_tokens(ask: Ask, replicas: list[Replica], share: float) -> list[Candidate]:
    candidates: list[Candidate] = []
    for replica, seen in zip(replicas, see(ask, replicas), strict=True):
        cost = replica.backlog_tokens + (1.0 + share) * seen[1]
        candidates.append(candidate_at(cost, replica, seen))
    return candidates
