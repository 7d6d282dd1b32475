"""One connection to an engine: sends requests, reads answers.

idle ─► start ─► head ─► body ─► complete ─► idle …
what is lost under a call is told it; what is lost by a fault of ours ends its answer
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import httptools

from headrace.edges.http.address import Address, closed_by
from headrace.edges.http.chunks import chunk_start, whole_chunks
from headrace.edges.http.heads import BODILESS, Header, field_of, fields_bytes, find
from headrace.edges.http.known_heads import (
    is_chunked,
    is_plain,
    without_length,
)
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.sink import AnswerSink
from headrace.edges.http.tls import reason_of

if TYPE_CHECKING:
    from headrace.edges.http.client import UpstreamCall, UpstreamPool

_log = logging.getLogger(__name__)
_NOTHING: Final[list[bytes]] = []
"""Of a payload that was sent. One for all, like the other empty lists here: each stream that is
open would hold several, of 64 bytes."""
_NO_HEADERS: Final[list[Header]] = []
_OWN_FAULT: Final = "the gateway failed to handle the answer"
SHORT_OF: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
)
"""Of a connection that cannot be had because this machine has no room for it."""
_OWN_ERRNOS: Final = SHORT_OF | {errno.EINVAL, errno.EBADF, errno.EFAULT, errno.EMSGSIZE}
"""Of one that is lost by what was asked of it here. None of these says anything of the engine."""

MAX_ANSWER_HEAD_BYTES: Final = 256 * 1024
"""Status line and headers of an engine's answer; above it the answer is refused as broken."""
_HEAD_TOO_LARGE: Final = f"the answer's head is over {MAX_ANSWER_HEAD_BYTES} bytes"


