"""The port between the engine's HTTP half and whatever decides when tokens come.

    submit ─► wake_s ─► advance ─► wake_s ─► advance ─► …
       └─ cancel at any time

A timing source is plain synchronous code: it is told the time and never asks for it, so that the
same one runs on a real clock here and on a virtual one elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Generation:
    """One prompt on its way through the engine.

    `prompt` is its text as `prompt.Ask` has it. A timing source raises `produced` with each token;
    with the first it sets `cached_tokens`, if it has a prefix cache, and `admitted_s`, if prompts
    wait there. Whoever submitted it reads the rest.
    """

    __slots__ = (
        "admitted_s",
        "answer",
        "cached_tokens",
        "output_tokens",
        "produced",
        "prompt",
        "prompt_tokens",
        "submitted_s",
    )

    def __init__(
        self,
        answer: Answer,
        *,
        prompt_tokens: int,
        output_tokens: int,
        submitted_s: float,
        prompt: bytes = b"",
    ) -> None:
        self.answer = answer
        self.prompt = prompt
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = 0
        self.output_tokens = output_tokens
        self.submitted_s = self.admitted_s = submitted_s
        self.produced = 0

    @property
    def done(self) -> bool:
        """Whether every token was produced."""
        return self.produced >= self.output_tokens


class Answer(Protocol):
    """Whoever waits for a generation's tokens."""

    def token(self, now: float) -> None:
        """One more token; the last one if the generation is done."""
        ...

    def abort(self) -> None:
        """There will be no more: the engine has stopped it."""
        ...


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What fills the engine now, and how often it preempted. `kv_usage_ratio` lies in 0 to 1."""

    waiting: int
    running: int
    kv_usage_ratio: float
    preemptions: int = 0


class TimingSource(Protocol):
    """Decides when each generation's tokens come."""

    def submit(self, generation: Generation, now: float) -> None:
        """Take in a prompt."""
        ...

    def cancel(self, generation: Generation) -> None:
        """Forget a generation whose client has gone; unknown ones are no error."""
        ...

    def wake_s(self) -> float:
        """When `advance` has something to do next; infinity while nothing runs."""
        ...

    def advance(self, now: float) -> Sequence[Generation]:
        """Produce what is due: at most one token for each generation returned.

        A source that is behind is asked again at once, so a token never waits for another one of
        its own generation.
        """
        ...

    def forget(self) -> None:
        """Forget what is cached; nothing runs then."""
        ...

    def occupancy(self) -> Occupancy:
        """What the engine's gauges show."""
        ...

    def looked_up(self) -> tuple[int, int]:
        """Tokens of all prompts looked up in the prefix cache since the start, and those found."""
        ...
