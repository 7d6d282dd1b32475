"""Runs the control plane's application on the gateway's event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from headrace.gateway.control import ControlSettings

STOP_S = 2.0
"""Requests to the control plane still running when it stops get this long."""


class _Server(uvicorn.Server):
    """Leaves signals to the program: the gateway drains first and stops this last."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


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

    async def stop(self) -> None:
        """Stop listening; running requests get `STOP_S`."""
        self._server.should_exit = True
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
        limit_concurrency=256,
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