class UpstreamConnection:
    """One connection to an engine; serves one call at a time."""

    __slots__ = (
        "_between_chunks",
        "_first_read",
        "_framed",
        "_head_bytes",
        "_headers",
        "_keep_alive",
        "_parser",
        "_pool",
        "_status",
        "_surplus",
        "_takes",
        "_unparsed",
        "_used",
        "address",
        "answered",
        "call",
        "complete",
        "idle_since_s",
        "paused",
        "sink",
        "transport",
    )

    def __init__(self, pool: UpstreamPool, address: Address) -> None:
        self._pool = pool
        self.address = address
        # Made when it is needed, like that of clients: most answers are known without one, and
        # with its hold on each of the methods here it takes a kilobyte.
        self._parser: httptools.HttpResponseParser | None = None
        self.transport: asyncio.Transport | None = None
        self.call: UpstreamCall | None = None
        self.sink: AnswerSink | None = None
        self.idle_since_s = 0.0
        self.paused = False
        """Whether its reading was stopped since it was last free."""
        self._begin()

    def _begin(self) -> None:
        self._used = False  # whether anything below has changed
        self._headers = _NO_HEADERS  # until the first one comes
        self._status = 0
        self._head_bytes = 0
        self._first_read = b""
        self._unparsed = b""
        """The head of a stream that was known, as long as nothing needed the parser."""
        self._between_chunks = False
        self._takes: Callable[[bytes], bool] | None = None
        self._framed = True
        self._keep_alive = False
        self._surplus = False
        self.answered = False
        self.complete = False

    def start(self, call: UpstreamCall) -> None:
        """Send a call's request; its answer goes to the call's sink."""
        if self._used:
            self._begin()
        self.call = call
        self.sink = call.sink
        assert self.transport is not None
        payload = call.payload
        if len(payload) == 1:
            self.transport.write(payload[0])
        else:
            self.transport.writelines(payload)

    def detach(self) -> None:
        """Forget the call: whatever still comes is of no interest."""
        self.call = None
        self.sink = None
        self._takes = None

    def let_pass(self, takes: Callable[[bytes], bool]) -> None:
        """Offer what comes between two chunks to `takes` before it is looked at."""
        self._takes = takes

    # ------------------------------------------------------------ transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self._pool.opened()

    def data_received(self, data: bytes) -> None:
        if self._between_chunks and self._takes is not None and self._takes(data):
            return  # the parser goes on standing between two chunks
        if self.call is None:
            # An engine that talks without being asked cannot be trusted with the next request.
            self._drop()
            return
        if self._between_chunks and self.sink is not None:
            start = chunk_start(data)
            if start:
                self.sink.answer_chunk(data, start)
                return
            if self._unparsed and self._take_chunks(data):
                return
        elif not self._used:
            self._used = True
            begun = self._pool.stream_head.match(data)
            if begun is not None:
                self._begin_stream(*begun, data)
                return
            found = self._pool.known_heads.match(data)
            if found is not None:
                self._take_known(found[0], data[found[1] :])
                return
            self.answered = True
            self._first_read = data
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._status == 0:
            self._head_bytes += len(data)
        unparsed, self._unparsed = self._unparsed, b""
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(unparsed + data if unparsed else data)
        except httptools.HttpParserUpgrade:
            pass  # behind a 101, which was refused, or came behind a whole answer
        except httptools.HttpParserCallbackError:
            self._fail_by_own_fault()
            return
        except httptools.HttpParserError as error:
            if self.complete and self._status in BODILESS:  # the body that it cannot have
                self._finish(reusable=False)
                return
            self._fail(f"the answer is not valid HTTP/1.1: {error}")
            return
        if self._status == 0 and self._head_bytes > MAX_ANSWER_HEAD_BYTES:
            self._fail(_HEAD_TOO_LARGE)
        elif self.complete:
            self._finish(reusable=self._keep_alive and not self._surplus)
        elif self.sink is not None:
            self._between_chunks = self._between_chunks and data.endswith(b"\r\n")
            self.sink.answer_flush()

    def _begin_stream(self, head: AnswerHead, known: bytes, data: bytes) -> None:
        """Hand the head of a stream over that the parser need not see."""
        call = self.call
        assert call is not None
        self.answered = True
        self._status = head.status
        self._unparsed = known
        self._between_chunks = True
        call.payload = _NOTHING
        rest = data[len(known) :]
        if self._hand_over([], head) and rest and not self._take_chunks(rest):
            self._parse(rest)

    def _take_chunks(self, data: bytes) -> bool:
        """Hand over what is nothing but whole chunks, and see the end of the body."""
        contents = whole_chunks(data)
        if contents is None:
            return False
        if self._hand_over(contents) and not contents[-1]:
            self._finish(reusable=True)
        return True

    def _hand_over(self, contents: list[bytes], head: AnswerHead | None = None) -> bool:
        """Give the sink what came in one read; whether it wants what follows. An empty content is
        the end of the body, with which all the rest is written.
        """
        try:
            if head is not None and self.sink is not None:
                self.sink.answer_head(head)
            for content in contents:
                if content and self.sink is not None:
                    self.sink.answer_body(content)
            if self.sink is not None and (not contents or contents[-1]):
                self.sink.answer_flush()
        except Exception:  # noqa: BLE001 - what the sink does must not leave its call without an end
            self._fail_by_own_fault()
        return self.sink is not None

    def _take_known(self, head: AnswerHead, body: bytes) -> None:
        """Hand a whole answer over that the parser need not see; the connection is free again."""
        call, sink = self.call, self.sink
        assert call is not None
        assert sink is not None
        self.call = self.sink = call.connection = None
        self._used = False
        if call.reusable:
            self._pool.release(self)
        else:
            self._drop()
        try:
            sink.answer_whole(head, body)
        except Exception:  # noqa: BLE001 - a fault of ours here is the end of this answer alone
            _cut_by_own_fault(sink)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:
            return  # it was told before
        self.transport = None
        self._pool.discard(self)
        if self.call is None:
            return
        if exc is None and self._status and not self._framed:
            self._finish(reusable=False)  # a body without framing ends with the connection
        elif isinstance(exc, OSError):
            ours = exc.errno in _OWN_ERRNOS
            self._fail(f"connection lost: {reason_of(exc)}", ours=ours)
        else:
            self._fail(closed_by(self.address, answered=self.answered))

    def eof_received(self) -> bool:
        """The connection is closed, as `asyncio` does it where nobody says otherwise."""
        return False

    def pause_writing(self) -> None:
        """The request waits in the transport: bodies are bounded, so nothing else can grow."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    # ------------------------------------------------------------ parser callbacks

    def on_message_begin(self) -> None:
        if self.complete:  # nobody asked for a second answer
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status == 0 and not self.complete:
            if not self._headers:
                self._headers = []
            self._headers.append(field_of(name, value))

    def on_headers_complete(self) -> None:
        if self._status:  # of a surplus answer, or known before
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        fault = _fault_of(status, self._headers)
        if fault:
            self._fail(fault)
            return
        if status < 200:
            self._headers = _NO_HEADERS
            self._first_read = b""  # begins with another head than the answer's
            return
        most = MAX_ANSWER_HEAD_BYTES  # what was read so far may be body for the most part
        if self._head_bytes > most and fields_bytes(self._headers) > most:
            self._fail(_HEAD_TOO_LARGE)
            return
        self._status = status
        length = find(self._headers, b"content-length")
        framed = length is not None or find(self._headers, b"transfer-encoding") is not None
        if status in BODILESS:
            # A body that is told of may come all the same, and would begin the next answer.
            self._surplus = framed and length != b"0"
            framed = True
        self._framed = framed
        if self.call is not None:
            self.call.payload = _NOTHING  # not sent again, and a stream may go on for an hour
        head = AnswerHead(status, self._headers)
        if self._first_read:
            self._keep_known(head)
        if self.sink is not None:
            self.sink.answer_head(head)

    def _keep_known(self, head: AnswerHead) -> None:
        """Remember a plain head of an answer that leaves its connection open."""
        first_read, self._first_read = self._first_read, b""
        assert self._parser is not None
        if (
            head.status != 200
            or self._parser.get_http_version() != "1.1"
            or find(head.headers, b"connection") is not None
        ):
            return
        if is_plain(head.headers):
            known = AnswerHead(head.status, without_length(head.headers))
            self._pool.known_heads.keep(first_read, known)
        elif is_chunked(head.headers):
            self._pool.stream_head.keep(first_read, len(head.headers), head)

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_body(self, body: bytes) -> None:
        if self.sink is not None and not self._surplus:
            self.sink.answer_body(body)

    def on_message_complete(self) -> None:
        self._between_chunks = False
        # Interim answers are messages too, for the parser.
        self.complete = self._status != 0
        assert self._parser is not None
        # The parser answers this rightly only in here.
        self._keep_alive = self._parser.should_keep_alive()

    # ------------------------------------------------------------ ends

    def _finish(self, *, reusable: bool) -> None:
        call, sink, framed = self.call, self.sink, self._framed
        self.detach()
        if call is not None:
            call.connection = None
        if reusable and call is not None and call.reusable:
            self._pool.release(self)
        else:
            self._drop()
        if sink is None:
            return
        try:
            sink.answer_complete(framed)
        except Exception:  # noqa: BLE001 - a fault of ours here is the end of this answer alone
            _cut_by_own_fault(sink)

    def _fail(self, reason: str, *, ours: bool = False) -> None:
        call = self.call
        self.detach()
        self._drop()
        if call is not None and ours:
            call.connection = None
            call.sink.answer_cut(reason)
        elif call is not None:
            call.lost(reason, answered=self.answered)

    def _fail_by_own_fault(self) -> None:
        """The request ends with an error instead of waiting for a deadline."""
        _log.exception("an answer could not be handled")
        self._fail(_OWN_FAULT, ours=True)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _fault_of(status: int, headers: list[Header]) -> str:
    """What an answer's head is refused for beyond what the parser checks, or "".

    A coding other than chunked was not asked for, and would be lost with its field, which is for
    this hop only: the client would get bytes that it cannot read.
    """
    if status < 100:
        return f"the engine sent the status {status}, which there is not"
    if status == 101:
        return "the engine sent 101 Switching Protocols, which was not asked for"
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        coding = b", ".join(codings).lower()  # several fields are one list
        if coding != b"chunked":
            return f"the engine sent the transfer coding {coding[:64].decode('latin-1')!a}"
    return ""


def _cut_by_own_fault(sink: AnswerSink) -> None:
    """A sink failed at the end of its answer; its connection may serve another call already."""
    _log.exception("an answer could not be handled")
    sink.answer_cut(_OWN_FAULT)
