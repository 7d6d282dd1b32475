"""Small bounded requests of our own to engines: health, models, metrics, probes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from headrace.edges.http.address import Address, AddressBook, split_url, url_at
from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.heads import Header, render
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.sink import InParts
from headrace.edges.http.tls import ClientTls

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Default bound on an answer's body."""
NOT_THERE = frozenset((404, 405))
"""Of a path that a server does not have."""
SWEEP_S = 1.0
"""Connections of replicas that left are closed within this time and their idle time."""


class FetchError(Exception):
    """The answer could not be had: no connection, no answer in time, too long, or not HTTP."""


@dataclass(frozen=True, slots=True)
class FetchResult:
    """A whole answer, whatever its status."""

    status: int
    headers: list[Header]
    body: bytes


class _Collector(InParts):
    """An `AnswerSink` that keeps everything, up to a bound."""

    def __init__(self, done: asyncio.Future[FetchResult], max_bytes: int) -> None:
        self._done = done
        self._max_bytes = max_bytes
        self._status = 0
        self._headers: list[Header] = []
        self._pieces: list[bytes] = []
        self._bytes = 0

    def answer_head(self, head: AnswerHead) -> None:
        self._status, self._headers = head.status, head.headers

    def answer_chunk(self, chunk: bytes, start: int) -> None:
        self.answer_body(chunk[start:-2])

    def answer_body(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._max_bytes:
            self.answer_failed(f"the answer is over {self._max_bytes} bytes")
        else:
            self._pieces.append(data)

    def answer_flush(self) -> None:
        """Nothing is written out."""

    def answer_complete(self, framed: bool) -> None:  # noqa: ARG002 - the interface
        if not self._done.done():
            self._done.set_result(FetchResult(self._status, self._headers, b"".join(self._pieces)))

    def answer_failed(self, reason: str) -> None:
        if not self._done.done():
            self._done.set_exception(FetchError(reason))


class _Own:
    """Connections of one event loop, and the addresses that they are kept by."""

    def __init__(self) -> None:
        self.pool = UpstreamPool(max_idle=2, idle_s=4.0)
        self._plain = AddressBook()
        self._swept_s = 0.0

    def address(self, url: str, tls: ClientTls | None) -> Address:
        now = time.monotonic()
        if now - self._swept_s > SWEEP_S:
            self._swept_s = now
            self.pool.sweep(now)
        if tls is None:
            return self._plain.find(url)
        if tls.book is None:
            tls.book = AddressBook(tls)
        return tls.book.find(url)


_owns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Own] = WeakKeyDictionary()
"""A connection belongs to the event loop it was opened on."""


def _own_of(loop: asyncio.AbstractEventLoop) -> _Own:
    own = _owns.get(loop)
    if own is None:
        own = _owns[loop] = _Own()
    return own


async def get(
    url: str,
    *,
    timeout_s: float,
    headers: Iterable[Header] = (),
    max_bytes: int = MAX_ANSWER_BYTES,
    tls: ClientTls | None = None,
) -> FetchResult:
    """GET a URL, `http(s)://host:port/path` or one of `url_at`; `https` by `tls`, or as the system
    trusts. Raises `FetchError`; any HTTP status is a result.
    """
    return await request(
        b"GET", url, timeout_s=timeout_s, headers=headers, max_bytes=max_bytes, tls=tls
    )


async def get_what_is_there(
    base_url: str,
    paths: Sequence[str],
    *,
    timeout_s: float,
    headers: Iterable[Header] = (),
    max_bytes: int = MAX_ANSWER_BYTES,
    tls: ClientTls | None = None,
) -> tuple[str, FetchResult]:
    """GET the first of these paths that a server has, or the last: which, and what came of it.

    Raises `FetchError`; any HTTP status is a result.
    """
    for path in paths:
        result = await get(
            url_at(base_url, path),
            timeout_s=timeout_s,
            headers=headers,
            max_bytes=max_bytes,
            tls=tls,
        )
        if result.status not in NOT_THERE or path == paths[-1]:
            return path, result
    raise ValueError("no path to ask for")


async def post(
    url: str,
    body: bytes,
    *,
    timeout_s: float,
    headers: Iterable[Header] = (),
    max_bytes: int = MAX_ANSWER_BYTES,
) -> FetchResult:
    """POST a JSON body. Raises `FetchError`; any HTTP status is a result."""
    json = (b"content-type", b"application/json")
    return await request(
        b"POST", url, body, timeout_s=timeout_s, headers=[json, *headers], max_bytes=max_bytes
    )


async def request(
    method: bytes,
    url: str,
    body: bytes = b"",
    *,
    timeout_s: float,
    headers: Iterable[Header] = (),
    max_bytes: int = MAX_ANSWER_BYTES,
    tls: ClientTls | None = None,
) -> FetchResult:
    """Send one request and wait for the whole answer, `timeout_s` at most.

    The Host header is the URL's, unless `headers` has one.
    """
    place, target = split_url(url)
    loop = asyncio.get_running_loop()
    own = _own_of(loop)
    try:
        address = own.address(place, tls)
    except UnicodeError as error:  # an empty label, or one over 63 characters
        raise FetchError(f"{place} has no host name: {error}") from None
    fields = list(headers)
    if not any(name == b"host" for name, _ in fields):
        fields.insert(0, (b"host", address.host_header))
    fields.append((b"accept-encoding", b"identity"))  # without it any coding may come
    if body or method == b"POST":
        fields.append((b"content-length", b"%d" % len(body)))
    payload = render(b"%b %b HTTP/1.1\r\n" % (method, target.encode("ascii")), fields) + body
    done: asyncio.Future[FetchResult] = loop.create_future()
    call = own.pool.open(address, [payload], _Collector(done, max_bytes))
    try:
        async with asyncio.timeout(timeout_s):
            return await done
    except TimeoutError:
        raise FetchError(f"no answer within {timeout_s:g} s") from None
    finally:
        call.cancel()
