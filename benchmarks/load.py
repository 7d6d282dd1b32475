"""A load client lean enough to share two cores with what it measures.

One `asyncio.Protocol` per connection on uvloop, requests made ready beforehand, answers read no
further than to find their ends.

    closed_loop    so many connections, each sends its next request when it has its answer
    open_loop      a request every 1/rate seconds, whatever became of those before it
    run_streams    so many streams at once, their events counted
    hold_streams   so many streams that stay open
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Self, TypeVar, cast

HOST = "127.0.0.1"
HANG_S = 120.0
"""A run that takes longer has hung."""

_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_LENGTH = b"content-length:"

Payloads = Callable[[int], bytes]
"""From the number of a request to its bytes, head and body."""


class LoadError(RuntimeError):
    """The load could not be carried out; a figure taken from it would be wrong."""


class _Peer(asyncio.Protocol):
    """A connection whose failure ends the run."""

    def __init__(self, failed: asyncio.Future[None]) -> None:
        self._failed = failed
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derive from nothing

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.fail(f"the connection was closed: {exc or 'by the server'}")

    def write(self, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(payload)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(LoadError(reason))


Peer = TypeVar("Peer", bound=_Peer)


class _Asker(_Peer):
    """Takes whole answers, one at a time."""

    def __init__(self, failed: asyncio.Future[None], answered: Callable[[Self], None]) -> None:
        super().__init__(failed)
        self.sent_s = 0.0
        self._answered = answered
        self._answer = b""

    def ask(self, payload: bytes) -> None:
        self.sent_s = time.perf_counter()
        self.write(payload)

    def data_received(self, data: bytes) -> None:
        self._answer = answer = self._answer + data if self._answer else data
        head_end = answer.find(_HEAD_END)
        if head_end < 0:
            return
        if not answer.startswith(b"HTTP/1.1 200"):
            self.fail(f"the answer was {answer[:300]!r}")
        elif len(answer) - head_end - 4 == _length_bytes(answer[:head_end]) or answer.endswith(
            _LAST_CHUNK
        ):
            self._answer = b""
            self._answered(self)


def _length_bytes(head: bytes) -> int | None:
    _, found, rest = head.lower().partition(_LENGTH)
    return int(rest.partition(b"\r\n")[0]) if found else None


class _Listener(_Peer):
    """Takes one chunked stream and counts its events."""

    def __init__(self, failed: asyncio.Future[None], ended: Callable[[], None]) -> None:
        super().__init__(failed)
        self.events = 0
        self._ended = ended
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        if self._tail.endswith(b"\n") and data.startswith(b"\n"):  # an event's end cut in two
            self.events += 1
        self.events += data.count(b"\n\n")
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self._tail == _LAST_CHUNK:
            self._ended()


async def closed_loop(port: int, payloads: Payloads, *, connections: int, requests: int) -> None:
    """Send `requests` requests over so many connections. Raises LoadError."""
    sent = answered = 0
    done = asyncio.get_running_loop().create_future()

    def next_one(asker: _Asker) -> None:
        nonlocal sent, answered
        answered += 1
        if sent < requests:
            sent += 1
            asker.ask(payloads(sent))
        elif answered == requests and not done.done():
            done.set_result(None)

    askers = await _connect(port, connections, lambda: _Asker(done, next_one))
    for asker in askers:
        sent += 1
        asker.ask(payloads(sent))
    await _finish(done, askers)


async def open_loop(
    port: int, payloads: Payloads, *, rate: float, requests: int, connections: int = 16
) -> list[float]:
    """Send a request every 1/rate seconds; return the latencies in seconds. Raises LoadError."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    latencies_s: list[float] = []

    def answered(asker: _Asker) -> None:
        latencies_s.append(time.perf_counter() - asker.sent_s)
        free.append(asker)
        if len(latencies_s) == requests and not done.done():
            done.set_result(None)

    free = await _connect(port, connections, lambda: _Asker(done, answered))
    askers = tuple(free)
    started_s = loop.time()
    for number in range(requests):
        await asyncio.sleep(started_s + number / rate - loop.time())
        if done.done():
            break
        if not free:
            raise LoadError(f"all {connections} connections are busy at {rate:g} requests/s")
        free.pop().ask(payloads(number))
    await _finish(done, askers)
    return latencies_s


async def run_streams(port: int, payload: bytes, *, streams: int, apart_s: float = 0.0) -> int:
    """Run so many streams side by side to their ends, each begun `apart_s` seconds after the one
    before; return how many events came. Raises LoadError.
    """
    done = asyncio.get_running_loop().create_future()
    ended = 0

    def end() -> None:
        nonlocal ended
        ended += 1
        if ended == streams and not done.done():
            done.set_result(None)

    listeners = await _connect(port, streams, lambda: _Listener(done, end))
    begun_s = time.perf_counter()
    for number, listener in enumerate(listeners):
        ahead_s = begun_s + number * apart_s - time.perf_counter()
        if ahead_s > 0.0:
            await asyncio.sleep(ahead_s)
        listener.write(payload)
    await _finish(done, listeners)
    return sum(listener.events for listener in listeners)


@asynccontextmanager
async def hold_streams(port: int, payload: bytes, *, streams: int) -> AsyncIterator[None]:
    """Open so many streams and keep them after their first event. Raises LoadError."""
    done = asyncio.get_running_loop().create_future()

    def ended() -> None:
        done.set_exception(LoadError("a stream ended that was to stay open"))

    listeners = await _connect(port, streams, lambda: _Listener(done, ended))
    for number, listener in enumerate(listeners):
        listener.write(payload)
        if number % 50 == 49:
            await asyncio.sleep(0.02)  # no burst that an accept queue would drop
    async with asyncio.timeout(HANG_S):
        while not all(listener.events for listener in listeners):
            await asyncio.sleep(0.05)
            if done.done():
                done.result()
    try:
        yield
    finally:
        done.cancel()
        for listener in listeners:
            listener.close()


async def _connect(port: int, connections: int, make: Callable[[], Peer]) -> list[Peer]:
    loop = asyncio.get_running_loop()
    peers: list[Peer] = []
    for _ in range(connections):
        _, peer = await loop.create_connection(make, HOST, port)
        peers.append(peer)
    return peers


async def _finish(done: asyncio.Future[None], peers: Sequence[_Peer]) -> None:
    try:
        async with asyncio.timeout(HANG_S):
            await done
    finally:
        done.cancel()
        for peer in peers:
            peer.close()
