"""The engine side of the byte path: calls, and the connections that are kept for them.

    UpstreamPool.open() ─► UpstreamCall ─► UpstreamConnection (kept alive or new)
                               └─ answers go to the caller's AnswerSink

A call that met a kept-alive connection which the engine was just closing is sent again on a
new one: not a byte of an answer had come, and such a race says nothing about the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from headrace.edges.http.address import Address, closed_by
from headrace.edges.http.byte_stream import protocol_of
from headrace.edges.http.known_heads import KnownHeads, KnownStreamHead
from headrace.edges.http.late_acks import acknowledge_late
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.sink import AnswerSink
from headrace.edges.http.tls import reason_of
from headrace.edges.http.upstream_connection import SHORT_OF, UpstreamConnection

RESEND_S: Final = 1.0
"""A kept-alive connection that is lost sooner than this was being closed when we took it."""


class UpstreamCall:
    """One request to one engine, from the connection on to the end of the answer."""

    __slots__ = (
        "_pool",
        "_reused",
        "_task",
        "address",
        "begun_s",
        "connection",
        "payload",
        "reusable",
        "sent",
        "sink",
    )

    def __init__(
        self, pool: UpstreamPool, address: Address, payload: list[bytes], sink: AnswerSink
    ) -> None:
        self._pool = pool
        self._task: asyncio.Task[None] | None = None
        self._reused = False
        self.begun_s = monotonic()
        self.address = address
        self.payload = payload
        self.sink = sink
        self.connection: UpstreamConnection | None = None
        self.sent = False
        """Whether there was a connection to send it on, be it lost since."""
        self.reusable = True
        """Set to False when the engine is known to close after this answer."""

    def begin(self, idle: UpstreamConnection | None) -> None:
        """Send on a kept-alive connection, else open one."""
        if idle is None:
            self._connect()
        else:
            self._reused = True
            self.connection = idle
            self.sent = True
            idle.start(self)

    @property
    def connected(self) -> bool:
        """Whether the request is on its way."""
        return self.connection is not None

    def cancel(self) -> None:
        """Drop the call; the engine sees its connection close and stops working on it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.detach()
            if connection.transport is not None:
                connection.transport.abort()

    def pause(self) -> None:
        """Stop reading the answer: TCP passes the back-pressure on to the engine."""
        if self.connection is not None and self.connection.transport is not None:
            self.connection.paused = True
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.resume_reading()

    def let_pass(self, takes: Callable[[bytes], bool], *, late_acks: bool = False) -> None:
        """See `UpstreamConnection.let_pass` and, for `late_acks`, `acknowledge_late`."""
        connection = self.connection
        if connection is None:
            return
        connection.let_pass(takes)
        if late_acks and connection.transport is not None:
            acknowledge_late(connection.transport)

    def lost(self, reason: str, *, answered: bool) -> None:
        """The connection failed under this call."""
        self.connection = None
        soon = monotonic() - self.begun_s < RESEND_S
        if self._reused and not answered and soon:
            self._reused = False
            self._connect()
        else:
            self.sink.answer_failed(reason)

    def _connect(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        connection = self._pool.connection_to(self._pool, self.address)
        try:
            await self.address.connect(protocol_of(lambda: connection))
        except asyncio.CancelledError:
            # The connection may have been made in the same turn of the loop. uvloop has closed it
            # then, and never says that it is lost.
            if connection.transport is not None:
                connection.transport.abort()
                connection.connection_lost(None)
            raise
        except OSError as error:
            self._task = None
            ours = error.errno in SHORT_OF
            say = self.sink.answer_cut if ours else self.sink.answer_failed
            say(f"cannot connect: {reason_of(error)}")
            return
        self._task = None
        if connection.transport is None:  # lost between the handshake and now
            self.sink.answer_failed(closed_by(self.address, answered=False))
            return
        self.connection = connection
        self.sent = True
        connection.start(self)


class UpstreamPool:
    """Kept-alive connections per address, the last used first."""

    def __init__(
        self,
        *,
        max_idle: int,
        idle_s: float,
        connection_to: Callable[[UpstreamPool, Address], UpstreamConnection] = UpstreamConnection,
    ) -> None:
        self.connection_to = connection_to
        """Makes one that is yet to be opened."""
        self.max_idle = max_idle
        self.idle_s = idle_s
        self.known_heads: KnownHeads[AnswerHead] = KnownHeads()
        self.stream_head: KnownStreamHead[AnswerHead] = KnownStreamHead()
        self._idle: dict[Address, list[UpstreamConnection]] = {}
        self._open = 0

    def open(self, address: Address, payload: list[bytes], sink: AnswerSink) -> UpstreamCall:
        """Send `payload` (a whole request, head and body in pieces) and return the call.

        The answer, or the failure to connect, reaches the sink later, never within this call.
        """
        call = UpstreamCall(self, address, payload, sink)
        idle = self.take_idle(address, call.begun_s)
        call.begin(idle)
        return call

    def count(self) -> dict[str, int]:
        """Return open connections as `{"upstream_busy": …, "upstream_idle": …}`."""
        idle = sum(len(connections) for connections in self._idle.values())
        return {"upstream_busy": self._open - idle, "upstream_idle": idle}

    def take_idle(self, address: Address, now: float) -> UpstreamConnection | None:
        """Return a connection that is still open, or None."""
        idle = self._idle.get(address)
        oldest_s = now - self.idle_s
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is not None and not transport.is_closing():
                if connection.idle_since_s >= oldest_s:
                    return connection
                transport.abort()
        return None

    def release(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next call."""
        transport = connection.transport
        if transport is None:
            return
        idle = self._idle.get(connection.address)
        if idle is None:
            idle = self._idle[connection.address] = []
        if len(idle) >= self.max_idle:
            transport.abort()
            return
        connection.idle_since_s = monotonic()
        if connection.paused:
            # A call that was, at its last bytes, must not leave the next one deaf.
            connection.paused = False
            transport.resume_reading()
        idle.append(connection)

    def opened(self) -> None:
        """A connection was made."""
        self._open += 1

    def discard(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self._open -= 1
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)
        if idle is not None and not idle:
            del self._idle[connection.address]

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long; called a few times a second."""
        oldest_s = now - self.idle_s
        for idle in tuple(self._idle.values()):
            for connection in [c for c in idle if c.idle_since_s < oldest_s]:
                if connection.transport is not None:
                    connection.transport.abort()

    def close(self) -> None:
        """Close all that is idle."""
        for idle in tuple(self._idle.values()):
            for connection in tuple(idle):
                if connection.transport is not None:
                    connection.transport.abort()
