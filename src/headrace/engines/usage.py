"""How token usage is obtained: a rule per endpoint and dialect, and the reader that applies it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace.core.model import Usage


@dataclass(frozen=True, slots=True)
class UsageRule:
    """Where one endpoint of one dialect tells its usage."""

    where: str
    """In words, for the generated docs."""
    inject_usage: bool = False
    """Merge `"stream_options": {"include_usage": true}` into a *streaming* request that lacks it.
    The reader is then made with `injected=True` and takes the answer to that request out again."""
    usage_per_choice: bool = False
    """Each choice, or each prompt of several, ends with a usage of its own, to be added. False:
    one usage covers them all."""
    whole_of_first_choice: bool = False
    """The usage of a *whole* answer is of its first choice alone, however many it holds."""


class ContentKind(StrEnum):
    """What a delta holds."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


class StreamReader:
    """Reads one streamed answer event by event: one object per stream, thrown away with it.

    It sits in the relay path. It is handed whole SSE events and hands back what to relay; on the
    way it counts content deltas and keeps the usage. An ordinary event costs a few substring
    searches, not a JSON parse. A subclass knows a protocol; this class relays what nobody knows.
    """

    __slots__ = ("content_chunks", "done", "error", "first_kind", "response_id", "usage")

    def __init__(self) -> None:
        self.content_chunks: int = 0
        """Events that carried content, reasoning or tool-call deltas so far. Role chunks and
        empty deltas do not count: the first to count is the first token (TTFT)."""
        self.first_kind: ContentKind | None = None
        """What the first of them held; `None` before it."""
        self.usage: Usage | None = None
        """What the engine has reported so far; final once `done`. `None` if it reported nothing.
        Of a broken stream it is a lower bound: choices that had not ended may miss in it."""
        self.response_id: str | None = None
        """The id of a `/v1/responses` stream, known from its first event."""
        self.done: bool = False
        """The stream ended the way its protocol ends (`[DONE]`, `message_stop`, …)."""
        self.error: bool = False
        """The engine reported an error inside the stream."""

    def feed(self, event: bytes) -> bytes | None:
        """Take one whole SSE event and return the bytes to relay in its place.

        As a rule that is the very same object; new bytes where an injected `usage` was cut out;
        `None` where the event is to be dropped. What cannot be understood is relayed as it is:
        this never raises.
        """
        if event.startswith(b"data: [DONE]"):
            self.done = True
        return event

    def passes(self, data: bytes, start: int) -> bool:  # noqa: ARG002 - for those that know
        """Whether the event at `data[start:]` is surely one more with content and nothing else.

        If so it is counted, as if `feed` had returned it untouched. False may mean anything.
        """
        return False

    def words_in(self, data: bytes, start: int) -> tuple[int, int]:  # noqa: ARG002 - as `passes`
        """Where the model's words begin and end in an event that passes; (0, 0) if nobody knows.

        They are the inside of one JSON string, of which nothing is escaped.
        """
        return 0, 0

    def _count_content(self, kind: ContentKind) -> None:
        self.content_chunks += 1
        if self.first_kind is None:
            self.first_kind = kind
