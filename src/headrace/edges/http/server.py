"""The client side of the byte path: one `asyncio.Protocol` per client connection.

A connection serves one request at a time; pipelined ones wait in a bounded queue. While an
answer is under way the connection keeps reading, so that a client that leaves is seen at once.

    head ─► body ─► busy (the handler answers) ─► idle ─► head …
       any failure: an error answer where one can still be sent, then close
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from headrace.edges.http.cors import CorsPolicy
from headrace.edges.http.errors import error_body
from headrace.edges.http.heads import Header, find, render, status_line
from headrace.edges.http.socket_file import SocketFile
from headrace.edges.http.strictness import fault_of, head_too_large
from headrace.edges.http.tls import HANDSHAKE_S

PIPELINE_DEPTH = 8
"""Requests of one connection that may wait behind the one being answered."""
BACKLOG = 1024
"""Connections that the system keeps for us until they are accepted."""

_log = logging.getLogger(__name__)
_JSON = (b"content-type", b"application/json")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one client connection may cost."""

    max_connections: int
    max_connections_per_client: int
    max_body_bytes: int
    max_head_bytes: int
    max_headers: int
    client_buffer_bytes: int
    head_s: float
    body_s: float
    idle_s: float
    write_s: float


@dataclass(slots=True)
class HttpRequest:
    """One request, read whole. `received_s` is on `time.monotonic`'s scale."""

    method: bytes
    target: bytes
    path: bytes
    """The target without its query."""
    headers: list[Header]
    pieces: list[bytes]
    """The body as it arrived."""
    body_bytes: int
    keep_alive: bool
    http_1_0: bool
    received_s: float

    @property
    def body(self) -> bytes:
        """The body in one piece; a copy if it came in several."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a field; `name` in lower case."""
        return find(self.headers, name)


class Exchange(Protocol):
    """Whoever answers a request; told what the client does meanwhile."""

    def client_gone(self) -> None:
        """The client closed or broke its connection; nothing can be sent any more."""
        ...

    def client_slow(self) -> None:
        """Too many bytes wait for the client: stop producing."""
        ...

    def client_ready(self) -> None:
        """The client has caught up: go on."""
        ...


class Handler(Protocol):
    """The application behind a server."""

    def handle(self, request: HttpRequest, connection: ClientConnection) -> Exchange | None:
        """Answer now and return None, or return the exchange that will."""
        ...


