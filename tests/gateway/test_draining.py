"""What a gateway that stops waits for: requests that come in, and answers that go out."""

import asyncio

from headrace.gateway.settings import Limits
from tests.gateway.conftest import run_gateway
from tests.waiting import until

ASK = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
BODY = b'{"model":"m","messages":[]}'


async def plain(_received, peer):
    await peer.json({"ok": True})


async def test_draining_waits_for_a_request_whose_body_is_on_its_way():
    async with run_gateway(plain) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(ASK % len(BODY) + BODY[:9])
        await until(lambda: rig.plane._server.busy)
        draining = asyncio.create_task(rig.plane.drain(20))
        await asyncio.sleep(0.05)
        assert not draining.done()
        writer.write(BODY[9:])
        assert (await reader.read()).endswith(b'{"ok":true}')
        assert await draining == 0
        writer.close()


async def test_a_request_that_does_not_come_whole_within_the_drain_is_told_so():
    async with run_gateway(plain) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(ASK % 27 + b"{")
        await until(lambda: rig.plane._server.busy)
        assert await rig.plane.drain(0.1) == 1
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"gateway_stops"' in answer
        writer.close()


async def test_draining_waits_for_a_client_that_still_reads_its_answer():
    """The answer is written as a whole, but most of it waits for the client."""
    words = "w" * 12_000_000

    async def script(_received, peer):
        await peer.json({"text": words})

    async with run_gateway(script, limits=Limits(client_buffer_bytes=16_000_000)) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port, limit=1024)
        writer.write(ASK % len(BODY) + BODY)
        await until(lambda: any(series.requests for series in rig.telemetry.series))
        draining = asyncio.create_task(rig.plane.drain(20))
        await asyncio.sleep(0.05)
        assert not draining.done()
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert len(await reader.readexactly(length)) > len(words)
        assert await draining == 0
        writer.close()


async def test_draining_does_not_wait_for_idle_connections():
    async with run_gateway(plain) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"}")
        assert await rig.plane.drain(20) == 0
        assert await reader.read() == b""
        writer.close()
