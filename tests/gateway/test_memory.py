"""What a stream holds while it lasts."""

import asyncio

from headrace.gateway.settings import Limits
from tests.gateway.conftest import run_gateway
from tests.scripted import Peer, Received


async def test_a_stream_holds_no_prompt_once_it_has_begun():
    async def begin(received: Received, peer: Peer) -> None:
        await peer.start_stream()
        await peer.event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
        await peer.gone.wait()

    prompt = "x" * 10_000
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": True}
    # Room for one such prompt, so that the second one needs the room of the first.
    limits = Limits(max_buffered_bytes=15_000)
    async with run_gateway(begin, limits=limits) as rig:
        async with rig.client.stream("POST", "/v1/chat/completions", json=body) as first:
            await anext(first.aiter_bytes())
            (exchange,) = rig.plane._exchanges.values()
            assert exchange.call.members is None
            assert exchange.call.http.pieces == []
            assert exchange._attempt is not None
            call = exchange._attempt._upstream_call
            assert call is not None
            assert call.payload == []
            async with rig.client.stream("POST", "/v1/chat/completions", json=body) as second:
                assert second.status_code == 200
        assert len(rig.engines[0].received) == 2
        assert prompt in rig.engines[0].received[1].body.decode()


async def test_a_refused_body_takes_no_room_from_others():
    """Its connection stays for a while, so that its client can read why."""

    async def plain(_received: Received, peer: Peer) -> None:
        await peer.json({"ok": True})

    limits = Limits(max_body_bytes=10_000, max_buffered_bytes=12_000)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with run_gateway(plain, limits=limits) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(head + b"2711\r\n" + b"a" * 10_001)
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        prompt = "x" * 8_000
        answer = await rig.chat(messages=[{"role": "user", "content": prompt}])
        assert answer.status_code == 200
        assert rig.plane._server.buffered_bytes == 0
        assert len(rig.plane._server.connections) == 2
        writer.close()
    assert rig.plane._server.buffered_bytes == 0
