"""A client that leaves is seen also where so much of it waits that nothing more is read."""

import asyncio
import os
import socket
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trustme

from headrace.edges.http.connection import PIPELINE_DEPTH
from headrace.edges.http.server import HttpServer
from tests.gateway.conftest import run_gateway
from tests.property.test_http_requests import LIMITS, Recorder
from tests.waiting import until

BODY = b'{"model":"m","messages":[]}'
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 27\r\n\r\n" + BODY
MANY = REQUEST * (PIPELINE_DEPTH + 12)
NO_HTTP = b"nonsense\r\n\r\n"


class Stuck(Recorder):
    """Takes a request and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.busy, self.left = asyncio.Event(), asyncio.Event()

    def handle(self, request, connection) -> Any:
        self.connection = connection
        self.busy.set()
        return self

    def client_gone(self):
        self.left.set()

    def client_slow(self):
        pass

    client_ready = client_slow


@asynccontextmanager
async def listening(handler, kind, tmp_path):
    """A listener that is swept, and a way to connect to it."""
    server = HttpServer(handler, replace(LIMITS, idle_s=1000.0))
    if kind == "unix":
        await server.start_unix(path := str(tmp_path / "s"))
        connected = asyncio.open_unix_connection(path)
    else:
        ca, tls, trusting = trustme.CA(), None, None
        if kind == "tls":
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ca.issue_cert("localhost").configure_cert(tls)
            ca.configure_trust(trusting := ssl.create_default_context())
        port = await server.start("localhost", 0, tls)
        connected = asyncio.open_connection("localhost", port, ssl=trusting)

    async def sweep():
        while True:
            await asyncio.sleep(0.02)
            server.sweep(time.monotonic())

    sweeping = asyncio.create_task(sweep())
    try:
        yield await connected
    finally:
        server.stop_listening()
        server.abort_all()
        sweeping.cancel()


def end(writer):
    """Close as a program that ends: asyncio with TLS would wait for an answer first."""
    number = os.dup(writer.get_extra_info("socket").fileno())
    with socket.socket(fileno=number) as end_of_it:
        end_of_it.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("sent", [MANY, MANY + NO_HTTP], ids=["many", "refused"])
@pytest.mark.parametrize("leaves", ["closes", "resets"])
@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_one_whose_requests_wait_for_a_stuck_one(kind, leaves, sent, tmp_path):
    handler = Stuck()
    async with listening(handler, kind, tmp_path) as (_, writer), asyncio.timeout(20):
        writer.write(sent)
        await handler.busy.wait()
        writer.write(REQUEST)  # is not read, and is before the end of what was sent
        await asyncio.sleep(0.1)
        assert not handler.left.is_set()
        if leaves == "closes":
            end(writer)
        else:
            writer.transport.abort()
        await handler.left.wait()
        writer.transport.abort()


async def test_one_who_stays_is_left_in_peace_and_answered(tmp_path):
    handler = Stuck()
    async with listening(handler, "tcp", tmp_path) as (reader, writer), asyncio.timeout(20):
        writer.write(MANY)
        await handler.busy.wait()
        await asyncio.sleep(1.2)  # it was looked at, more than once
        for _ in range(PIPELINE_DEPTH + 12):
            handler.busy.clear()
            handler.connection.respond(200, [], b"ok")
            await reader.readuntil(b"ok")
        assert not handler.busy.is_set()
        writer.close()


async def test_one_that_went_astray_still_gets_the_answers_to_what_it_asked_before(tmp_path):
    handler = Stuck()
    async with listening(handler, "tcp", tmp_path) as (reader, writer), asyncio.timeout(20):
        writer.write(MANY + NO_HTTP)
        await handler.busy.wait()
        await asyncio.sleep(1.2)
        for _ in range(PIPELINE_DEPTH + 12):
            handler.connection.respond(200, [], b"ok")
        *answers, refusal = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200"] * (PIPELINE_DEPTH + 12)
        assert all(b"connection: close" not in answer for answer in answers)
        assert refusal.startswith(b"400")
        assert b"connection: close" in refusal
        writer.close()


@pytest.mark.parametrize("later", [False, True])
async def test_a_wrong_request_takes_no_answer_from_those_before_it(later):
    """A body that is not wanted any more is not held either."""
    asked = asyncio.Event()

    async def script(received, peer):
        await asked.wait()
        await peer.json({"n": 1})

    wrong = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    wrong += b"3\r\nabc\r\nno size\r\n" + REQUEST
    async with run_gateway(script) as rig, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(2 * REQUEST if later else 2 * REQUEST + wrong)
        await until(lambda: rig.engines[0].received)
        writer.write(wrong if later else REQUEST)
        (connection,) = rig.plane._server.connections
        await until(lambda: connection._last_words)
        assert rig.plane._server.buffered_bytes == 2 * len(BODY)
        asked.set()
        answers = await reader.read()
        writer.close()
        assert [each[:3] for each in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]
        assert answers.index(b"connection: close") > answers.index(b"HTTP/1.1 400")
        posts = [each for each in rig.engines[0].received if each.method == "POST"]
        assert len(posts) == 2


async def test_one_that_closes_its_side_alone_has_left():
    """Nothing tells it from one that is gone, for whom no engine is to work on (`eof_received`)."""
    hung_up = asyncio.Event()

    async def stuck(received, peer):
        await peer.reader.read()
        hung_up.set()

    async with run_gateway(stuck) as rig, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 200")  # it needed no engine
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(REQUEST)
        await until(lambda: rig.engines[0].received)
        writer.write_eof()
        await hung_up.wait()
        assert await reader.read() == b""
        writer.close()


async def test_the_engine_is_told():
    hung_up = asyncio.Event()

    async def stuck(received, peer):
        await peer.reader.read()
        hung_up.set()

    async with run_gateway(stuck) as rig, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(MANY)
        while not rig.engines[0].received:
            await asyncio.sleep(0.01)
        writer.close()
        await hung_up.wait()
