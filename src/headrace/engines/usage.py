"""How token usage is obtained: a rule per endpoint and dialect, and readers that apply it.

A `StreamReader` sits in the relay path of one streamed answer. It is handed whole SSE events and
hands back what to relay; on the way it notices the first content, counts content deltas and
keeps the usage. Ordinary events cost a few substring searches, never a JSON parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from headrace.core.model import Usage


@dataclass(frozen=True, slots=True)
class UsageRule:
    """Where one endpoint of one dialect tells its usage."""

    inject_usage: bool = False
    """Merge `"stream_options": {"include_usage": true}` into a *streaming* request that lacks it.
    The reader is then made with `injected=True` and takes the answer to that request out again."""
    usage_per_choice: bool = False
    """Each choice ends with a usage of its own, to be added. False: one usage covers them all."""
    where: str = ""
    """In words, for the generated docs."""


class ContentKind(StrEnum):
    """What the first content of a stream was."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


@dataclass(frozen=True, slots=True)
class BodyReading:
    """What a whole, not streamed answer tells."""

    usage: Usage | None = None
    response_id: str | None = None
    """The id of a `/v1/responses` answer: it may be stored, and only this replica has it."""


class StreamReader(Protocol):
    """Reads one streamed answer event by event. One object per stream, thrown away with it."""

    content_chunks: int
    """Events that carried content, reasoning or tool-call deltas so far."""
    first_kind: ContentKind | None
    """What the first of them was; `None` before it. Role chunks and empty deltas do not count."""
    usage: Usage | None
    """What the engine has reported so far; final once `done`. `None` if it reported nothing.
    Of a broken stream it is a lower bound: choices that had not ended may be missing in it."""
    response_id: str | None
    """The id of a `/v1/responses` stream, known from its first event."""
    done: bool
    """The stream ended as its protocol says (`[DONE]`, `message_stop`, `response.completed`)."""
    error: bool
    """The engine reported an error inside the stream."""

    def feed(self, event: bytes) -> bytes | None:
        """Take one whole SSE event, return the bytes to relay: the very same object as a rule,
        new bytes where an injected `usage` was cut out, `None` where the event is to be dropped.

        Never raises: what cannot be understood is relayed as it is.
        """
        ...
