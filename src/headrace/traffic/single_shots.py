"""Requests that have nothing in common: no cache can help, only balance.

Prompts are lognormal with a wide spread, answers exponential (Xiang et al., "ServeGen", 2025); the
means are of the order of Azure's conversation trace of 2024 (Stojkovic et al., "DynamoLLM", HPCA
'25). Blocks have ids that never return: engines cache what nobody asks for again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from headrace.traffic.arrivals import gamma_arrivals
from headrace.traffic.lengths import ExponentialTokens, Lengths, LognormalTokens
from headrace.traffic.prompts import Prompt
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True, slots=True)
class SingleShots:
    """What single requests look like."""

    prompt_tokens: Lengths = field(default_factory=lambda: LognormalTokens(2500, 1.5, 8, 64_000))
    answer_tokens: Lengths = field(default_factory=lambda: ExponentialTokens(250, 4000))
    cv: float = 1.0
    """CV of the gaps between arrivals; 1 is a Poisson process."""
    block_tokens: int = MOONCAKE_BLOCK_TOKENS


def single_shots(shape: SingleShots, *, requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    """Endless single requests at a mean rate, with Gamma gaps."""
    rng = Random(f"single_shots {seed}")
    keys = Random(f"single_shots blocks {seed}")
    for arrival_s in gamma_arrivals(requests_per_s, shape.cv, rng):
        prompt = Prompt(shape.block_tokens, keys)
        prompt.grow(shape.prompt_tokens.draw(rng))
        answer = shape.answer_tokens.draw(rng)
        yield TraceRequest(arrival_s, prompt.tokens, answer, prompt.blocks)
