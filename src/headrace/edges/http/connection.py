"""The client side of the byte path: one `ByteStream` per client connection.

A connection serves one request at a time; pipelined ones wait in a bounded queue. While an
answer is under way the connection keeps reading, so that a client that leaves is seen at once;
where the queue is full, it is looked for now and then.

    head ─► body ─► busy (the handler answers) ─► idle ─► head …
       any failure: an error answer where one can still be sent, then linger, then close

`deadline_s` bounds every one of these states; the server's sweep enforces it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from headrace.edges.http.client_place import client_place
from headrace.edges.http.cors import is_preflight
from headrace.edges.http.errors import error_body
from headrace.edges.http.hangup import has_left, unsent_bytes
from headrace.edges.http.heads import (
    BODILESS,
    Header,
    find,
    length_line,
    render,
    render_fields,
    status_line,
)
from headrace.edges.http.pieces import NO_PIECES
from headrace.edges.http.ports import (
    Exchange,
    HttpRequest,
    Refusal,
    RequestHead,
)
from headrace.edges.http.request_reader import RequestReader

if TYPE_CHECKING:
    from headrace.edges.http.server import HttpServer

PIPELINE_DEPTH: Final = 8
"""Requests of one connection that may wait behind the one being answered."""
HANGUP_CHECK_S: Final = 0.5
"""So often it is looked whether a client has left from whom nothing is read, and whether one takes
what waits for it."""
LINGER_S: Final = 5.0
"""After an error, what the client still sends is thrown away for so long: closing at once would
reset the connection, and the client might never read the error (RFC 9112 section 9.6)."""

NEARBY: Final = "unix"
"""Stands for the address of whoever comes by a Unix socket."""

_log = logging.getLogger(__name__)
_JSON = (b"content-type", b"application/json")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection:
    """One client connection: parses requests, writes answers."""

    __slots__ = (
        "_chunked",
        "_closing",
        "_current",
        "_exchange",
        "_head_only",
        "_held_bytes",
        "_last_words",
        "_moved_s",
        "_pending_head",
        "_queue",
        "_reader",
        "_server",
        "_slow",
        "_starting",
        "_transport",
        "_unsent_bytes",
        "client",
        "close_after",
        "deadline_s",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._reader = RequestReader(self, server)
        self._transport: asyncio.Transport | None = None
        self.client = NEARBY
        """Where it comes from: a `client_place`, or `NEARBY`."""
        self._queue: list[HttpRequest] = []  # a deque takes 600 bytes, a stream all in all 10,000
        self._current: HttpRequest | None = None
        self._exchange: Exchange | None = None
        self._starting = False
        self._slow = False  # too many bytes wait for the client
        self.close_after = False  # no further request is taken
        self._closing = False  # nothing more is written
        self._chunked = False
        self._head_only = False
        self._pending_head = b""
        self._last_words = b""
        """An error that is answered once those before it are; nothing more is read."""
        self._held_bytes = 0
        self._unsent_bytes = 0
        """What had not reached a slow client at the last look."""
        self._moved_s = 0.0
        """When it had taken something last, as far as was looked."""
        self.deadline_s = math.inf

    # ------------------------------------------------------------ transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._server.limits.client_buffer_bytes)
        peer = transport.get_extra_info("peername")
        self.client = client_place(str(peer[0])) if peer else NEARBY
        refusal = self._server.admit(self, self.client)
        self.deadline_s = monotonic() + self._server.limits.idle_s
        if refusal is not None:
            message = f"Too many connections: {refusal}."
            self.refuse(Refusal(429, message, "too_many_connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self, self.client)
        self._release(self._held_bytes)
        self._transport = None
        self._reader.let_go()
        self._queue.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        if self.close_after or self._closing:
            return
        reader = self._reader
        if reader.is_between and self._current is None and not self._slow:
            if self._take_known(data):
                return
            self.deadline_s = monotonic() + self._server.limits.head_s
        reader.feed(data)

    def eof_received(self) -> bool:
        """The client sends no more: it has left, and its engine stops at once.

        It may also have closed its side alone, as `nc -N` does, and wait for the answer. Nothing
        but a write tells the two apart, and until an answer begins there is nothing to write. So
        what is answered at once reaches it, and what an engine would work on for nobody does not:
        nginx with `proxy_ignore_client_abort off` and uvicorn do the same, and RFC 9112
        section 9.5 lets either side close at any time.
        """
        return False

    def pause_writing(self) -> None:
        self._slow = True
        self._watch_writing()
        if self._exchange is not None:
            self._exchange.client_slow()

    def resume_writing(self) -> None:
        self._slow = False
        if self._exchange is not None:
            self._look_later()
            self._exchange.client_ready()
        elif not self._closing:
            self._start_next()

    # ------------------------------------------------------------ what the reader tells

    def judge(self, head: RequestHead) -> Refusal | None:
        """Say whether a request is refused by its head alone."""
        if self._server.cors is not None and is_preflight(head):
            return None  # it comes without a key
        return self._server.handler.refusal_of(head)

    def hold(self, size: int) -> None:
        """So many more bytes of a body are held."""
        self._held_bytes += size
        self._server.buffered_bytes += size

    def read_on_later(self) -> None:
        """Others have their turn before what was received is read on."""
        if self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def begun(self) -> None:
        """A request goes on, or a next one has begun."""
        self._rest()

    def take(self, request: HttpRequest) -> None:
        """Queue a request that was read whole."""
        self._queue.append(request)
        if len(self._queue) > PIPELINE_DEPTH and self._transport is not None:
            self._transport.pause_reading()
            self._look_later()
        self._start_next()

    def _read_on(self) -> None:
        self._reader.go_on()
        if len(self._queue) <= PIPELINE_DEPTH:
            self._resume_reading()

    def _resume_reading(self) -> None:
        """Read again, unless something of what was received is left to be read first."""
        if self._transport is not None and not self._reader.has_unread:
            self._transport.resume_reading()

    # ------------------------------------------------------------ known heads

    def _take_known(self, data: bytes) -> bool:
        """Serve `data` without the parser if it is one whole request with a known head.

        The parser stands between two messages then and goes on standing there.
        """
        server = self._server
        found = server.known_heads.match(data)
        if found is None:
            return False
        head, start = found
        size = len(data) - start
        limits = server.limits
        if size > limits.max_body_bytes or server.buffered_bytes + size > limits.max_buffered_bytes:
            return False
        if server.handler.refusal_of(head) is not None:
            return False
        self.hold(size)
        # Nothing is waiting before it.
        self._starting = True
        self._serve(HttpRequest(head, [data[start:]], size, monotonic()))
        self._starting = False
        if self._current is None:
            self._rest()
        return True

    # ------------------------------------------------------------ answering

    def forget_body(self) -> None:
        """The body of the request being answered is wanted no more."""
        request = self._current
        if request is not None and request.body_bytes:
            size, request.body_bytes = request.body_bytes, 0
            request.pieces = NO_PIECES
            self._held_bytes -= size
            self._server.buffered_bytes -= size

    def start_response(self, status: int, headers: list[Header], *, length: int | None) -> None:
        """Begin the answer. `length` None: chunked, or until close for an HTTP/1.0 client.

        The head leaves together with the first bytes of the body.
        """
        self.start_rendered(status, render_fields(headers), length=length)

    def start_rendered(self, status: int, fields: bytes, *, length: int | None) -> None:
        """Begin the answer like `start_response`, with fields that are written out already."""
        request = self._current
        assert request is not None
        asked = request.head
        self._chunked = False
        framing = b""
        if status in BODILESS:
            pass  # RFC 9110 section 8.6: there is no content, and 304 would tell that of another
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif asked.http_1_0:
            self.close_after = True
        else:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        server = self._server
        if not asked.keep_alive or server.closing:
            self.close_after = True
        if self.close_after:
            framing += b"connection: close\r\n"
        elif asked.http_1_0:
            framing += b"connection: keep-alive\r\n"
        self._head_only = asked.method == b"HEAD" or status in BODILESS
        if server.cors is not None:
            framing += render_fields(server.cors.headers_for(request.header(b"origin")))
        self._pending_head = b"%b%b%b\r\n" % (status_line(status), fields, framing)

    @property
    def write_chunk(self) -> Callable[[bytes], None] | None:
        """Sends a piece of the body in the chunk that it came in, framing and all.

        None where the answer is not chunked, or its head was not sent yet. Not to be called any
        more once the exchange was told that the client is gone, or the answer is finished.
        """
        passes = self._chunked and not self._pending_head and not self._head_only
        return self._transport.write if passes and self._transport is not None else None

    def write(self, data: bytes) -> None:
        """Send a piece of the body, not empty."""
        transport = self._transport
        if transport is None:
            return
        head, self._pending_head = self._pending_head, b""
        if self._head_only:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        transport.write(head + data if head else data)

    def finish(self, last: bytes = b"", *, close: bool = False) -> None:
        """End the answer, with a last piece of the body if there is one."""
        self.close_after = self.close_after or close or self._server.closing
        transport = self._transport
        if transport is not None:
            head, self._pending_head = self._pending_head, b""
            if self._head_only:
                last = b""
            elif self._chunked:
                last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
            if head or last:
                transport.write(head + last)
        self._conclude()

    def _conclude(self) -> None:
        """The answer was written whole: go on with the next request."""
        request = self._current
        if request is not None and request.body_bytes:
            self.forget_body()
        self._current = self._exchange = None
        if self.close_after:
            self.close()
        elif self._starting:
            pass  # the caller goes on with the next one
        elif self._queue:
            self._start_next()
        else:
            self._rest()

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send a whole answer."""
        self.start_response(status, headers, length=len(body))
        self.finish(body)

    def respond_rendered(self, status: int, fields: bytes, body: bytes) -> None:
        """Send a whole answer with fields that are written out already."""
        request, server, transport = self._current, self._server, self._transport
        assert request is not None
        head = request.head
        lasts = head.keep_alive and not head.http_1_0 and not self.close_after
        plain = lasts and head.method == b"POST" and status == 200
        if plain and server.cors is None and transport is not None and not server.closing:
            # As `start_rendered` would have it; most answers are of this kind.
            length = length_line(len(body))
            transport.write(b"".join((status_line(status), fields, length, body)))
            self._conclude()
            return
        self.start_rendered(status, fields, length=len(body))
        self.finish(body)

    def abort(self) -> None:
        """Cut the connection: the answer cannot be completed and the client must notice."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close once everything written has been sent, within the time allowed for writing."""
        self._closing = True
        self._watch_writing()
        if self._transport is not None:
            self._transport.close()

    def close_when_idle(self) -> None:
        """Close now if no request is being read or answered, else after the present answer."""
        if self._current is None and not self._queue and self._reader.is_between:
            self.close()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being read or answered, or an answer has not left as a whole."""
        transport = self._transport
        if transport is None:
            return False
        if transport.get_write_buffer_size():
            return True
        begun = self._current is not None or bool(self._queue) or not self._reader.is_between
        return begun and not self._closing

    def stop(self) -> None:
        """The server stops: a request that is not read yet will not be answered."""
        if self._current is None and not self._closing and not self._reader.is_between:
            message = "The gateway stops; it has not read the whole request."
            self.refuse(Refusal(503, message, "gateway_stops"))

    def expire(self) -> None:
        """The deadline has passed: say so where the client can still read it."""
        busy = self._current is not None and not self._slow and not self._closing
        if self._still_takes():
            pass
        elif busy and self._transport is not None and not has_left(self._transport):
            self._look_later()
        elif self._current is not None or self._slow or self.close_after or self._closing:
            self.deadline_s = math.inf
            self.abort()
        elif not self._reader.is_between:
            self.refuse(Refusal(408, "The request did not arrive in time.", "request_timeout"))
        else:
            self.close()

    # ------------------------------------------------------------ inside

    def _watch_writing(self) -> None:
        """Something waits for the client: see to it that it is taken."""
        transport, now = self._transport, monotonic()
        self._moved_s = now
        self._unsent_bytes = 0 if transport is None else unsent_bytes(transport)
        self.deadline_s = now + min(HANGUP_CHECK_S, self._server.limits.write_s)

    def _still_takes(self) -> bool:
        """Whether the client takes what waits for it, if anything does; then it is looked again."""
        transport, limit_s = self._transport, self._server.limits.write_s
        if transport is None or not (self._slow or transport.is_closing()):
            return False
        now, unsent = monotonic(), unsent_bytes(transport)
        if unsent < self._unsent_bytes:
            self._moved_s = now
        self._unsent_bytes = unsent
        self.deadline_s = min(now + HANGUP_CHECK_S, self._moved_s + limit_s)
        return now - self._moved_s < limit_s

    def _start_next(self) -> None:
        # A loop, not recursion: an answer given at once returns here for the next request.
        if self._starting or self._current is not None:
            return
        self._starting = True
        try:
            while self._queue and self._can_start():
                if len(self._queue) == PIPELINE_DEPTH + 1:
                    self._resume_reading()
                self._serve(self._queue.pop(0))
        finally:
            self._starting = False
        self._rest()
        if len(self._queue) > PIPELINE_DEPTH:
            self._look_later()

    def _serve(self, request: HttpRequest) -> None:
        """Have a request answered; never raises."""
        self._current = request
        self.deadline_s = math.inf
        exchange, cors = None, self._server.cors
        try:
            if cors is not None and is_preflight(request.head):
                self.respond(*cors.preflight(request.head))
            else:
                exchange = self._server.handler.handle(request, self)
        except Exception:  # noqa: BLE001 - whatever went wrong, a client must not wait for ever
            _log.exception("a request could not be handled")
            self.fail(request)
        self._exchange = exchange if self._answers(request) else None

    def _answers(self, request: HttpRequest) -> bool:
        """Whether this request is being answered: `handle` may have done so, or another began."""
        return self._current is request

    def _rest(self) -> None:
        """Nothing is being answered: the next request may take its time, unless it has begun."""
        if self._current is not None or self.close_after or self._slow:
            return
        if self._last_words:
            self._say_last_words()
            return
        head = self._reader.must_ask()
        if head is not None and self._transport is not None:
            refusal = self._refusal_without_body(head)
            if refusal is not None:
                self.refuse(refusal)
                return
            self._transport.write(_CONTINUE)
        self.deadline_s = monotonic() + self._reader.patience_s

    def _refusal_without_body(self, head: RequestHead) -> Refusal | None:
        """Why a body need not be sent (RFC 9110 section 10.1.1)."""
        if self._server.cors is not None and is_preflight(head):
            return None
        return self._server.handler.refusal_without_body(head)

    def _look_later(self) -> None:
        """An answer may take its time; while reading is paused `expire` looks for the client."""
        if self._current is not None and not self._slow:
            paused = len(self._queue) > PIPELINE_DEPTH
            self.deadline_s = monotonic() + HANGUP_CHECK_S if paused else math.inf

    def _can_start(self) -> bool:
        """A client that does not read what it asked for gets no further answers."""
        return self._current is None and not self.close_after and not self._slow

    def fail(self, request: HttpRequest) -> None:
        """A fault of ours ends this request, with an error answer if none has begun."""
        if self._current is not request:
            return
        if self._pending_head:
            self.abort()
            return
        refusal = Refusal(500, "The gateway failed to handle this request.", "internal")
        headers = self._server.handler.refused(refusal, request.headers)
        body = error_body(refusal.status, refusal.message, path=request.path, code=refusal.code)
        self.respond(500, [_JSON, *headers], body)

    def refuse(self, refusal: Refusal) -> None:
        """Answer an error that concerns the connection itself, then linger and close.

        Requests before it were taken whole: theirs are the answers before it.
        """
        if self.close_after or self._transport is None or self._last_words:
            return
        self._last_words = self._rendered(refusal)
        self._let_go_unread()
        if self._current is None and not self._queue:
            self._say_last_words()
        else:
            self._transport.resume_reading()  # its end is to be seen; all else is thrown away

    def _say_last_words(self) -> None:
        transport = self._transport
        if transport is not None:
            self.close_after = True
            transport.write(self._last_words)
            self._linger()

    def _rendered(self, refusal: Refusal) -> bytes:
        """An error answer to the request that has begun; the connection closes behind it."""
        reader, cors = self._reader, self._server.cors
        extra = self._server.handler.refused(refusal, reader.headers)
        body = error_body(
            refusal.status,
            refusal.message,
            path=reader.path,
            code=refusal.code,
            param=refusal.param,
        )
        if cors is not None:
            extra = [*extra, *cors.headers_for(find(reader.headers, b"origin"))]
        framing = [_JSON, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head = render(status_line(refusal.status), [*extra, *framing])
        return head if reader.asks_for_head else head + body

    def _let_go_unread(self) -> None:
        """Forget what was not read whole, and what is still to come; its bytes are held no more."""
        self._reader.end()
        taken = sum(request.body_bytes for request in self._queue)
        if self._current is not None:
            taken += self._current.body_bytes
        self._release(self._held_bytes - taken)

    def _linger(self) -> None:
        """Nothing more is written; what the client still sends is thrown away for a while."""
        self._closing = True
        self.deadline_s = monotonic() + LINGER_S
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def _release(self, size: int) -> None:
        """Bodies of this size are no longer held."""
        self._held_bytes -= size
        self._server.buffered_bytes -= size
