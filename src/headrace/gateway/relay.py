"""What is done with an answer on its way to the client: read, count, pass on.

A relay takes body bytes and returns the bytes to send. It is chosen by the answer's head:
server-sent events, an error, or any other body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from headrace.core.model import Usage
from headrace.engines.fragment import Fragment
from headrace.engines.sse import SseSplitter, is_one_event
from headrace.engines.usage import StreamReader
from headrace.gateway.metrics.meter import Meter

MAX_ERROR_BYTES = 1024 * 1024
"""An engine's error answer is held back this far, since it may be retried elsewhere."""

MAX_UNTOLD_BYTES = 64
"""Of an answer that does not say what it is; blank lines, say."""
_EVENT_BEGINS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"


class Relay(Protocol):
    """One answer's way through the gateway."""

    @property
    def usage(self) -> Usage | None:
        """What the engine has told so far; final after `finish`."""
        ...

    @property
    def response_id(self) -> str | None:
        """The id of a `/v1/responses` answer, which may be stored."""
        ...

    def feed(self, data: bytes, now: float) -> bytes:
        """Take a piece of the body, return what the client is to get of it."""
        ...

    def finish(self) -> bytes:
        """The body is whole: return what is left to send; `usage` is final now."""
        ...


class StreamRelay:
    """Server-sent events: whole events only, content counted, usage read."""

    __slots__ = ("_meter", "_reader", "_splitter", "_usage_seen")

    def __init__(self, reader: StreamReader, meter: Meter, max_event_bytes: int) -> None:
        self._reader = reader
        self._meter = meter
        self._splitter = SseSplitter(max_event_bytes)
        self._usage_seen: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """What the engine has said so far."""
        return self._reader.usage

    @property
    def response_id(self) -> str | None:
        """The id of a `/v1/responses` stream."""
        return self._reader.response_id

    @property
    def done(self) -> bool:
        """Whether the stream's end mark has come."""
        return self._reader.done

    @property
    def error(self) -> bool:
        """Whether the engine reported an error inside the stream."""
        return self._reader.error

    def passes(self, chunk: bytes, start: int) -> bool:
        """Whether `chunk[start:-2]` is one ordinary event with content, nothing being held.

        Then the caller sends it on as it is and counts it.
        """
        end = len(chunk) - 2
        return (
            chunk.find(b"\n\n", start) == end - 2
            and chunk.find(b"\r", start) == end
            and not self._splitter.is_within_event
            and self._reader.passes(chunk, start)
        )

    def passes_alone(self, event: bytes) -> bool:
        """As `passes`, for what came without the framing of a chunk."""
        return (
            is_one_event(event, 0, len(event))
            and not self._splitter.is_within_event
            and self._reader.passes(event, 0)
        )

    def words_in(self, chunk: bytes, start: int) -> tuple[int, int]:
        """See `StreamReader.words_in`."""
        return self._reader.words_in(chunk, start)

    def feed(self, data: bytes, now: float) -> bytes:
        """Take bytes as they come, return the whole events among them."""
        events = self._splitter.feed(data)
        if len(events) == 1:
            return self._event(events[0], now)
        return b"".join([self._event(event, now) for event in events])

    def finish(self) -> bytes:
        """Return what came after the last whole event: perhaps one without its blank line."""
        rest = self._splitter.flush()
        return (self._reader.feed(rest) or b"") if rest else b""

    def _event(self, event: bytes, now: float) -> bytes:
        if isinstance(event, Fragment):
            return event
        reader = self._reader
        before = reader.content_chunks
        kept = reader.feed(event)
        if reader.content_chunks != before:
            self._meter.content(now)
        usage = reader.usage
        if usage is not self._usage_seen:
            self._usage_seen = usage
            if usage is not None:
                self._meter.running_usage(usage.output_tokens)
        return b"" if kept is None else kept


class BodyRelay:
    """A whole answer: passes through as it comes, and is read at its end if it is not too long."""

    __slots__ = ("_bytes", "_limit", "_pieces", "_read", "response_id", "usage")

    def __init__(self, read: Callable[[bytes], Usage | None], limit_bytes: int) -> None:
        self._read = read
        self._limit = limit_bytes
        self._pieces: list[bytes] = []
        self._bytes = 0
        self.usage: Usage | None = None
        self.response_id: str | None = None

    def feed(self, data: bytes, now: float) -> bytes:  # noqa: ARG002 - the Relay interface
        """Keep a copy within the limit, return the piece."""
        self._bytes += len(data)
        if self._bytes <= self._limit:
            self._pieces.append(data)
        else:
            self._pieces.clear()
        return data

    def finish(self) -> bytes:
        """Read usage and id."""
        if self._bytes <= self._limit:
            self.usage = self._read(b"".join(self._pieces))
        return b""


class UntypedRelay:
    """The answer to a request for a stream that does not say what it is.

    Its first bytes tell: then `on_found` is handed `stream` or `body`, which reads from there on.
    """

    __slots__ = ("_body", "_held", "_on_found", "_stream", "response_id", "usage")

    def __init__(
        self, stream: StreamRelay, body: BodyRelay, on_found: Callable[[Relay], None]
    ) -> None:
        self._stream = stream
        self._body = body
        self._on_found = on_found
        self._held = b""
        self.usage: Usage | None = None
        self.response_id: str | None = None

    def feed(self, data: bytes, now: float) -> bytes:
        """Hold what does not tell yet."""
        held = self._held = self._held + data
        begin = held.lstrip(_BLANK)
        is_part = any(len(begin) < len(name) and name.startswith(begin) for name in _EVENT_BEGINS)
        if is_part and len(held) < MAX_UNTOLD_BYTES:
            return b""
        relay = self._stream if begin.startswith(_EVENT_BEGINS) else self._body
        self._on_found(relay)
        return relay.feed(held, now)

    def finish(self) -> bytes:
        """It ended before it told."""
        self._on_found(self._body)
        return self._body.feed(self._held, 0.0) + self._body.finish()


class ErrorRelay:
    """An engine's error: held back whole until it is known whether another replica may do better.

    A longer one than `MAX_ERROR_BYTES` is cut there.
    """

    __slots__ = ("_bytes", "_pieces", "response_id", "usage")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._bytes = 0
        self.usage: Usage | None = None
        self.response_id: str | None = None

    def feed(self, data: bytes, now: float) -> bytes:  # noqa: ARG002 - the Relay interface
        """Hold the piece back."""
        room = MAX_ERROR_BYTES - self._bytes
        if room > 0:
            self._pieces.append(data[:room])
            self._bytes += len(data)
        return b""

    def finish(self) -> bytes:
        """Return the error's body."""
        return b"".join(self._pieces)
