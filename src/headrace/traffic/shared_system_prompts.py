"""Short questions behind a few long system prompts: classifiers, assistants with instructions.

The pattern of llm-d's and the Gateway API Inference Extension's shared-prefix benchmarks: groups
with a long common start, each prompt with a short end of its own. Some groups are far more popular
than others, so following the prefix alone overloads the replicas that hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from headrace.traffic.arrivals import gamma_arrivals
from headrace.traffic.lengths import ExponentialTokens, Lengths, LognormalTokens
from headrace.traffic.prompts import Popularity, drawn_prompts
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True, slots=True)
class SharedSystemPrompts:
    """What such traffic looks like."""

    prompts: int = 12
    """Distinct system prompts."""
    exponent: float = 1.0
    """Zipf exponent of their popularity."""
    system_tokens: Lengths = field(default_factory=lambda: LognormalTokens(8000, 0.5, 2000, 32_000))
    question_tokens: Lengths = field(default_factory=lambda: LognormalTokens(250, 1.0))
    answer_tokens: Lengths = field(default_factory=lambda: ExponentialTokens(200, 2000))
    cv: float = 1.0
    """CV of the gaps between arrivals; 1 is a Poisson process."""
    block_tokens: int = MOONCAKE_BLOCK_TOKENS


def shared_system_prompts(
    shape: SharedSystemPrompts, *, requests_per_s: float, seed: int
) -> Iterator[TraceRequest]:
    """Endless questions at a mean rate, with Gamma gaps."""
    rng = Random(f"shared_system_prompts {seed}")
    keys = Random(f"shared_system_prompts blocks {seed}")
    popularity = Popularity(shape.prompts, shape.exponent)
    systems = drawn_prompts(
        shape.prompts, shape.system_tokens, shape.block_tokens, keys=keys, rng=rng
    )
    for arrival_s in gamma_arrivals(requests_per_s, shape.cv, rng):
        prompt = systems[popularity.draw(rng)].branch()
        prompt.grow(shape.question_tokens.draw(rng))
        answer = shape.answer_tokens.draw(rng)
        yield TraceRequest(arrival_s, prompt.tokens, answer, prompt.blocks)
