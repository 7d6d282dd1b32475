"""Reads the requests of one client: heads by the rules of `strictness`, bodies in pieces.

    head ─► body ─► whole ─► head …

What is read goes to a `RequestTaker`; so does whatever is wrong with it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import httptools

from headrace.edges.http.heads import Header, field_of, find, render
from headrace.edges.http.known_heads import MAX_HEAD_BYTES, is_plain, without_length
from headrace.edges.http.pieces import Pieces
from headrace.edges.http.ports import HttpRequest, Refusal, RequestHead
from headrace.edges.http.strictness import (
    MAX_FRAMING_RATIO,
    body_too_large,
    fault_of,
    framing_too_large,
    head_too_large,
)

if TYPE_CHECKING:
    from headrace.edges.http.server import HttpServer

BYTES_PER_TURN: Final = 32 * 1024
"""So much is read before others have their turn, and the whole of a body whose length is known. In
chunks of one byte, or in the shortest requests, that is some milliseconds; a transport hands over
256 KB at once, and 8 MB if nobody stops it."""
OFFERS_PER_TURN: Final = 8
"""Offers of another protocol that are read before others have their turn: each costs a parser, a
copy and some of the stack."""
MOST_OFFERS: Final = 64
"""Offers of another protocol in one read. Clients offer one with the first request of a connection,
or with each; so many at once are no client's."""

_NO_HEADERS: Final[list[Header]] = []
"""Of a request that has not begun. One for all: most connections that are open wait for one."""
_log = logging.getLogger(__name__)


