"""Dynamo's lmetric option: blocks to prefill times blocks to hold.

    cost   = max(active prefill + prompt - credit, 0) * (active decode + new + 1)
    credit = overlap_weight * cached blocks of the prompt

The parts are those of `dynamo_kv`; a product needs no weight between them.

Inputs: own requests in flight and the tokens relayed for them, the prefix index.

Source: Dynamo's router documentation; the idea is that of "LMetric", to multiply the tokens to
prefill with the batch.

As there: the product. Different here: what is different in `dynamo_kv`.

Parameters:
    overlap_weight: blocks of prefill that a cached block is worth.
    block_tokens: tokens per block.
"""

from __future__ import annotations

from headrace.core.baselines import Memoryless, cheapest_candidates, hit_tokens_of
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica
from headrace.core.policies.dynamo_kv import held_blocks

SWEEP = {"overlap_weight": (1.0, 2.0, 4.0)}


class DynamoLmetric(Memoryless):
    """Prices by the product; stateless."""

    scope = Scope.ALL
    holds = False

    def __init__(self, overlap_weight: float = 1.0, block_tokens: int = 16) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}; give 1 or more")
        self._overlap_weight = overlap_weight
        self._block_tokens = block_tokens

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price every replica."""
        prompt_tokens, block_tokens = ask.prompt_tokens, self._block_tokens
        weight = self._overlap_weight
        costs = [
            max(
                (replica.backlog_tokens + prompt_tokens) / block_tokens
                - weight * (hit_tokens // block_tokens),
                0.0,
            )
            * (held + 1.0)
            for replica, hit_tokens, held in zip(
                replicas,
                hit_tokens_of(ask, replicas),
                held_blocks(ask, replicas, block_tokens),
                strict=True,
            )
        ]
        return cheapest_candidates(ask, replicas, costs, now)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The product; its factors have no sum."""
        return (CostTerm("prefill × in use", candidate.cost, "blocks²"),)


POLICY = DynamoLmetric
