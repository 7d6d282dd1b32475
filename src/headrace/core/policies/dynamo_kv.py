"""Dynamo's KV router: the fewest blocks to prefill and to hold.

    cost   = prefill_scale * max(active prefill + prompt - credit, 0) + active decode + new
    credit = overlap_weight * cached blocks of the prompt

All in blocks of block_tokens tokens. Active prefill are the uncached prompt tokens of requests that
still wait for their first token; active decode is what the requests in flight hold in the KV cache,
each block once; new is what of the prompt none of them holds.

With a temperature above 0 the pick is drawn by the softmax of -cost / (temperature * (highest -
lowest cost)), here by numbers that repeat from run to run.

Inputs: own requests in flight and the tokens relayed for them, the prefix index.

Source: lib/kv-router/src/scheduling/selector.rs. By its documentation versions up to 1.2.1 take an
overlap weight of at most 1; since 1.3 it may be more, and the blocks to prefill may be negative
then: `below_zero=1`. At a weight of 1 that is the same.

As there: the formula, its defaults, tokens that leave the active prefill at the first token.
Different here: decoded tokens count too (there only with `track_output_blocks`); one tier of cache,
the GPU's; the credit does not decay and a request in flight costs nothing by itself
(`decode_active_request_weight`), as are the defaults.

Parameters:
    overlap_weight: blocks of prefill that a cached block is worth.
    prefill_scale: weight of blocks to prefill against blocks to hold.
    temperature: 0 takes the lowest cost; more spreads.
    block_tokens: tokens per block.
    below_zero: 1 lets the credit exceed the blocks to prefill; 0 stops at none.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import exp, inf

from headrace.core.baselines import RULED_OUT, Memoryless, cheapest_candidates, hit_tokens_of
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica
from headrace.core.ties import Ties

SWEEP = {
    "overlap_weight": (2.0, 4.0, 8.0),
    "prefill_scale": (4.0, 16.0),
    "below_zero": (0, 1),
}


class DynamoKv(Memoryless):
    """Prices in blocks; remembers only how often it drew."""

    scope = Scope.ALL
    holds = False

    def __init__(
        self,
        overlap_weight: float = 1.0,
        prefill_scale: float = 1.0,
        temperature: float = 0.0,
        block_tokens: int = 16,
        below_zero: int = 0,
    ) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}; give 1 or more")
        self._overlap_weight = overlap_weight
        self._prefill_scale = prefill_scale
        self._temperature = temperature
        self._block_tokens = block_tokens
        self._least_blocks = -inf if below_zero else 0.0
        self._ties = Ties()

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price every replica in blocks."""
        prompt_tokens = ask.prompt_tokens
        costs = [
            self._to_prefill(replica.backlog_tokens, hit_tokens, prompt_tokens) + held
            for replica, hit_tokens, held in zip(
                replicas,
                hit_tokens_of(ask, replicas),
                held_blocks(ask, replicas, self._block_tokens),
                strict=True,
            )
        ]
        if self._temperature:
            costs[_sampled(costs, self._temperature, self._ties.ratio())] -= RULED_OUT
        return cheapest_candidates(ask, replicas, costs, now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """Blocks to prefill and to hold, and what puts the drawn one first."""
        drawn = -RULED_OUT if candidate.cost < -RULED_OUT / 2 else 0.0
        prompt_tokens = candidate.hit_tokens + candidate.uncached_tokens
        prefill = self._to_prefill(candidate.backlog_tokens, candidate.hit_tokens, prompt_tokens)
        return (
            CostTerm("to prefill", prefill, "blocks"),
            CostTerm("to hold", candidate.cost - drawn - prefill, "blocks"),
            CostTerm("drawn", drawn, "blocks"),
        )

    def _to_prefill(self, backlog_tokens: int, hit_tokens: int, prompt_tokens: int) -> float:
        """Blocks to prefill, as they are weighed."""
        credit = self._overlap_weight * (hit_tokens // self._block_tokens)
        blocks = (backlog_tokens + prompt_tokens) / self._block_tokens
        return self._prefill_scale * max(blocks - credit, self._least_blocks)


POLICY = DynamoKv


def held_blocks(ask: Ask, replicas: list[Replica], block_tokens: int) -> list[float]:
    """Blocks that each replica holds for requests in flight, this one included, each once."""
    prompt_blocks = -(-ask.prompt_tokens // block_tokens)
    return [
        max(0.0, replica.context_tokens - ask.shared_tokens(replica.index)) / block_tokens
        + prompt_blocks
        - ask.tokens_in_use(replica.index) // block_tokens
        for replica in replicas
    ]


def _sampled(costs: list[float], temperature: float, ratio: float) -> int:
    """The position that the softmax draws at `ratio`."""
    lowest, spread = min(costs), max(costs) - min(costs)
    scale = 1.0 / (spread * temperature) if spread else 0.0
    bounds = list(accumulate(exp((lowest - cost) * scale) for cost in costs))
    return min(bisect_right(bounds, ratio * bounds[-1]), len(costs) - 1)
