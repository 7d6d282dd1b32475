"""A listener: accepts client connections, counts them and enforces their limits and deadlines."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from typing import Any

from headrace.edges.http.byte_stream import protocol_of
from headrace.edges.http.client_place import client_place
from headrace.edges.http.connection import NEARBY, ClientConnection
from headrace.edges.http.cors import CorsPolicy
from headrace.edges.http.known_heads import KnownHeads
from headrace.edges.http.ports import ConnectionLimits, Handler, RequestHead
from headrace.edges.http.socket_file import SocketFile
from headrace.edges.http.tls_listener import EVERY_ADDRESS, TlsListener, bound_sockets

BACKLOG = 1024
"""Connections that the system keeps for us until they are accepted."""


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
        self.known_heads: KnownHeads[RequestHead] = KnownHeads()
        self.buffered_bytes = 0
        self._per_client: dict[str, int] = {}
        self._listener: asyncio.Server | TlsListener | None = None
        self._socket_file: SocketFile | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen and return the port. Raises `OSError` when the address cannot be had."""
        if tls is not None:
            sockets = await bound_sockets(host, port, BACKLOG)
            self._listener = self._tls_listener(sockets, tls)
            return int(sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        if host == EVERY_ADDRESS:  # a loop would listen on those of IPv6 alone
            (listening,) = await bound_sockets(host, port, BACKLOG)
            self._listener = await loop.create_server(
                protocol_of(lambda: ClientConnection(self)), sock=listening, backlog=BACKLOG
            )
        else:
            self._listener = await loop.create_server(
                protocol_of(lambda: ClientConnection(self)), host, port, backlog=BACKLOG
            )
        listener: Any = self._listener  # uvloop has a list of sockets where asyncio has a tuple
        if not listener.sockets:  # a loop passes over addresses for which it gets none
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return int(listener.sockets[0].getsockname()[1])

    async def start_unix(self, path: str, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a Unix socket. Raises `OSError` when it cannot be had."""
        self._socket_file = SocketFile(path)
        listening = self._socket_file.socket
        if tls is not None:
            listening.listen(BACKLOG)
            listening.setblocking(False)
            self._listener = self._tls_listener([listening], tls)
            return
        self._listener = await asyncio.get_running_loop().create_unix_server(
            protocol_of(lambda: ClientConnection(self)), sock=listening, backlog=BACKLOG
        )

    def _tls_listener(self, sockets: list[socket.socket], tls: ssl.SSLContext) -> TlsListener:
        return TlsListener(
            sockets,
            tls,
            protocol_of(lambda: ClientConnection(self)),
            place_of=_place_of,
            admits=self._admits_handshake,
        )

    def _admits_handshake(self, under_way: int, from_there: int) -> bool:
        """As many may be under way as connections may be open."""
        limits = self.limits
        most, most_from_there = limits.max_connections, limits.max_connections_per_client
        return under_way < most and from_there < most_from_there

    def stop_listening(self) -> None:
        """Refuse new connections; close the idle ones, let the busy ones finish their answer."""
        self.closing = True
        if self._listener is not None:
            self._listener.close()
        if self._socket_file is not None:
            self._socket_file.remove()
        for connection in tuple(self.connections):
            connection.close_when_idle()

    @property
    def handshakes(self) -> int:
        """TLS handshakes under way; none of them is in `connections` yet."""
        listener = self._listener
        return listener.handshakes if isinstance(listener, TlsListener) else 0

    @property
    def busy(self) -> int:
        """Connections on which a request is read or answered, or an answer is still being sent."""
        return sum(connection.is_busy for connection in self.connections)

    def refuse_unread(self) -> None:
        """Say to those whose requests were not read whole that they will not be answered."""
        for connection in tuple(self.connections):
            connection.stop()

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


def _place_of(peer: object) -> str:
    """Where somebody comes from, by the address that the system gives; a Unix socket has none."""
    return client_place(str(peer[0])) if isinstance(peer, tuple) and peer else NEARBY
