"""Whether the usage of an answer can be true: a count that cannot would be in every figure.

    output tokens ≤ 16 · the greater of max_tokens and the chunks that came + 1,048,576
    input tokens  ≤ 16 · those planned + 1,048,576,  of them cached: input tokens at most

None below 0, and no output of 0 where content came. Wide on purpose: `--extra-body` may ask for
more, a chunk may hold several tokens, an endpoint may put a system prompt of its own before ours.
The gateway plans nothing: there it is what the request asks for, and the estimate of its prompt.
"""

from __future__ import annotations

from typing import Final

from headrace.core.model import Usage

FAR: Final = 16
"""Times as many as there should be: no rounding, no template, no speculation explains it."""
MORE_INPUT_TOKENS: Final = 1_048_576
MORE_OUTPUT_TOKENS: Final = MORE_INPUT_TOKENS
"""A whole context of the largest models. Several choices (`n` in `--extra-body`), reasoning that is
not shown, and a system prompt or an image before ours are within it."""


def can_be(usage: Usage, *, input_tokens: int, max_tokens: int, chunks: int) -> bool:
    """Whether a request planned with so many tokens, answered in so many chunks, can have it."""
    most_input = FAR * input_tokens + MORE_INPUT_TOKENS
    return (
        output_can_be(usage.output_tokens, max_tokens=max_tokens, chunks=chunks)
        and 0 <= usage.cached_tokens <= usage.input_tokens <= most_input
    )


def output_can_be(output_tokens: int, *, max_tokens: int, chunks: int) -> bool:
    """Whether an answer of so many chunks can have so many tokens."""
    most = FAR * max(max_tokens, chunks) + MORE_OUTPUT_TOKENS
    return (1 if chunks else 0) <= output_tokens <= most
