"""What passes between a listener and the application behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headrace.edges.http.heads import Header, find

if TYPE_CHECKING:
    from headrace.edges.http.connection import ClientConnection


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What client connections may cost, one by one and together."""

    max_connections: int
    max_connections_per_client: int
    max_body_bytes: int
    max_buffered_bytes: int
    max_head_bytes: int
    max_headers: int
    client_buffer_bytes: int
    head_s: float
    body_s: float
    idle_s: float
    write_s: float


@dataclass(slots=True, eq=False)
class RequestHead:
    """The head of a request. Many requests may share one, so nobody changes what it says.

    One that is shared has no Content-Length among its `headers`.
    """

    method: bytes
    target: bytes
    path: bytes
    """The target without its query."""
    headers: list[Header]
    keep_alive: bool
    http_1_0: bool
    notes: Any = None
    """What the application has made of it, kept as long as the head is known; its business."""


@dataclass(slots=True, eq=False)
class AnswerHead:
    """The head of an answer. Many answers may share one, as in `RequestHead`."""

    status: int
    headers: list[Header]
    notes: Any = None
    """As in `RequestHead`."""


@dataclass(slots=True, eq=False)
class HttpRequest:
    """One request, read whole. `received_s` is on `time.monotonic`'s scale."""

    head: RequestHead
    pieces: list[bytes]
    """The body as it arrived; short pieces are joined (`Pieces`)."""
    body_bytes: int
    received_s: float

    @property
    def method(self) -> bytes:
        """See `RequestHead`."""
        return self.head.method

    @property
    def target(self) -> bytes:
        """See `RequestHead`."""
        return self.head.target

    @property
    def path(self) -> bytes:
        """See `RequestHead`."""
        return self.head.path

    @property
    def headers(self) -> list[Header]:
        """See `RequestHead`."""
        return self.head.headers

    @property
    def body(self) -> bytes:
        """The body in one piece; a copy if it came in several."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a field; `name` in lower case."""
        return find(self.head.headers, name)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered with an error before it was read whole."""

    status: int
    message: str
    code: str | None
    param: str | None = None
    allow: bytes = b""
    """For 405: the methods that there are."""


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
    """The application behind a listener."""

    def refusal_of(self, head: RequestHead) -> Refusal | None:
        """Say whether a request is refused by its head alone, before its body is taken in.

        It is asked anew for each request, also where the head is a known one.
        """
        ...

    def refusal_without_body(self, head: RequestHead, /) -> Refusal | None:
        """Say whether a request is refused whatever its body holds.

        It is asked where a client keeps the body back until there is hope for it.
        """
        ...

    def refused(self, refusal: Refusal, headers: list[Header]) -> list[Header]:
        """Take note of an error that the listener answers; return the fields to answer with."""
        ...

    def handle(self, request: HttpRequest, connection: ClientConnection) -> Exchange | None:
        """Answer now and return None, or return the exchange that will."""
        ...
