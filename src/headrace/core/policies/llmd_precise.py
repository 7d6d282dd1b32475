"""llm-d's sample for precise prefix caching: the same scores as `llmd_default`, prefix first.

    cost = -(prefix_weight * prefix + kv_weight * kv + queue_weight * queue),  weights 2, 1, 1

Which of the three weighs 2 is what its sample says: precise-prefix-cache-scorer 2.0,
kv-cache-utilization-scorer 1.0, queue-scorer 1.0.

Inputs: the last scrape's waiting requests and KV usage, the prefix index. With `index: exact`, or
KV events, the index is precise as it is there; without, only the weights are.

Source: llm-d-router (before llm-d-inference-scheduler),
deploy/config/epp-precise-prefix-cache-config.yaml.

As there: weights, scores, blocks of 64 tokens. Different here: one tier of cache, the GPU's.

Parameters:
    queue_weight: weight of the queue score.
    kv_weight: weight of the KV score.
    prefix_weight: weight of the prefix score.
    block_tokens: tokens per block of the prefix score.
"""

from __future__ import annotations

from headrace.core.policies.llmd_default import LlmdDefault

SWEEP = {"queue_weight": (1.0, 2.0), "kv_weight": (0.0, 1.0), "prefix_weight": (1.0, 2.0, 4.0)}


class LlmdPrecise(LlmdDefault):
    """`LlmdDefault` with other weights."""

    def __init__(
        self,
        queue_weight: float = 1.0,
        kv_weight: float = 1.0,
        prefix_weight: float = 2.0,
        block_tokens: int = 64,
    ) -> None:
        super().__init__(queue_weight, kv_weight, prefix_weight, block_tokens)


POLICY = LlmdPrecise
