"""TLS handshakes that fail or never end, on either side of the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trustme

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import ConfigChanged, ReplicaChanged
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from headrace.edges.http.tls import ClientTls, ServerCertificate, ServerTls, UpstreamTls
from headrace.gateway.server import DataPlane
from headrace.gateway.settings import GatewaySettings, Listener, Timeouts, UpstreamAccess
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.plain_http import NO_TRUST_STORE
from tests.scripted import ScriptedEngine, stream_words

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def three_words(_received, peer):
    await stream_words(peer, 3)


@asynccontextmanager
async def gateway(
    folder: Path, url: str = "", *, listen_tls: bool = False, connect_s: float = 5.0
) -> AsyncIterator[DataPlane]:
    """A gateway that trusts the CA in `folder`, before one engine that was ready at last."""
    own = ServerTls(str(folder / "cert.pem"), str(folder / "key.pem")) if listen_tls else None
    tls = ClientTls(UpstreamTls(ca_file=str(folder / "ca.pem")))
    settings = GatewaySettings(
        listen=Listener(port=0, tls=own),
        timeouts=Timeouts(connect_s=connect_s),
        upstreams={"p": UpstreamAccess("vllm", tls=tls)},
    )
    core = Dispatcher(DispatcherSettings(), random.Random(1))
    plane = DataPlane(settings, core, Telemetry(TelemetrySettings(), time.monotonic, core.fleet))
    await plane.start()
    try:
        plane.apply(ConfigChanged((PoolSpec("p", "m"),), ()))
        if url:
            plane.apply(ReplicaChanged("r", "p", url, ready=True))
        yield plane
    finally:
        await plane.close()


async def ask(plane: DataPlane) -> tuple[int, str]:
    url = f"http://127.0.0.1:{plane.port}/v1/chat/completions"
    async with httpx.AsyncClient(trust_env=False, timeout=30, verify=NO_TRUST_STORE) as client:
        answer = await client.post(url, json=CHAT)
        return answer.status_code, answer.json()["error"]["message"]


async def test_an_engine_that_is_trusted_no_more_gives_a_clear_502(tmp_path, ca):
    stranger = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    async with (
        ScriptedEngine(three_words, tls=stranger) as engine,
        gateway(tmp_path, engine.url) as plane,
    ):
        status, message = await ask(plane)
        assert status == 502
        assert "TLS: its certificate is not accepted: unable to get local issuer" in message
        assert str(tmp_path) not in message
        assert "_ssl.c" not in message
        assert engine.received == []


async def test_an_engine_that_speaks_no_tls_gives_a_clear_502(tmp_path, ca):
    async def refuse(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    async with plain, gateway(tmp_path, f"https://127.0.0.1:{port}") as plane:
        status, message = await ask(plane)
        assert status == 502
        assert "cannot connect: TLS: wrong version number" in message


async def test_an_engine_that_never_answers_the_handshake_is_given_up(tmp_path, ca):
    async def swallow(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with silent, gateway(tmp_path, f"https://127.0.0.1:{port}", connect_s=0.3) as plane:
        status, message = await ask(plane)
        assert status == 504
        assert "no connection within 0.3 s" in message


async def test_a_client_that_never_ends_its_handshake_is_cut_off(tmp_path, ca, monkeypatch):
    monkeypatch.setattr("headrace.edges.http.tls_listener.HANDSHAKE_S", 0.3)
    async with gateway(tmp_path, listen_tls=True) as plane:
        reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_handshakes_under_way_are_counted(tmp_path, ca):
    async with gateway(tmp_path, listen_tls=True) as plane:
        _, writer = await asyncio.open_connection("127.0.0.1", plane.port)
        counted = plane.telemetry.connections
        async with asyncio.timeout(20):
            while not counted()["client_handshake"]:
                await asyncio.sleep(0.005)
        assert counted()["client"] == 0
        writer.close()


async def test_versions_before_1_2_are_not_spoken(tmp_path, ca):
    server = ServerCertificate(ServerTls(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")))
    contexts = [server.context, ClientTls(UpstreamTls()).context]
    assert {each.minimum_version for each in contexts} == {ssl.TLSVersion.TLSv1_2}
