"""Runs the control plane's application on the gateway's event loop.

uvicorn limits requests, not connections, and waits for ever for one that has begun: whoever
connects and says nothing, or never all of it, would take a descriptor each of those that the data
plane needs. So connections are counted here from their first byte on, and one whose request does
not come whole is closed in the end. Each asks one thing at a time: no other limit is needed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headrace.edges.http.tls_listener import TlsListener
from headrace.gateway.control import ControlSettings

STOP_S = 2.0
"""Requests to the control plane still running when it stops get this long."""
MOST_CONNECTIONS = 512
"""Connections at once; above it new ones are closed."""
MOST_HANDSHAKES = 256
"""TLS handshakes at once, beside them."""
MOST_HANDSHAKES_EACH = 64
"""Of one address."""
REQUEST_S = 30.0
"""So long a request may take to be read whole: the first one of a connection from its begin on,
each later one from its first byte."""
BACKLOG = 512
TICK_S = 1.0
"""So often the date in the answers is set. uvicorn looks ten times a second whether it should stop,
and that was most of what woke an idle gateway."""


class _Refused(asyncio.Protocol):
    """One connection more than there may be."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(HttpToolsProtocol):
    """One that is closed if a request does not come in time; between two of them uvicorn waits."""

    _reading_since_s: float | None = None
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._reading_since_s = self.loop.time()
        self._look_again(REQUEST_S)

    def data_received(self, data: bytes) -> None:
        if self._reading_since_s is None:
            self._reading_since_s = self.loop.time()
        super().data_received(data)

    def on_message_begin(self) -> None:
        if self._reading_since_s is None:  # behind another one in the same read
            self._reading_since_s = self.loop.time()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._reading_since_s = None
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _look_again(self, in_s: float) -> None:
        self._look = self.loop.call_later(in_s, self._close_late)

    def _close_late(self) -> None:
        since_s = self._reading_since_s
        left_s = REQUEST_S if since_s is None else since_s + REQUEST_S - self.loop.time()
        if left_s > 0.0:
            self._look_again(left_s)
        else:
            self.transport.close()


class _Server(uvicorn.Server):
    """Leaves signals to the program: the gateway drains first and stops this last."""

    _tls: TlsListener | None = None

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Accept nobody any more; what runs gets `STOP_S`."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Set the date now and then, until it is to stop."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_S)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def count(self) -> dict[str, int]:
        """Open connections by kind."""
        handshakes = 0 if self._tls is None else self._tls.handshakes
        return {"control": len(self.server_state.connections), "control_handshake": handshakes}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on these sockets, each connection through `_connection`."""
        loop, tls, self.servers = asyncio.get_running_loop(), self.config.ssl, []
        listening = sockets or []
        if tls is None:
            for each in listening:
                server = await loop.create_server(self._connection, sock=each, backlog=BACKLOG)
                self.servers.append(server)
        else:
            for each in listening:
                each.listen(BACKLOG)
                each.setblocking(False)
            self._tls = TlsListener(
                listening, tls, self._connection, place_of=_place_of, admits=_admits_handshake
            )
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, and end as uvicorn does."""
        if self._tls is not None:
            self._tls.close()
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        state = self.server_state
        if len(state.connections) >= MOST_CONNECTIONS:
            return _Refused()
        return _Connection(self.config, state, self.lifespan.state)


def _place_of(peer: object) -> str:
    return str(peer[0]) if isinstance(peer, tuple) else ""


def _admits_handshake(under_way: int, from_there: int) -> bool:
    return under_way < MOST_HANDSHAKES and from_there < MOST_HANDSHAKES_EACH


@dataclass(slots=True)
class ControlServer:
    """A control plane that is listening."""

    host: str
    port: int
    scheme: str
    _server: _Server
    _task: asyncio.Task[None]

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        return f"{self.scheme}://{reachable(self.host)}:{self.port}"

    def count(self) -> dict[str, int]:
        """Open connections by kind, as `Telemetry.connections` wants them."""
        return self._server.count()

    async def stop(self) -> None:
        """Stop listening; running requests get `STOP_S`."""
        self._server.stop()
        await self._task


def reachable(host: str) -> str:
    """A listening host as clients on this machine write it in a URL."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - named, not bound
    return f"[{name}]" if ":" in name else name


async def serve_control(
    app: ASGIApp, settings: ControlSettings, tls: ssl.SSLContext | None = None
) -> ControlServer:
    """Listen and serve until stopped. Raises OSError if the address cannot be had."""
    listener = _bind(settings.host, settings.port)
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(STOP_S),
    )
    config.load()
    config.ssl = tls  # as it is: uvicorn would make a context of its own, out of reach for reloads
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="headrace-control")
    while not server.started:
        if task.done():
            listener.close()
            task.result()
            raise OSError(f"the control plane did not start on {settings.host}:{settings.port}")
        await asyncio.sleep(0.005)
    scheme = "https" if tls else "http"
    return ControlServer(settings.host, listener.getsockname()[1], scheme, server, task)


def _bind(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
