"""Connections to the control plane that ask for nothing take no more than their share."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headrace.gateway import control_server
from headrace.gateway.control import ControlSettings
from headrace.gateway.control_server import ControlServer, serve_control
from tests.gateway.serve_process import pool, serving
from tests.scripted import Peer, Received, ScriptedEngine, stream_words
from tests.waiting import until

HANG_S = 20
FEW = 4


async def read(request: Request) -> PlainTextResponse:
    with suppress(ClientDisconnect):
        await request.body()
    return PlainTextResponse("read")


async def three_words(_received: Received, peer: Peer) -> None:
    await stream_words(peer, 3)


async def slow(_request: Request) -> PlainTextResponse:
    await asyncio.sleep(0.5)
    return PlainTextResponse("at last")


@asynccontextmanager
async def control(*, tls: bool) -> AsyncIterator[tuple[ControlServer, ssl.SSLContext]]:
    """A control plane, and whom its clients trust."""
    own, trusted = None, ssl.create_default_context()
    if tls:
        ca, own = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("127.0.0.1").configure_cert(own)
        ca.configure_trust(trusted)
    routes = [
        Route("/health", lambda _: PlainTextResponse("well")),
        Route("/body", read, methods=["POST"]),
        Route("/slow", slow),
    ]
    app = Starlette(routes=routes)
    server = await serve_control(app, ControlSettings(port=0), own)
    try:
        yield server, trusted
    finally:
        await server.stop()


@asynccontextmanager
async def silent(server: ControlServer, number: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections on which nothing is ever said."""
    opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(number)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*(each.wait_closed() for _, each in opened), return_exceptions=True)


async def until_closed(readers: list[asyncio.StreamReader], number: int) -> None:
    """Wait until so many of these have been closed by the server."""
    ends = [asyncio.create_task(reader.read()) for reader in readers]
    await until(lambda: sum(end.done() for end in ends) >= number)
    await asyncio.sleep(0.05)
    assert sum(end.done() for end in ends) == number
    for end in ends:
        end.cancel()
    await asyncio.gather(*ends, return_exceptions=True)


async def asked(server: ControlServer, trusted: ssl.SSLContext) -> int:
    async with httpx.AsyncClient(verify=trusted, trust_env=False, timeout=HANG_S) as client:
        return (await client.get(f"{server.url}/health")).status_code


@pytest.mark.parametrize("tls", [False, True])
async def test_there_are_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch, tls: bool):
    monkeypatch.setattr(control_server, "MOST_CONNECTIONS", FEW)
    monkeypatch.setattr(control_server, "MOST_HANDSHAKES_EACH", FEW)
    async with control(tls=tls) as (server, trusted):
        assert await asked(server, trusted) == 200
        async with silent(server, 3 * FEW) as readers:
            await until_closed(readers, 2 * FEW)


@pytest.mark.parametrize("tls", [False, True])
async def test_open_connections_are_counted_and_handshakes_apart(tls: bool):
    kind = "control_handshake" if tls else "control"
    async with control(tls=tls) as (server, _):
        assert sum(server.count().values()) == 0
        async with silent(server, FEW):
            async with asyncio.timeout(HANG_S):
                while sum(server.count().values()) < FEW:
                    await asyncio.sleep(0.005)
            assert server.count()[kind] == FEW


async def test_metrics_tell_of_both_listeners(tmp_path: Path):
    async with (
        ScriptedEngine(three_words) as engine,
        serving(tmp_path, f"pools:\n{pool(engine)}") as gateway,
    ):
        page = (await gateway.control_client.get("/metrics")).text
    kinds = re.findall(r'headrace_connections{kind="(\w+)"} (\d+)', page)
    assert dict(kinds)["control"] == "1"  # by which this was asked
    assert {"client", "client_handshake", "control_handshake"} < dict(kinds).keys()


@pytest.mark.parametrize("tls", [False, True])
async def test_one_that_asks_for_nothing_is_closed_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch, tls: bool
):
    monkeypatch.setattr(control_server, "REQUEST_S", 0.1)
    async with control(tls=tls) as (server, trusted):
        context = trusted if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        async with httpx.AsyncClient(verify=trusted, trust_env=False, timeout=HANG_S) as client:
            assert (await client.get(f"{server.url}/health")).status_code == 200
            writer.write(b"GET /health HTTP/1.1\r\nhost:")
            async with asyncio.timeout(HANG_S):
                assert await reader.read() == b""
            # The same connection, longer open than one may be silent.
            assert (await client.get(f"{server.url}/health")).status_code == 200
        writer.close()


@pytest.mark.parametrize(
    "part", [b"GET /h", b"\r\n", b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123"]
)
async def test_a_later_request_that_does_not_come_whole_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch, part: bytes
):
    monkeypatch.setattr(control_server, "REQUEST_S", 0.1)
    async with control(tls=False) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"well")
        writer.write(part)
        async with asyncio.timeout(HANG_S):
            await reader.read()
        writer.close()


async def test_an_answer_may_take_longer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_server, "REQUEST_S", 0.1)
    async with (
        control(tls=False) as (server, _),
        httpx.AsyncClient(trust_env=False, timeout=HANG_S) as client,
    ):
        assert (await client.get(f"{server.url}/slow")).text == "at last"


async def test_who_asks_is_answered_while_there_is_a_place():
    almost_all = control_server.MOST_CONNECTIONS - 1
    async with control(tls=False) as (server, trusted), silent(server, almost_all):
        assert await asked(server, trusted) == 200


async def test_it_stops_at_once_and_not_when_it_looks_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_server, "TICK_S", 3600.0)
    server = await serve_control(Starlette(), ControlSettings(port=0))
    async with asyncio.timeout(HANG_S):
        await server.stop()


async def test_the_date_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_server, "TICK_S", 0.01)
    async with control(tls=False) as (server, _), httpx.AsyncClient() as client:
        first = (await client.get(f"{server.url}/health")).headers["date"]

        async def date() -> str:
            return (await client.get(f"{server.url}/health")).headers["date"]

        async with asyncio.timeout(HANG_S):
            while await date() == first:
                await asyncio.sleep(0.05)
