"""A request whose head is known is bound by the limits that hold for any other."""

from __future__ import annotations

import asyncio

from headrace.gateway.settings import Limits
from tests.gateway.conftest import Rig, run_gateway
from tests.scripted import Peer, Received
from tests.waiting import until


def chat(words: int) -> bytes:
    """A whole request of one read; from one to the next only the length differs in the head."""
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"x" * words)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class Client:
    """A connection that is kept."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def __aenter__(self) -> Client:
        port = self._rig.plane.port
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self._writer.close()

    def send(self, request: bytes) -> None:
        self._writer.write(request)

    async def answer(self) -> int:
        """The status of the next answer, whose body is read too."""
        async with asyncio.timeout(20):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await self._reader.readexactly(length)
        return int(head.split()[1])


async def at_once(_received: Received, peer: Peer) -> None:
    await peer.json({"ok": True})


async def test_a_body_that_is_too_large_is_refused():
    async with run_gateway(at_once, limits=Limits(max_body_bytes=2_000)) as rig:
        async with Client(rig) as client:
            for words in (100, 1_900, 100, 3_000):
                client.send(chat(words))
                assert await client.answer() == (200 if words < 2_000 else 413)
        assert len(rig.engines[0].received) == 3


async def test_bodies_of_requests_under_way_are_counted_together():
    """Whichever of two was read which way."""
    go_on = asyncio.Event()

    async def script(received: Received, peer: Peer) -> None:
        if len(received.body) > 1_000:
            await go_on.wait()
        await peer.json({"ok": True})

    async with run_gateway(script, limits=Limits(max_buffered_bytes=3_000)) as rig:
        buffered = rig.plane._server
        async with Client(rig) as first, Client(rig) as second, Client(rig) as third:
            for client in (first, second, third):
                client.send(chat(10))
                assert await client.answer() == 200
            assert buffered.buffered_bytes == 0
            first.send(chat(2_000))
            await until(lambda: len(rig.engines[0].received) == 4)
            assert buffered.buffered_bytes == len(rig.engines[0].received[3].body)
            second.send(chat(2_000))
            assert await second.answer() == 503
            go_on.set()
            assert await first.answer() == 200
            assert buffered.buffered_bytes == 0
            third.send(chat(2_000))
            assert await third.answer() == 200
        assert len(rig.engines[0].received) == 5