class RequestTaker(Protocol):
    """Whoever the requests are for."""

    close_after: bool
    """No further request is taken: whatever else is read is thrown away."""

    def judge(self, head: RequestHead) -> Refusal | None:
        """Say whether a request whose form is right is refused by its head alone."""
        ...

    def hold(self, size: int) -> None:
        """So many more bytes of a body are held in memory."""
        ...

    def read_on_later(self) -> None:
        """Others have their turn before `RequestReader.go_on` is called."""
        ...

    def begun(self) -> None:
        """A head was read and its body has begun, or a request began behind another one."""
        ...

    def take(self, request: HttpRequest) -> None:
        """A request was read whole."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """What was read is wrong or too much."""
        ...


class RequestReader:
    """Feeds what a client sends to a parser and hands requests over."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_reads_bytes",
        "_ended",
        "_expects",
        "_first_read",
        "_head",
        "_head_bytes",
        "_in_head",
        "_offers",
        "_parser",
        "_server",
        "_taker",
        "_target",
        "_unread",
        "headers",
    )

    def __init__(self, taker: RequestTaker, server: HttpServer) -> None:
        self._taker = taker
        self._server = server
        # Made when it is needed: most requests have a known head, which needs none.
        self._parser: httptools.HttpRequestParser | None = None
        self._body = Pieces()
        self._unread = b""
        self._offers = 0  # of another protocol, taken out of the present read
        self._ended = False  # the client closes behind what was read, or is told to go
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self.headers = _NO_HEADERS
        """Of the request that has begun."""
        self._head: RequestHead | None = None
        self._body_bytes = 0
        self._body_reads_bytes = 0  # of reads that began behind the head
        self._head_bytes = 0
        self._first_read = b""  # what a message began with, if it was the first byte of a read
        self._in_head = True
        self._expects = False  # its body is kept back until it is asked for

    @property
    def path(self) -> bytes:
        """Of the request that has begun, as far as it was read."""
        return self._target.partition(b"?")[0]

    @property
    def asks_for_head(self) -> bool:
        """Whether the answer to the request that has begun has no body."""
        return self._head is not None and self._head.method == b"HEAD"

    @property
    def is_between(self) -> bool:
        """Whether no request has begun, and none is left for `go_on`."""
        return self._head_bytes == 0 and not self._unread

    @property
    def has_unread(self) -> bool:
        """Whether something is left for `go_on`."""
        return bool(self._unread)

    @property
    def patience_s(self) -> float:
        """How long the request that has begun, or the next one, may take to go on."""
        limits = self._server.limits
        if self._head_bytes == 0:
            return limits.idle_s
        return limits.head_s if self._in_head else limits.body_s

    def must_ask(self) -> RequestHead | None:
        """The head whose client waits to be asked for the body; once."""
        expects = self._expects and not self._body_bytes
        self._expects = self._expects and not expects
        return self._head if expects else None

    def feed(self, data: bytes, offers: int = 0) -> None:
        """Read what has come. `offers` of another protocol were taken out before it."""
        if self._ended:
            return
        if self._unread:
            self._unread += data
            return
        self._offers = offers
        if len(data) <= BYTES_PER_TURN:
            self._parse(data)
        else:
            self._parse(data[:BYTES_PER_TURN])
            self._put_off(data[BYTES_PER_TURN:])

    def _put_off(self, rest: bytes) -> None:
        """Read what a body of known length takes of it now, and the rest later."""
        if not self._unread and not self._is_done:
            left = self._body_left()
            if left:
                self._parse(rest[:left])
                rest = rest[left:]
        if self._unread:  # as many offers as a turn may have were taken out before it
            self._unread += rest
        elif rest and not self._is_done:
            self._unread = rest
            self._taker.read_on_later()

    def _body_left(self) -> int:
        """How much of the present request's body is yet to come, if its head says so."""
        length = None if self._head is None else find(self._head.headers, b"content-length")
        return 0 if length is None else int(length) - self._body_bytes

    def go_on(self) -> None:
        """Read what was left when others had their turn."""
        unread, self._unread = self._unread, b""
        if unread and not self._is_done:
            self.feed(unread, self._offers)

    @property
    def _is_done(self) -> bool:
        """Whether whatever else comes is thrown away."""
        return self._ended or self._taker.close_after

    def end(self) -> None:
        """Read no more: an error follows what was taken."""
        self._ended = True
        self.let_go()

    def let_go(self) -> None:
        """Forget what was read of a request that will not be taken."""
        self._body.clear()
        self._unread = b""

    def _parse(self, data: bytes) -> None:
        limits = self._server.limits
        if self._head_bytes == 0:
            self._first_read = data[:MAX_HEAD_BYTES]  # the body would be held twice
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._body_reads_bytes += len(data)
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(parser, data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError:
            _log.exception("a request could not be read")
            message = "The gateway failed to read this request."
            self._taker.refuse(Refusal(500, message, "internal"))
            return
        except httptools.HttpParserError as error:
            if self._ended:  # what follows is thrown away, and those before it are answered
                return
            message = f"The request is not valid HTTP/1.1: {error}."
            self._taker.refuse(Refusal(400, message, "bad_http"))
            return
        if self._head_bytes + self._body_reads_bytes > limits.max_head_bytes:
            self._check_framing()

    def _check_framing(self) -> None:
        """Refuse a head that goes on too long, and a body that is hardly any."""
        limits = self._server.limits
        framing_bytes = self._body_reads_bytes - self._body_bytes * (1 + MAX_FRAMING_RATIO)
        if self._in_head and self._head_bytes > limits.max_head_bytes:
            self._taker.refuse(head_too_large(limits))
        elif framing_bytes > limits.max_head_bytes:
            self._taker.refuse(framing_too_large(limits))

    # ------------------------------------------------------------ parser callbacks

    def on_message_begin(self) -> None:
        self.headers = []
        if not self._head_bytes:
            # It begins behind another one in a read: what comes next does not begin a message.
            self._head_bytes = 1
            self._taker.begun()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer: nothing may be added to a head that was judged
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > self._server.limits.max_head_bytes:
                self._taker.refuse(head_too_large(self._server.limits))
            return
        if len(self.headers) <= self._server.limits.max_headers:  # one more says: too many
            self.headers.append(field_of(name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 1  # a request is being read; trailers count from here
        parser, target = self._parser, self._target
        assert parser is not None
        version = parser.get_http_version()
        path = target.partition(b"?")[0]
        head = self._head = RequestHead(
            parser.get_method(),
            target,
            path,
            self.headers,
            keep_alive=False,
            http_1_0=version == "1.0",
        )
        refusal = fault_of(version, target, self.headers, self._server.limits)
        refusal = refusal or self._taker.judge(head)
        if refusal is not None:
            self._taker.refuse(refusal)
            return
        expect = find(self.headers, b"expect")
        if expect is not None and expect.lower() == b"100-continue":
            # Nobody expects anything in HTTP/1.0, and with an offer the head is read once more.
            self._expects = not head.http_1_0 and not parser.should_upgrade()
        self._taker.begun()

    def on_body(self, body: bytes) -> None:
        if self._is_done:
            return
        server, size = self._server, len(body)
        self._body_bytes += size
        self._taker.hold(size)
        if self._body_bytes > server.limits.max_body_bytes:
            self._taker.refuse(body_too_large(server.limits))
        elif server.buffered_bytes > server.limits.max_buffered_bytes:
            message = "The gateway holds as many request bodies as it may (limits.max_buffered)."
            self._taker.refuse(Refusal(503, message, "overloaded"))
        else:
            self._body.add(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self._is_done or parser.should_upgrade():
            return
        head = self._head
        assert head is not None
        # The parser answers this rightly only in here.
        head.keep_alive = parser.should_keep_alive()
        self._ended = not head.keep_alive
        if self._first_read:
            self._keep_known(head)
        request = HttpRequest(head, self._body.take(), self._body_bytes, time.monotonic())
        self._reset()
        self._taker.take(request)

    def _keep_known(self, head: RequestHead) -> None:
        """Remember a plain head of a request that leaves its connection open."""
        lasts = head.keep_alive and not head.http_1_0
        if lasts and head.method == b"POST" and is_plain(head.headers):
            known = replace(head, headers=without_length(head.headers), notes=None)
            self._server.known_heads.keep(self._first_read, known)

    def _ignore_upgrade(self, parser: httptools.HttpRequestParser, rest: bytes) -> None:
        """Read a request that offers another protocol as if it did not.

        A server may (RFC 9110 section 7.8); Java's client offers h2c with every first request. The
        parser takes what follows for the other protocol, so it is given the head anew. Without
        Upgrade there is no offer, and Connection still says which other fields go no further.
        """
        method, headers = parser.get_method(), self.headers
        if self._is_done:
            return
        if method == b"CONNECT":
            message = "CONNECT is for proxies; this is a server."
            self._taker.refuse(Refusal(405, message, "bad_method"))
            return
        if self._offers == MOST_OFFERS:
            message = "Too many offers of another protocol at once."
            self._taker.refuse(Refusal(400, message, "bad_http"))
            return
        kept = [field for field in headers if field[0] != b"upgrade"]
        version = parser.get_http_version().encode()
        head = render(b"%b %b HTTP/%b\r\n" % (method, self._target, version), kept)
        self._parser = None
        self._body.clear()
        self._reset()
        self._offers += 1
        if self._offers % OFFERS_PER_TURN:
            self._parse(head + rest)
        else:
            self._unread = head + rest
            self._taker.read_on_later()
