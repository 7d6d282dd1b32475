"""The port between an answer and the API it is written for.

    Completion ─► opening ─► event, once for each token ─► ending        (a stream)
               └► whole                                                  (or not)

One form for each API, one object for each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """Which answer it is, and what of it is the same in each of its pieces."""

    id: str
    created: int
    model: str
    number: int
    """Of the choice, where there are several."""
    streamed: bool
    continuous_usage: bool
    """Whether each event is to tell the tokens so far."""


class Spent(NamedTuple):
    """The tokens of an answer; `cached_tokens` is None where the engine does not tell them."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None


class Token(NamedTuple):
    """A token of a stream; the last one if there is a reason, and `spent` where it is asked for."""

    word: bytes
    reason: str | None = None
    spent: Spent | None = None
    stop_reason: str | None = None
    """The stop string that ended the answer with it."""
    logprobs: dict[str, object] | None = None


class Ended(NamedTuple):
    """An answer, or one of its choices, when its last token is there."""

    number: int
    text: str
    logprobs: dict[str, object] | None
    reason: str
    """Why it ended, as the completions API has it."""
    stop_reason: str | None
    """The stop string that ended it."""
    spent: Spent
    usage_asked: bool
    """Whether the end of a stream is to tell them, where an API leaves that to the client."""


class Form(Protocol):
    """How one answer is written.

    If its events are `alike`, an ordinary one is `head + word + tail`, made by `opening`.
    """

    alike: bool
    head: bytes
    tail: bytes

    def opening(self, spent: Spent) -> bytes:
        """What stands before the first word."""
        ...

    def event(self, token: Token) -> bytes:
        """An event with one token."""
        ...

    def ending(self, ended: Ended) -> list[bytes]:
        """What follows the last token. One piece at least."""
        ...

    def whole(self, choices: Sequence[Ended], spent: Spent) -> bytes:
        """The body of an answer that is not streamed."""
        ...


def named_event(kind: str, **fields: object) -> bytes:
    """An event of a stream whose events have names."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **fields}))