class HttpServer:
    """Listens, keeps the set of connections and enforces their limits and deadlines."""

    def __init__(
        self, handler: Handler, limits: ConnectionLimits, cors: CorsPolicy | None = None
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.cors = cors
        self.connections: set[ClientConnection] = set()
        self.closing = False
        self._per_client: dict[str, int] = {}
        self._listener: asyncio.Server | None = None
        self._socket_file: SocketFile | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen and return the port. Raises `OSError` when the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: ClientConnection(self),
            host,
            port,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_S if tls else None,
        )
        return int(self._listener.sockets[0].getsockname()[1])

    async def start_unix(self, path: str, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a Unix socket. Raises `OSError` when it cannot be had."""
        loop = asyncio.get_running_loop()
        self._socket_file = SocketFile(path)
        self._listener = await loop.create_unix_server(
            lambda: ClientConnection(self),
            sock=self._socket_file.socket,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_S if tls else None,
        )

    def stop_listening(self) -> None:
        """Refuse new connections; close the idle ones, let the busy ones finish their answer."""
        self.closing = True
        if self._listener is not None:
            self._listener.close()
        if self._socket_file is not None:
            self._socket_file.remove()
        for connection in tuple(self.connections):
            connection.close_when_idle()

    def abort_all(self) -> None:
        """Cut every connection that is left."""
        for connection in tuple(self.connections):
            connection.abort()

    def sweep(self, now: float) -> None:
        """Expire connections whose deadline has passed; called a few times a second."""
        for connection in [c for c in self.connections if c.deadline_s < now]:
            connection.expire()

    def admit(self, connection: ClientConnection, client: str) -> str | None:
        """Count a new connection; return why it is refused, or None."""
        count = self._per_client.get(client, 0) + 1
        self._per_client[client] = count
        self.connections.add(connection)
        if len(self.connections) > self.limits.max_connections:
            return f"this gateway serves {self.limits.max_connections} connections at once"
        if count > self.limits.max_connections_per_client:
            return f"one address may open {self.limits.max_connections_per_client} connections"
        return None

    def forget(self, connection: ClientConnection, client: str) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        left = self._per_client.get(client, 1) - 1
        if left > 0:
            self._per_client[client] = left
        else:
            self._per_client.pop(client, None)


class ClientConnection(asyncio.Protocol):
    """One client connection: parses requests, writes answers."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_chunked",
        "_client",
        "_close_after",
        "_current",
        "_exchange",
        "_head_bytes",
        "_head_only",
        "_headers",
        "_http_1_0",
        "_in_head",
        "_parser",
        "_pending_head",
        "_queue",
        "_server",
        "_starting",
        "_target",
        "_transport",
        "deadline_s",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._client = ""
        self._queue: deque[HttpRequest] = deque()
        self._current: HttpRequest | None = None
        self._exchange: Exchange | None = None
        self._starting = False
        self._close_after = False
        self._chunked = False
        self._head_only = False
        self._pending_head = b""
        self.deadline_s = math.inf
        self._reset_message()

    def _reset_message(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._http_1_0 = False
        self._in_head = True

    # ------------------------------------------------------------ transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._server.limits.client_buffer_bytes)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if peer else ""
        refusal = self._server.admit(self, self._client)
        self.deadline_s = time.monotonic() + self._server.limits.idle_s
        if refusal is not None:
            self._refuse(429, f"Too many connections: {refusal}.", "too_many_connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self, self._client)
        self._transport = None
        self._queue.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        if self._close_after and self._current is None:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes == len(data) and self._current is None:
                self.deadline_s = time.monotonic() + self._server.limits.head_s
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # RFC 9110 section 7.8: a server may ignore Upgrade. Java's client offers h2c so.
            rest = data[upgrade.args[0] :]
            self._parser = httptools.HttpRequestParser(self)
            if rest:
                self.data_received(rest)
            return
        except httptools.HttpParserCallbackError:
            _log.exception("a request could not be read")
            self._refuse(500, "The gateway failed to read this request.", "internal_error")
            return
        except httptools.HttpParserError as error:
            self._refuse(400, f"The request is not valid HTTP/1.1: {error}.", "bad_http")
            return
        if self._in_head and self._head_bytes > self._server.limits.max_head_bytes:
            self._refuse(431, head_too_large(self._server.limits.max_head_bytes), "head_too_large")

    def pause_writing(self) -> None:
        self.deadline_s = time.monotonic() + self._server.limits.write_s
        if self._exchange is not None:
            self._exchange.client_slow()

    def resume_writing(self) -> None:
        self.deadline_s = math.inf
        if self._exchange is not None:
            self._exchange.client_ready()

    # ------------------------------------------------------------ parser callbacks

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        if len(headers) <= self._server.limits.max_headers:  # one too many says that there are
            headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        limits = self._server.limits
        if len(self._headers) > limits.max_headers:
            message = f"The request has over {limits.max_headers} header fields"
            self._refuse(431, f"{message} (limits.max_headers).", "too_many_headers")
            return
        version = self._parser.get_http_version()
        self._http_1_0 = version == "1.0"
        fault = fault_of(version, self._target, self._headers, limits.max_head_bytes)
        if fault is not None:
            status, message, code = fault
            self._refuse(status, message, code)
            return
        self.deadline_s = time.monotonic() + limits.body_s
        length = find(self._headers, b"content-length")
        if length is not None and length.isdigit() and int(length) > limits.max_body_bytes:
            self._refuse_large_body()
        elif find(self._headers, b"expect") is not None and self._transport is not None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._server.limits.max_body_bytes:
            self._refuse_large_body()
        elif not self._close_after:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._close_after:
            return
        parser = self._parser
        request = HttpRequest(
            method=parser.get_method(),
            target=self._target,
            path=self._target.partition(b"?")[0],
            headers=self._headers,
            pieces=self._body,
            body_bytes=self._body_bytes,
            keep_alive=parser.should_keep_alive(),
            http_1_0=self._http_1_0,
            received_s=time.monotonic(),
        )
        self._reset_message()
        self.deadline_s = math.inf
        self._queue.append(request)
        if len(self._queue) > PIPELINE_DEPTH and self._transport is not None:
            self._transport.pause_reading()
        self._start_next()

    # ------------------------------------------------------------ answering

    def start_response(self, status: int, headers: list[Header], *, length: int | None) -> None:
        """Begin the answer. `length` None: chunked, or until close for an HTTP/1.0 client.

        The head leaves together with the first bytes of the body.
        """
        request = self._current
        assert request is not None
        self._chunked = False
        framing: list[Header] = []
        if length is not None:
            framing.append((b"content-length", b"%d" % length))
        elif request.http_1_0:
            self._close_after = True
        else:
            self._chunked = True
            framing.append((b"transfer-encoding", b"chunked"))
        if not request.keep_alive or self._server.closing:
            self._close_after = True
        if self._close_after:
            framing.append((b"connection", b"close"))
        elif request.http_1_0:
            framing.append((b"connection", b"keep-alive"))
        self._head_only = request.method == b"HEAD" or status in (204, 304)
        if self._server.cors is not None:
            framing += self._server.cors.headers_for(request.header(b"origin"))
        self._pending_head = render(status_line(status), [*headers, *framing])

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
        self._close_after = self._close_after or close
        transport = self._transport
        if transport is not None:
            head, self._pending_head = self._pending_head, b""
            if self._head_only:
                last = b""
            elif self._chunked:
                last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
            if head or last:
                transport.write(head + last)
        self._current = None
        self._exchange = None
        if self._close_after:
            self.close()
        elif not self._starting:
            self._start_next()

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send a whole answer."""
        self.start_response(status, headers, length=len(body))
        self.finish(body)

    def abort(self) -> None:
        """Cut the connection: the answer cannot be completed and the client must notice."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close once everything written has been sent."""
        self.deadline_s = time.monotonic() + self._server.limits.write_s
        if self._transport is not None:
            self._transport.close()

    def close_when_idle(self) -> None:
        """Close now if no request is being read or answered, else after the present answer."""
        if self._current is None and self._head_bytes == 0:
            self.close()

    def expire(self) -> None:
        """The deadline has passed: say so where the client can still read it."""
        self.deadline_s = math.inf
        if self._current is not None or self._close_after:
            self.abort()
        elif self._head_bytes or not self._in_head:
            self._refuse(408, "The request did not arrive in time.", "request_timeout")
        else:
            self.close()

    # ------------------------------------------------------------ inside

    def _start_next(self) -> None:
        # A loop, not recursion: an answer given at once returns here for the next request.
        if self._starting or self._current is not None:
            return
        self._starting = True
        try:
            while self._queue and self._current is None and not self._close_after:
                if len(self._queue) == PIPELINE_DEPTH + 1 and self._transport is not None:
                    self._transport.resume_reading()
                self._current = request = self._queue.popleft()
                exchange = self._handle(request)
                # The exchange may have answered within `handle`.
                self._exchange = exchange if self._current is request else None
        finally:
            self._starting = False
        if self._current is None and not self._close_after and self._transport is not None:
            self.deadline_s = time.monotonic() + self._server.limits.idle_s

    def _handle(self, request: HttpRequest) -> Exchange | None:
        cors = self._server.cors
        try:
            if (
                cors is not None
                and request.method == b"OPTIONS"
                and request.header(b"access-control-request-method") is not None
            ):
                self._answer_preflight(request, cors)
                return None
            return self._server.handler.handle(request, self)
        except Exception:  # noqa: BLE001 - whatever went wrong, a client must not wait for ever
            _log.exception("a request could not be handled")
            if self._pending_head or self._current is not request:
                self.abort()
            else:
                body = error_body(500, "The gateway failed to handle this request.")
                self.respond(500, [_JSON], body)
            return None

    def _answer_preflight(self, request: HttpRequest, cors: CorsPolicy) -> None:
        asked = request.header(b"access-control-request-headers")
        headers = cors.preflight(request.header(b"origin"), asked)
        if headers is None:
            message = "This origin may not use the API (listen.cors_origins)."
            self.respond(403, [_JSON], error_body(403, message, code="cors_refused"))
        else:
            self.respond(204, headers, b"")

    def _refuse_large_body(self) -> None:
        limit = self._server.limits.max_body_bytes
        self._refuse(
            413,
            f"The request body is over the limit of {limit} bytes (limits.max_body).",
            "body_too_large",
        )

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer an error that concerns the connection itself, then close."""
        if self._close_after or self._transport is None:
            return
        self._close_after = True
        self._body.clear()
        if self._current is not None:
            # An answer is under way: a second one would corrupt it.
            self._queue.clear()
            return
        body = error_body(status, message, code=code)
        headers = [_JSON, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._transport.write(render(status_line(status), headers) + body)
        self.close()
