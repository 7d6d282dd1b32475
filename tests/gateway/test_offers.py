"""A request that offers another protocol means what it would mean without the offer."""

import asyncio

import pytest

from tests.gateway.conftest import run_gateway
from tests.gateway.test_listener import plain, raw
from tests.scripted import stream_words

BODY = b'{"model":"m","messages":[]}'
STREAM = b'{"model":"m","messages":[],"stream":true}'
OFFER = b"upgrade: h2c\r\n"


def chat(fields: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    return b"POST /v1/chat/completions HTTP/%b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        version,
        fields,
        len(body),
        body,
    )


async def test_what_is_for_this_hop_only_goes_no_further():
    fields = b"host: x\r\nconnection: upgrade, x-hop, close\r\nx-hop: secret\r\nx-end: 1\r\n"
    async with run_gateway(plain) as rig:
        assert (await raw(rig.plane.port, chat(fields + OFFER))).startswith(b"HTTP/1.1 200")
        headers = rig.engines[0].received[0].headers
        assert headers["x-end"] == "1"
        assert not {"x-hop", "upgrade"} & headers.keys()


@pytest.mark.parametrize("fields", [b"close, upgrade\r\n", b"upgrade\r\nconnection: close\r\n"])
async def test_a_connection_that_is_to_be_closed_is(fields):
    async with run_gateway(plain) as rig:
        answer = await raw(rig.plane.port, chat(b"host: x\r\nconnection: " + fields + OFFER))
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"connection: close\r\n" in answer


async def test_a_client_of_http_1_0_is_answered_as_one():
    async def script(received, peer):
        await stream_words(peer, 2)

    async with run_gateway(script) as rig:
        request = chat(b"connection: upgrade\r\n" + OFFER, STREAM, b"1.0")
        answer = await raw(rig.plane.port, request)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"transfer-encoding" not in answer
        assert answer.endswith(b"\n\ndata: [DONE]\n\n")


async def test_limits_hold_for_a_head_with_an_offer():
    many = b"".join(b"x-%d: 1\r\n" % n for n in range(99))
    async with run_gateway(plain) as rig:
        fields = b"host: x\r\nconnection: upgrade\r\n" + OFFER + many
        assert (await raw(rig.plane.port, chat(fields))).startswith(b"HTTP/1.1 431")


async def test_a_body_that_is_kept_back_is_asked_for_once():
    fields = b"host: x\r\nconnection: upgrade, close\r\nexpect: 100-continue\r\n" + OFFER
    async with run_gateway(plain) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        request = chat(fields)
        writer.write(request[: -len(BODY)])
        async with asyncio.timeout(20):
            await reader.readuntil(b"100 Continue\r\n\r\n")
            writer.write(BODY)
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()


async def test_thousands_of_offers_in_one_read_are_cut_short(caplog):
    offer = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n" + OFFER + b"\r\n"
    async with run_gateway(plain) as rig:
        answer = await raw(rig.plane.port, offer * 3000)
        assert b"HTTP/1.1 400" in answer
        assert b"HTTP/1.1 500" not in answer
    assert not caplog.records


async def test_each_of_many_offers_gets_its_own_answer():
    async def script(received, peer):
        await asyncio.sleep(0)  # no answer within the turn that reads the others
        await peer.json({"n": received.json["n"]})

    offers = b""
    for n in range(20):
        close = b", close" if n == 19 else b""
        fields = b"host: x\r\nconnection: upgrade%b\r\n" % close + OFFER
        offers += chat(fields, b'{"model":"m","messages":[],"n":%d}' % n)
    async with run_gateway(script) as rig:
        answers = await raw(rig.plane.port, offers)
        assert answers.count(b"HTTP/1.1 200") == answers.count(b"HTTP/1.1 ") == 20
        order = [answers.index(b'{"n":%d}' % n) for n in range(20)]
        assert order == sorted(order)
