"""Servers that do what they should not: each is an error of a kind, and the run goes on."""

import asyncio
import gzip
import os
import resource
from collections import Counter

import pytest

from headrace.bench.sending.sender import Sender
from tests.scripted import Peer, Received, ScriptedEngine, chat_chunk, stream_words
from tests.unit.bench.runs import load_of, play

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def no_answer(_: Received, peer: Peer) -> None:
    peer.reset()


async def silence(_: Received, peer: Peer) -> None:
    await asyncio.sleep(30)


async def half_a_head(_: Received, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    peer.reset()


async def half_an_answer(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    await peer.event(chat_chunk("a"))
    peer.writer.close()


async def half_an_event(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    await peer.chunk(b'data: {"choices":[{"del')
    peer.writer.close()


async def closed_without_done(_: Received, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    await peer.send(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    peer.writer.close()


async def not_http(_: Received, peer: Peer) -> None:
    await peer.send(b"220 mail.example.org ESMTP\r\n")


async def a_page(_: Received, peer: Peer) -> None:
    page = b"<html>welcome</html>"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n"
    await peer.send(head % len(page) + page)


async def json_where_a_stream_was_asked_for(_: Received, peer: Peer) -> None:
    await peer.json({"choices": []})


async def packed(_: Received, peer: Peer) -> None:
    body = gzip.compress(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n')
    await peer.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


async def too_many(_: Received, peer: Peer) -> None:
    await peer.json({"error": {"message": "slow down"}}, status=429)


async def broken(_: Received, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\n\xff\xfe\x00\n")


async def an_error_in_the_stream(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    await peer.event(chat_chunk("a"))
    await peer.event({"error": {"message": "out of memory"}})
    await peer.end_stream()


async def an_error_beside_a_token(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    await peer.event(chat_chunk("a"))
    await peer.event(chat_chunk("b", error={"message": "out of memory"}))
    await peer.end_stream()


async def nothing_in_it(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    await peer.end_stream()


async def nonsense(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    await peer.chunk(b"data: [1, 2\n\ndata: \xff\xfe\n\n: comment\n\n\n\n\n")
    await peer.end_stream()


async def endless(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    while True:
        await peer.event(chat_chunk("more"))


async def endless_line(_: Received, peer: Peer) -> None:
    await peer.start_stream()
    while True:
        await peer.chunk(b"a" * 65_536)


async def endless_head(_: Received, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        await peer.send(b"x-%d: %b\r\n" % (number, b"y" * 1000))


async def endless_error(_: Received, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await peer.chunk(b"a" * 65_536)


SCRIPTS = {
    no_answer: "reset",
    half_a_head: "reset",
    half_an_answer: "cut",
    half_an_event: "cut",
    closed_without_done: "cut",
    not_http: "bad_http",
    a_page: "bad_content_type",
    json_where_a_stream_was_asked_for: "bad_content_type",
    packed: "bad_content_type",
    too_many: "http_429",
    broken: "http_500",
    an_error_in_the_stream: "stream_error",
    an_error_beside_a_token: "stream_error",
    nothing_in_it: "no_tokens",
    nonsense: "no_tokens",
    endless: "too_large",
    endless_line: "too_large",
    endless_head: "too_large",
    endless_error: "too_large",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_each_fault_is_counted_as_what_it_is(script):
    async with ScriptedEngine(script) as scripted:
        records = await play(
            scripted.url,
            load_of(3),
            max_answer_bytes=300_000,
            max_event_bytes=200_000,
            timeout_s=20.0,
        )
    assert [record.error for record in records] == [SCRIPTS[script]] * 3
    for record in records:
        assert record.ended_s >= record.sent_s >= record.intended_s
        assert record.error_detail.isprintable()
        assert not record.ok


async def test_an_error_in_a_stream_is_told_in_the_servers_words():
    for script in (an_error_in_the_stream, an_error_beside_a_token):
        async with ScriptedEngine(script) as scripted:
            (record,) = await play(scripted.url, load_of(1))
        assert record.error_detail.startswith('"error":')
        assert "out of memory" in record.error_detail


async def test_silence_ends_with_the_time_limit():
    async with ScriptedEngine(silence) as scripted:
        records = await play(scripted.url, load_of(3), timeout_s=0.3)
    assert [record.error for record in records] == ["timeout"] * 3
    assert "no answer within 0.3 s" in records[0].error_detail


async def test_a_slow_stream_ends_with_the_time_limit():
    async with ScriptedEngine(lambda _, peer: stream_words(peer, 1000, pause_s=0.02)) as scripted:
        (record,) = await play(scripted.url, load_of(1), timeout_s=0.3)
    assert record.error == "timeout"
    assert record.chunks > 1
    assert record.output_tokens == record.chunks


async def test_nobody_listens():
    async with ScriptedEngine(no_answer) as scripted:
        url = scripted.url
    records = await play(url, load_of(5))
    assert [record.error for record in records] == ["refused"] * 5
    assert [record.status for record in records] == [0] * 5


async def test_one_huge_chunk_is_read():
    async def script(_: Received, peer: Peer) -> None:
        await peer.start_stream()
        await peer.event(chat_chunk("a" * 900_000))
        await peer.event(chat_chunk("b"))
        await peer.end_stream()

    async with ScriptedEngine(script) as scripted:
        (record,) = await play(scripted.url, load_of(1))
    assert (record.error, record.chunks) == ("", 2)


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{}", "bad_json"), (b"[", "bad_json"), (b'{"choices":[{}]}', ""), (b"\xff", "bad_json")],
)
async def test_whole_answers_that_are_none(body: bytes, kind: str):
    async def script(_: Received, peer: Peer) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        await peer.send(head % len(body) + body)

    async with ScriptedEngine(script) as scripted:
        (record,) = await play(scripted.url, load_of(1), stream=False)
    assert record.error == kind


async def test_faults_in_between_do_not_disturb_the_others():
    calls = 0

    async def script(received: Received, peer: Peer) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            await half_an_answer(received, peer)
        elif calls % 3 == 1:
            await too_many(received, peer)
        else:
            await stream_words(peer, 3)

    async with ScriptedEngine(script) as scripted:
        records = await play(scripted.url, load_of(30))
    assert Counter(record.error for record in records) == {"": 10, "cut": 10, "http_429": 10}


async def test_no_file_left_is_our_own_fault():
    """The limit is lowered for this process until a connection cannot be opened any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with ScriptedEngine(silence) as scripted:

        async def lower(_: Sender) -> None:
            free = os.open(os.devnull, os.O_RDONLY)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            await asyncio.sleep(0.1)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        try:
            records = await play(scripted.url, load_of(1), lower, timeout_s=0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [record.error for record in records] == ["no_socket"]
