"""What comes of a stream in small pieces is not acknowledged piece by piece."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import cast

import pytest

from headrace.edges.http.late_acks import acknowledge_late
from tests.gateway.conftest import run_gateway
from tests.scripted import chat_chunk
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has TCP_QUICKACK")


def acknowledges_at_once(transport) -> bool:
    receiver = transport.get_extra_info("socket")
    return bool(receiver.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))


def begun_attempts(rig):
    """The attempts of which the client has seen a byte."""
    attempts = [exchange._attempt for exchange in rig.plane._exchanges.values()]
    return [attempt for attempt in attempts if attempt is not None and attempt.answer_begun]


@pytest.mark.parametrize(("engine", "late"), [("vllm", True), ("tgi", False)])
async def test_an_engine_that_does_not_wait_is_acknowledged_late_once_its_tokens_come(engine, late):
    first, last = asyncio.Event(), asyncio.Event()

    async def stream(received, peer):
        await peer.start_stream()
        await peer.event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        await first.wait()
        await peer.event(chat_chunk("a"))
        await last.wait()
        await peer.event(chat_chunk("b"))
        await peer.end_stream()

    async with run_gateway(stream, engine=engine) as rig:
        asking = asyncio.create_task(rig.chat(stream=True))
        await until(lambda: begun_attempts(rig))
        (attempt,) = begun_attempts(rig)
        call = attempt._upstream_call
        assert call is not None
        assert call.connection is not None
        transport = call.connection.transport
        assert acknowledges_at_once(transport)
        first.set()
        await until(lambda: attempt._steady is not None)
        assert acknowledges_at_once(transport) is not late
        last.set()
        assert "[DONE]" in (await asking).text


@contextlib.asynccontextmanager
async def connected(family: socket.AddressFamily) -> AsyncIterator[asyncio.Transport]:
    """A transport, and whoever is at the other end of it."""
    ours, theirs = socket.socketpair(family) if family == socket.AF_UNIX else tcp_pair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    with theirs:
        yield cast("asyncio.Transport", transport)  # uvloop's are none by their class
        transport.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


async def test_a_connection_that_was_closed_is_left_alone():
    async with connected(socket.AF_INET) as transport:
        transport.abort()
        acknowledge_late(transport)


async def test_a_unix_socket_has_nothing_to_acknowledge():
    async with connected(socket.AF_UNIX) as transport:
        acknowledge_late(transport)
