"""Conversations: each turn's prompt is everything before it and a new message.

    prompt of turn k = system prompt + k messages + (k − 1) answers

How many turns give the wanted share of reusable input follows from the lengths (`MultiTurn.turns`).
Defaults: answers as in Mooncake's chat service (Qin et al., FAST '25: 343 tokens on average), turns
geometric with a mean near the 3.5 of multi-turn conversations in production (Xiang et al.,
"ServeGen", 2025). 64 % reusable is the multi-turn cell of the study in Headrace's design, between
Mooncake's conversation trace (37 %) and the 80 % and more of long chats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from headrace.traffic.arrivals import poisson_arrivals
from headrace.traffic.lengths import (
    ExponentialTokens,
    GeometricCounts,
    Lengths,
    LognormalSeconds,
    LognormalTokens,
)
from headrace.traffic.prompts import Popularity, drawn_prompts
from headrace.traffic.sessions import Turn, answer_s, interleaved
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True, slots=True)
class MultiTurn:
    """What conversations look like."""

    apps: int = 20
    """Applications; all conversations of one share its system prompt."""
    app_exponent: float = 1.0
    """Zipf exponent of the applications' popularity."""
    system_tokens: Lengths = field(default_factory=lambda: LognormalTokens(1500, 0.4))
    answer_tokens: Lengths = field(default_factory=lambda: ExponentialTokens(343, 4000))
    message_tokens: Lengths = field(default_factory=lambda: LognormalTokens(1000, 2.0, most=60_000))
    """Wide: some messages carry a document."""
    most_turns: int = 60
    pause: LognormalSeconds = field(default_factory=lambda: LognormalSeconds(25, 1.0))
    """From the end of an answer to the next message."""
    reusable_share: float = 0.64
    """Share of input blocks that an earlier prompt had, with a cache that never evicts."""
    most_tokens: int = 120_000
    """Longest prompt; beyond it the oldest turns are dropped, which breaks the prefix behind the
    system prompt (Llama 3.1's context is 128k)."""
    block_tokens: int = MOONCAKE_BLOCK_TOKENS

    def turns(self) -> GeometricCounts:
        """The distribution of turns whose mean makes `reusable_share` of the input reusable.

        Raises:
            ValueError: no mean from 1 to `most_turns` does.
        """
        low, high = 1.0, float(self.most_turns)
        least, most = self._share(low), self._share(high)
        if not least <= self.reusable_share <= most:
            raise ValueError(
                f"reusable_share {self.reusable_share:g} is not from {least:.2f} to {most:.2f},"
                " which is what these lengths allow"
            )
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if self._share(middle) < self.reusable_share else (low, middle)
            )
        return GeometricCounts(low, self.most_turns)

    def _share(self, mean_turns: float) -> float:
        """The share of input blocks that repeat, for conversations of so many turns.

        Per conversation of N turns with system prompt S, messages U, answers A: all input is
        N·S + ΣkU + Σ(k−1)A, new of it N·U + (N−1)·A. In blocks of B, what ends within a block is
        not reusable (B/2 a prompt), and a block that is not full counts (B/2 a prompt).
        """
        mean, square = GeometricCounts(mean_turns, self.most_turns).moments()
        ladder = (square + mean) / 2  # E[1 + 2 + … + N]
        system, message = self.system_tokens.mean_tokens, self.message_tokens.mean_tokens
        answer = self.answer_tokens.mean_tokens
        total = mean * system + ladder * message + (ladder - mean) * answer
        new = mean * message + (mean - 1) * answer
        return 1 - (new + mean * self.block_tokens) / (total + mean * self.block_tokens / 2)


def multi_turn(shape: MultiTurn, *, requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    """Endless conversations at a mean rate of requests; they start as a Poisson process.

    Raises:
        ValueError: the shape contradicts itself.
    """
    rng = Random(f"multi_turn {seed}")
    keys = Random(f"multi_turn blocks {seed}")
    turns = shape.turns()
    popularity = Popularity(shape.apps, shape.app_exponent)
    systems = drawn_prompts(shape.apps, shape.system_tokens, shape.block_tokens, keys=keys, rng=rng)

    def conversation(_: int) -> Iterator[Turn]:
        system = systems[popularity.draw(rng)]
        prompt = system.branch()
        gap_s = 0.0
        for _ in range(turns.draw(rng)):
            message, answer = shape.message_tokens.draw(rng), shape.answer_tokens.draw(rng)
            if prompt.tokens + message > shape.most_tokens:
                prompt.rewrite_from(system.tokens)
                message = min(message, max(1, shape.most_tokens - system.tokens))
            prompt.grow(message)
            yield Turn(gap_s, prompt, answer)
            prompt.grow(answer)
            gap_s = answer_s(answer) + shape.pause.draw(rng)

    mean_turns = turns.moments()[0]
    turn_s = answer_s(round(shape.answer_tokens.mean_tokens)) + shape.pause.mean_s
    starts_s = poisson_arrivals(requests_per_s / mean_turns, rng)
    return interleaved(starts_s, conversation, "chat-", warm_up_s=3 * mean_turns * turn_s)
