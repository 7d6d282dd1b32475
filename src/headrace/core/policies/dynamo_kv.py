"""Dynamo's KV router: the fewest blocks to prefill and to hold.

    cost   = prefill_scale * max(active prefill + prompt - credit, 0) + active decode + new
    credit = overlap_weight * cached blocks of the prompt

All in blocks of block_tokens tokens. Active prefill are the uncached prompt tokens of requests that
still wait for their first token; active decode is what all requests in flight hold in the KV cache;
new is the prompt, which comes on top of that.

With a temperature above 0 the pick is drawn by the softmax of -cost / (temperature * (highest -
lowest cost)), here by numbers that repeat from run to run.

Inputs: own requests in flight and the tokens relayed for them, the prefix index.

Source: lib/kv-router/src/scheduling/selector.rs.

As there: the formula, its defaults, tokens that leave the active prefill at the first token.
Different here: blocks that several requests hold together count once for each of them (there they
count once), new blocks are the whole prompt (there less what requests in flight share), and decoded
tokens count (there only with `track_output_blocks`). One tier of cache, the GPU's; the credit does
not decay, as is the default.

Parameters:
    overlap_weight: blocks of prefill that a cached block is worth.
    prefill_scale: weight of blocks to prefill against blocks to hold.
    temperature: 0 takes the lowest cost; more spreads.
    block_tokens: tokens per block.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import exp

from headrace.core.baselines import DRAWN, cheapest_rows, hit_tokens_of
from headrace.core.candidates import Ask, Candidate, CostTerm, Row, Scope
from headrace.core.model import Replica
from headrace.core.ties import Ties

SWEEP = {"overlap_weight": (1.0, 2.0, 4.0, 8.0), "prefill_scale": (0.5, 1.0, 2.0)}


class DynamoKv:
    """Prices in blocks; remembers only how often it drew."""

    scope = Scope.ALL

    def __init__(
        self,
        overlap_weight: float = 1.0,
        prefill_scale: float = 1.0,
        temperature: float = 0.0,
        block_tokens: int = 16,
    ) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}; give 1 or more")
        self._overlap_weight = overlap_weight
        self._prefill_scale = prefill_scale
        self._temperature = temperature
        self._block_tokens = block_tokens
        self._ties = Ties()

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Row]:
        """Price every replica in blocks."""
        prompt_tokens = ask.prompt_tokens
        costs = [
            sum(self._parts(replica.backlog_tokens, replica.context_tokens, hit, prompt_tokens))
            for replica, hit in zip(replicas, hit_tokens_of(ask, replicas), strict=True)
        ]
        if self._temperature:
            _sample(costs, self._temperature, self._ties.ratio())
        return cheapest_rows(ask, replicas, costs, now)

    def chosen(self, replica: str) -> None:
        """Nothing to remember."""

    def left(self, replica: str) -> None:
        """Nothing to forget."""

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The blocks, and what made a drawn one first."""
        seen = (candidate.backlog_tokens, candidate.context_tokens, candidate.hit_tokens)
        prompt_tokens = candidate.hit_tokens + candidate.uncached_tokens
        prefill, active, new = self._parts(*seen, prompt_tokens)
        return (
            CostTerm("to prefill", prefill, "blocks"),
            CostTerm("in use", active, "blocks"),
            CostTerm("new", new, "blocks"),
            CostTerm("drawn", candidate.cost - (prefill + active + new), "blocks"),
        )

    def _parts(
        self, backlog_tokens: int, context_tokens: int, hit_tokens: int, prompt_tokens: int
    ) -> tuple[float, float, float]:
        """Blocks to prefill as they are weighed, in use, and new."""
        block_tokens = self._block_tokens
        credit = self._overlap_weight * (hit_tokens // block_tokens)
        prefill = max((backlog_tokens + prompt_tokens) / block_tokens - credit, 0.0)
        new = -(-prompt_tokens // block_tokens)
        return self._prefill_scale * prefill, context_tokens / block_tokens, float(new)


POLICY = DynamoKv


def _sample(costs: list[float], temperature: float, ratio: float) -> None:
    """Make the one that the softmax draws at `ratio` the lowest."""
    lowest, spread = min(costs), max(costs) - min(costs)
    scale = 1.0 / (spread * temperature) if spread else 0.0
    weights = [exp((lowest - cost) * scale) for cost in costs]
    bounds = list(accumulate(weights))
    drawn = min(bisect_right(bounds, ratio * bounds[-1]), len(costs) - 1)
    costs[drawn] = lowest - max(DRAWN, lowest * DRAWN)  # seen beside a large cost, too
