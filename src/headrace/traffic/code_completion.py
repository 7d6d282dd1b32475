"""Code completion while people type: bursts of short answers, prompts that hardly change.

A burst is one developer's typing: some requests a second or two apart. Bursts start with Gamma gaps
of CV 3, as arrivals of API traffic do (Wang et al., "BurstGPT", 2024). A prompt is what the project
shares and the text around the cursor, 2,000 to 8,000 tokens; between two requests text near its end
is edited, now and then another file is opened. Lengths: Azure's code trace (Patel et al.,
"Splitwise", ISCA '24: median prompt 1,500 tokens, median answer 13).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from headrace.traffic.arrivals import gamma_arrivals
from headrace.traffic.lengths import GeometricCounts, Lengths, LognormalSeconds, LognormalTokens
from headrace.traffic.prompts import Prompt, drawn_prompts
from headrace.traffic.sessions import Turn, interleaved
from headrace.traffic.trace import TraceRequest


@dataclass(frozen=True, slots=True)
class CodeCompletion:
    """What completion traffic looks like."""

    developers: int = 300
    projects: int = 15
    """Shared starts; developer d works on project d mod `projects`."""
    shared_tokens: Lengths = field(default_factory=lambda: LognormalTokens(800, 0.4, 100, 2000))
    file_tokens: Lengths = field(default_factory=lambda: LognormalTokens(3500, 0.5, 1900, 7000))
    """Text around the cursor when a file is opened."""
    answer_tokens: Lengths = field(default_factory=lambda: LognormalTokens(28, 1.2, 1, 300))
    edit_tokens: Lengths = field(default_factory=lambda: LognormalTokens(120, 1.0))
    """How far before the prompt's end the text changes between two requests."""
    typed_tokens: Lengths = field(default_factory=lambda: LognormalTokens(12, 0.8))
    """By how much the prompt grows between two requests."""
    new_file_share: float = 0.06
    """Share of requests that come from another file than the one before."""
    burst: GeometricCounts = field(default_factory=lambda: GeometricCounts(8, 60))
    burst_cv: float = 3.0
    """CV of the gaps between the starts of bursts."""
    pause: LognormalSeconds = field(default_factory=lambda: LognormalSeconds(1.2, 0.6))
    """Between two requests of a burst."""
    most_tokens: int = 8000
    """Longest prompt; what would be longer starts from the file again."""
    block_tokens: int = 128
    """Smaller than for chat: an edit in a block of 512 would hide most of what repeats."""


def code_completion(
    shape: CodeCompletion, *, requests_per_s: float, seed: int
) -> Iterator[TraceRequest]:
    """Endless bursts at a mean rate of requests."""
    rng = Random(f"code_completion {seed}")
    desks = _Desks(shape, rng, Random(f"code_completion blocks {seed}"))

    def burst(_: int) -> Iterator[Turn]:
        developer = rng.randrange(shape.developers)
        for number in range(shape.burst.draw(rng)):
            prompt = desks.prompt(developer)
            gap_s = shape.pause.draw(rng) if number else 0.0
            # Another burst of the same developer may change it before it is sent.
            yield Turn(gap_s, prompt.copy(), shape.answer_tokens.draw(rng))

    mean_burst = shape.burst.moments()[0]
    starts_s = gamma_arrivals(requests_per_s / mean_burst, shape.burst_cv, rng)
    # Until most developers have a file open, and some bursts overlap.
    warm_up_s = max(
        3 * mean_burst * shape.pause.mean_s, 2 * shape.developers * mean_burst / requests_per_s
    )
    return interleaved(starts_s, burst, "burst-", warm_up_s)


class _Desks:
    """What each developer has open."""

    __slots__ = ("_open", "_rng", "_shape", "_shared")

    def __init__(self, shape: CodeCompletion, rng: Random, keys: Random) -> None:
        self._shape = shape
        self._rng = rng
        self._open: dict[int, Prompt] = {}
        self._shared = drawn_prompts(
            shape.projects, shape.shared_tokens, shape.block_tokens, keys=keys, rng=rng
        )

    def prompt(self, developer: int) -> Prompt:
        """The developer's next prompt: another file, or the open one with an edit near its end."""
        shape, rng = self._shape, self._rng
        shared = self._shared[developer % shape.projects]
        prompt = self._open.get(developer)
        edit = shape.edit_tokens.draw(rng)
        typed = shape.typed_tokens.draw(rng)
        full = prompt is None or prompt.tokens + typed > shape.most_tokens
        if prompt is None or full or rng.random() < shape.new_file_share:
            prompt = self._open[developer] = shared.branch()
            prompt.grow(min(shape.file_tokens.draw(rng), shape.most_tokens - prompt.tokens))
            return prompt
        tokens = prompt.tokens
        prompt.rewrite_from(max(shared.tokens, tokens - edit))
        prompt.grow(tokens + typed - prompt.tokens)
        return prompt
