"""Agents on code: very long starts shared within a project, many short turns with tools.

    prompt of turn k = project context + private growth of k − 1 turns + tool result or message

Sessions of a project share its context (instructions, tools, repository), 100k tokens by default,
and grow by an answer and a tool's result a turn. When the context is full it is compacted: the
private part starts anew with a summary. Lengths follow what is published of such traffic:
Mooncake's tool-and-agent trace (Qin et al., FAST '25: answers of 182 tokens on average), the agent
traces of TraceLab (University of Washington, 2026: almost all of a step's input is cached prefix,
a tool's result is short), the input-to-output ratios of 100 and more reported for coding agents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from headrace.traffic.arrivals import poisson_arrivals
from headrace.traffic.lengths import GeometricCounts, Lengths, LognormalSeconds, LognormalTokens
from headrace.traffic.prompts import Popularity, drawn_prompts
from headrace.traffic.sessions import Turn, answer_s, interleaved
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True, slots=True)
class Agentic:
    """What agents' sessions look like."""

    projects: int = 40
    """Distinct shared contexts."""
    project_exponent: float = 0.8
    """Zipf exponent of the projects' popularity."""
    context_tokens: Lengths = field(
        default_factory=lambda: LognormalTokens(100_000, 0.05, 90_000, 115_000)
    )
    task_tokens: Lengths = field(default_factory=lambda: LognormalTokens(400, 1.0))
    """The user's message that opens a session."""
    tool_tokens: Lengths = field(default_factory=lambda: LognormalTokens(700, 1.5, most=8000))
    """A tool's result."""
    answer_tokens: Lengths = field(default_factory=lambda: LognormalTokens(220, 0.8, 20, 2000))
    turns: GeometricCounts = field(default_factory=lambda: GeometricCounts(15, 120))
    tool_pause: LognormalSeconds = field(default_factory=lambda: LognormalSeconds(3, 1.0))
    user_pause: LognormalSeconds = field(default_factory=lambda: LognormalSeconds(60, 0.8))
    user_share: float = 0.1
    """Share of turns before which a user thinks instead of a tool working."""
    summary_tokens: int = 2000
    """What is left of the private part after compaction."""
    most_tokens: int = 128_000
    block_tokens: int = MOONCAKE_BLOCK_TOKENS


def agentic(shape: Agentic, *, requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    """Endless agents' sessions at a mean rate of requests; they start as a Poisson process."""
    rng = Random(f"agentic {seed}")
    keys = Random(f"agentic blocks {seed}")
    popularity = Popularity(shape.projects, shape.project_exponent)
    contexts = drawn_prompts(
        shape.projects, shape.context_tokens, shape.block_tokens, keys=keys, rng=rng
    )

    def session(_: int) -> Iterator[Turn]:
        context = contexts[popularity.draw(rng)]
        prompt = context.branch()
        more = shape.task_tokens.draw(rng)
        gap_s = 0.0
        for _ in range(shape.turns.draw(rng)):
            if prompt.tokens + more > shape.most_tokens:
                prompt.rewrite_from(context.tokens)
                prompt.grow(shape.summary_tokens)
            prompt.grow(more)
            answer = shape.answer_tokens.draw(rng)
            yield Turn(gap_s, prompt, answer)
            prompt.grow(answer)
            more = shape.tool_tokens.draw(rng)
            pause = shape.user_pause if rng.random() < shape.user_share else shape.tool_pause
            gap_s = answer_s(answer) + pause.draw(rng)

    mean_turns = shape.turns.moments()[0]
    pause_s = (
        shape.user_share * shape.user_pause.mean_s
        + (1 - shape.user_share) * shape.tool_pause.mean_s
    )
    turn_s = answer_s(round(shape.answer_tokens.mean_tokens)) + pause_s
    starts_s = poisson_arrivals(requests_per_s / mean_turns, rng)
    return interleaved(starts_s, session, "agent-", warm_up_s=3 * mean_turns * turn_s)
