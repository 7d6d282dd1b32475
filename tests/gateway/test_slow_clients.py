"""Clients that ask and do not read: memory stays bounded, and time does too."""

import asyncio
import socket
from contextlib import asynccontextmanager

from headrace.gateway.settings import Limits, Timeouts
from tests.gateway.conftest import run_gateway
from tests.scripted import chat_chunk
from tests.waiting import until

MODELS = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
HANG_S = 20


async def plain(received, peer):
    await peer.json({"ok": True})


@asynccontextmanager
async def deaf_client(port: int):
    """A raw client whose kernel buffer is small; yields (loop, socket)."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        yield loop, client


def buffered(rig) -> int:
    """Bytes that wait in the gateway for its only client."""
    (connection,) = rig.plane._server.connections
    return connection._transport.get_write_buffer_size()


async def test_answers_are_not_piled_up_for_a_client_that_does_not_read():
    async with run_gateway(plain) as rig, deaf_client(rig.plane.port) as (loop, client):
        try:
            async with asyncio.timeout(3):
                for _ in range(200):
                    await loop.sock_sendall(client, MODELS * 1000)
        except TimeoutError:
            pass  # the gateway takes no more in: as it should be
        assert buffered(rig) < 1_000_000


async def test_back_pressure_holds_for_the_next_request_of_a_connection():
    async def firehose(received, peer):
        await peer.start_stream()
        for _ in range(20_000):
            await peer.event(chat_chunk("x" * 4000))

    body = b'{"model":"m","messages":[],"stream":true}'
    ask = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
    async with run_gateway(firehose) as rig, deaf_client(rig.plane.port) as (loop, client):
        asking = asyncio.create_task(
            loop.sock_sendall(client, MODELS * 30_000 + ask % (len(body), body))
        )
        await asyncio.sleep(2)
        assert buffered(rig) < 1_000_000
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_client_that_never_reads_is_cut_off():
    timeouts = Timeouts(idle_s=0.3, write_s=0.3)
    async with (
        run_gateway(plain, timeouts=timeouts) as rig,
        deaf_client(rig.plane.port) as (loop, client),
    ):
        asking = asyncio.create_task(loop.sock_sendall(client, MODELS * 30_000))
        await until(lambda: rig.plane._server.connections)
        await until(lambda: not rig.plane._server.connections)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_client_that_caught_up_is_idle_again():
    timeouts = Timeouts(idle_s=0.3, write_s=HANG_S)
    async with (
        run_gateway(plain, timeouts=timeouts) as rig,
        deaf_client(rig.plane.port) as (loop, client),
    ):
        asking = asyncio.create_task(loop.sock_sendall(client, MODELS * 5000))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(HANG_S):
            while await loop.sock_recv(client, 1 << 20):
                pass
        await asyncio.gather(asking, return_exceptions=True)
        assert not rig.plane._server.connections


async def test_a_client_that_takes_a_little_now_and_then_is_not_cut_off():
    """Its buffers are full all the time: in the gateway nothing seems to move for long."""
    size = 3_000_000

    async def script(_received, peer):
        await peer.json({"text": "w" * size})

    body = b'{"model":"m","messages":[]}'
    ask = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    timeouts, limits = Timeouts(write_s=1.0), Limits(client_buffer_bytes=2 * size)
    async with (
        run_gateway(script, timeouts=timeouts, limits=limits) as rig,
        deaf_client(rig.plane.port) as (loop, client),
    ):
        await loop.sock_sendall(client, ask + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        got = 0
        async with asyncio.timeout(HANG_S):
            for _ in range(15):  # three times as long as a client may take nothing
                got += len(await loop.sock_recv(client, 2000))
                await asyncio.sleep(0.2)
            while piece := await loop.sock_recv(client, 1 << 20):
                got += len(piece)
        assert got > size
