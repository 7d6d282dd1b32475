"""`Expect: 100-continue`: a body that is kept back is asked for once, when its turn has come."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from headrace.gateway.keys import KeyRing
from headrace.gateway.settings import Timeouts
from tests.gateway.conftest import run_gateway
from tests.gateway.test_listener import plain

BODY = b'{"model":"m","messages":[]}'
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%bcontent-length: 27\r\n\r\n"
EXPECTS = HEAD % b"connection: close\r\nexpect: 100-continue\r\n"


@asynccontextmanager
async def connected(rig):
    """A connection, with a guard against hanging."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()


async def test_behind_another_request_it_is_asked_for_when_that_is_answered():
    go = asyncio.Event()

    async def script(received, peer):
        await go.wait()
        await peer.json({"ok": True})

    async with run_gateway(script) as rig, connected(rig) as (reader, writer):
        writer.write(HEAD % b"" + BODY + EXPECTS)
        while not rig.engines[0].received:
            await asyncio.sleep(0.01)
        go.set()
        first = await reader.readuntil(b'{"ok":true}')
        assert b"100 Continue" not in first
        assert await reader.readexactly(len(CONTINUE)) == CONTINUE
        writer.write(BODY)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert CONTINUE not in answer


async def test_an_offer_behind_another_request_does_not_lose_it():
    offer = EXPECTS.replace(b"close\r\n", b"close, upgrade\r\nupgrade: h2c\r\n")
    async with run_gateway(plain) as rig, connected(rig) as (reader, writer):
        writer.write(HEAD % b"" + BODY + offer)
        await reader.readuntil(b'{"ok":true}')
        assert await reader.readexactly(len(CONTINUE)) == CONTINUE
        writer.write(BODY)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")


async def test_a_body_that_came_anyway_is_not_asked_for_behind_another_request():
    async with run_gateway(plain) as rig, connected(rig) as (reader, writer):
        writer.write(HEAD % b"" + BODY + EXPECTS + BODY)
        answers = await reader.read()
        assert answers.count(b"HTTP/1.1 200") == 2
        assert CONTINUE not in answers


async def test_a_client_of_http_1_0_gets_none():
    async with run_gateway(plain) as rig, connected(rig) as (reader, writer):
        writer.write(EXPECTS.replace(b"HTTP/1.1", b"HTTP/1.0") + BODY)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")


async def test_an_unknown_expectation_is_ignored():
    timeouts = Timeouts(body_s=0.3)
    async with run_gateway(plain, timeouts=timeouts) as rig, connected(rig) as (reader, writer):
        writer.write(EXPECTS.replace(b"100-continue", b"200-maybe"))
        assert (await reader.read()).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("line", "fields", "status"),
    [
        (b"POST /nothing", b"", b"404"),
        (b"POST /metrics", b"", b"404"),
        (b"POST /health", b"", b"405"),
        (b"POST /v1/models", b"", b"405"),
        (b"PUT /v1/chat/completions", b"", b"405"),
        (b"POST /v1/load_lora_adapter", b"", b"403"),
        (b"POST /v1/responses/unknown/cancel", b"", b"404"),
        (b"POST /v1/chat/completions", b"content-encoding: gzip\r\n", b"415"),
        (b"POST /v1/chat/completions", b"x-headrace-tier: none\r\n", b"400"),
        (b"POST /v1/chat/completions", b"content-length: 99999999999\r\n", b"413"),
    ],
)
async def test_a_body_that_cannot_help_is_not_asked_for(line, fields, status):
    length = b"" if b"content-length" in fields else b"content-length: 27\r\n"
    head = b"%b HTTP/1.1\r\nhost: x\r\n%b%b" % (line, fields, length)
    async with run_gateway(plain) as rig:
        async with connected(rig) as (reader, writer):
            writer.write(head + b"expect: 100-continue\r\n\r\n")
            early = await reader.read()
        async with connected(rig) as (reader, writer):
            writer.write(head + b"connection: close\r\n\r\n" + BODY)
            usual = await reader.read()
    assert early.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nconnection: close\r\n" in early
    allow = [[one for one in each.split(b"\r\n") if b"allow:" in one] for each in (early, usual)]
    assert allow[0] == allow[1]
    assert early.partition(b"\r\n\r\n")[2] == usual.partition(b"\r\n\r\n")[2]


async def test_without_a_key_it_is_not_asked_for():
    async with run_gateway(plain, keys=KeyRing()) as rig, connected(rig) as (reader, writer):
        writer.write(EXPECTS)
        assert (await reader.read()).startswith(b"HTTP/1.1 401")


async def test_a_refusal_without_the_body_waits_for_the_answer_before_it():
    go = asyncio.Event()

    async def script(received, peer):
        await go.wait()
        await peer.json({"ok": True})

    async with run_gateway(script) as rig, connected(rig) as (reader, writer):
        writer.write(HEAD % b"" + BODY + EXPECTS.replace(b"/v1/chat", b"/chat"))
        while not rig.engines[0].received:
            await asyncio.sleep(0.01)
        go.set()
        answers = await reader.read()
        assert answers.index(b'{"ok":true}') < answers.index(b"HTTP/1.1 404")
        assert CONTINUE not in answers
