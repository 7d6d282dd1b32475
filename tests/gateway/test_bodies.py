"""Bodies that are large, or are no JSON."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.core.specs import Alias, Target
from headrace.edges.http.ports import HttpRequest
from headrace.gateway.call import TURN_BYTES
from tests.gateway.conftest import Rig, run_gateway
from tests.scripted import stream_words

CHAT = Alias("chat", (Target("m"),))


async def echo(received, peer):
    await peer.json({"bytes": len(received.body)})


def large_chat(model: str = "m", **extra: object) -> dict[str, object]:
    text = "some words that make a long prompt " * 60_000
    return {"messages": [{"role": "user", "content": text}], **extra, "model": model}


@asynccontextmanager
async def turns_of_reading(rig: Rig) -> AsyncIterator[list[int]]:
    """In how many turns of the loop a body was being read; in each there was time for others.

    This shows on every build; that `HttpRequest.body` was not asked for does on the interpreted.
    """
    turns = [0]

    async def count() -> None:
        while True:
            turns[0] += rig.plane._front.reading
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        yield turns
    finally:
        counting.cancel()


async def test_a_large_body_passes_byte_for_byte():
    body = json.dumps(large_chat(), indent=1).encode()
    async with run_gateway(echo) as rig:
        answer = await rig.client.post("/v1/chat/completions", content=body)
        assert answer.json() == {"bytes": len(body)}
        assert rig.engines[0].received[0].body == body


async def test_edits_of_a_large_body_are_by_span():
    async def script(received, peer):
        await stream_words(peer, 2)

    async with run_gateway(script, aliases=(CHAT,)) as rig:
        sent = large_chat("chat", stream=True, stream_options={"x": 1})
        answer = await rig.client.post("/v1/chat/completions", json=sent)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert "usage" not in answer.text
        wanted = {**sent, "model": "m", "stream_options": {"x": 1, "include_usage": True}}
        assert rig.engines[0].received[0].json == wanted
        del sent["stream_options"]
        await rig.client.post("/v1/chat/completions", json=sent)
        wanted["stream_options"] = {"include_usage": True}
        assert rig.engines[0].received[1].json == wanted


async def test_a_large_prompt_is_found_again_where_it_is_cached():
    async def script(received, peer):
        await stream_words(peer, 2)

    async with run_gateway(script, script, policy="seconds") as rig:
        sent = large_chat(stream=True)
        first = await rig.client.post("/v1/chat/completions", json=sent)
        for _ in range(3):
            again = await rig.client.post("/v1/chat/completions", json=sent)
            assert again.headers["x-headrace-replica"] == first.headers["x-headrace-replica"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b'{"model":"m","messages":"' + b"x" * 2_000_000, "not a JSON object"),
        (b'{"messages":"' + b"x" * 2_000_000 + b'"}', "'model' is missing"),
        (b"{%b}" % b",".join(b'"member%d":1' % i for i in range(100_000)), "MAX_MEMBERS"),
        (b'{"model":"m","model":"n","messages":"' + b"x" * 2_000_000 + b'"}', "more than once"),
    ],
)
async def test_faults_of_large_bodies_are_named(body, word):
    async with run_gateway(echo) as rig:
        answer = await rig.client.post("/v1/chat/completions", content=body)
        assert answer.status_code == 400
        assert word in answer.json()["error"]["message"]


@pytest.mark.parametrize("sent", [b" ", b"\r\n" * 100, b"[" + b" " * 2_000_000, b" " * 2_000_000])
async def test_a_large_body_is_never_read_at_one_go(sent, monkeypatch):
    """Whatever its first piece looks like."""
    monkeypatch.setattr(HttpRequest, "body", property(lambda _: pytest.fail("read at one go")))
    async with run_gateway(echo) as rig:

        async def pieces():
            yield sent
            await asyncio.sleep(0.05)
            if len(sent) < 1_000_000:
                yield json.dumps(large_chat()).encode()

        async with turns_of_reading(rig) as turns:
            answer = await rig.client.post("/v1/chat/completions", content=pieces())
        if not sent.startswith(b"["):  # which is seen to be no object in the first turn
            assert turns[0] >= 2_000_000 // TURN_BYTES
        if len(sent) < 1_000_000:
            assert answer.status_code == 200
        else:
            assert "not a JSON object" in answer.json()["error"]["message"]


async def test_a_client_that_leaves_while_its_body_is_read_leaves_nothing_behind():
    async with run_gateway(echo) as rig:
        body = b'{"model":"m","messages":[' + b"1," * 20_000_000 + b"1]}"
        _, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        writer.writelines([head % len(body), body])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        assert (await rig.chat()).status_code == 200
        assert rig.plane.in_flight == 0


@pytest.mark.parametrize("model", ["m", "chat"])
async def test_a_form_names_its_model(model):
    async with run_gateway(echo, aliases=(CHAT,)) as rig:
        answer = await rig.client.post(
            "/v1/audio/transcriptions",
            data={"language": "en", "model": model},
            files={"file": ("a.wav", b'\x00\r\n--name="model"\r\n' * 1000, "audio/wav")},
        )
        assert answer.status_code == 200
        sent = rig.engines[0].received[0].body
        assert b'name="model"\r\n\r\nm\r\n--' in sent
        assert b'\x00\r\n--name="model"\r\n' * 1000 in sent


async def test_a_form_with_an_unknown_model_is_refused():
    async with run_gateway(echo) as rig:
        answer = await rig.client.post(
            "/v1/audio/transcriptions", data={"model": "none"}, files={"file": b"x"}
        )
        assert answer.status_code == 404


def field(name: bytes, value: bytes) -> bytes:
    return b'--X\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, value)


async def send_form(rig, body: bytes):
    return await rig.client.post(
        "/v1/audio/transcriptions",
        content=body + b"--X--\r\n",
        headers={"content-type": "multipart/form-data; boundary=X"},
    )


async def test_a_request_without_a_body_is_no_form_whatever_its_client_says():
    async with run_gateway(echo, aliases=(CHAT,)) as rig:
        head = {"content-type": "multipart/form-data"}
        answer = await rig.client.get("/v1/files", headers=head)
        assert "boundary" not in answer.text


@pytest.mark.parametrize("file_bytes", [10, 3_000_000])
async def test_a_file_is_not_taken_for_the_model(file_bytes):
    file = field(b'file"; filename="a; name=model', b"m" * file_bytes)
    async with run_gateway(echo, aliases=(CHAT,)) as rig:
        assert (await send_form(rig, file + field(b"model", b"chat"))).status_code == 200
        body = rig.engines[0].received[0].body
        assert body == file + field(b"model", b"m") + b"--X--\r\n"


@pytest.mark.parametrize(
    ("form", "word", "param"),
    [
        (field(b"model", b"m") + field(b"model", b"n"), "more than once", "model"),
        (field(b"x", b"v") * 1001 + field(b"model", b"m"), "MAX_PARTS", None),
        (field(b"model", b"m" * 600), "over 512 bytes", "model"),
    ],
)
@pytest.mark.parametrize("more", [b"", field(b"file", b"\0" * 2_000_000)])
async def test_faults_of_forms_are_named(form, word, param, more):
    async with run_gateway(echo) as rig:
        answer = await send_form(rig, form + more)
        assert answer.status_code == 400
        assert word in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == param
        assert not rig.engines[0].received


async def test_a_large_form_is_never_read_at_one_go(monkeypatch):
    monkeypatch.setattr(HttpRequest, "body", property(lambda _: pytest.fail("read at one go")))
    async with run_gateway(echo) as rig:
        async with turns_of_reading(rig) as turns:
            file = field(b"file", b"\r\n--" * 500_000)
            answer = await send_form(rig, file + field(b"model", b"m"))
        assert answer.status_code == 200
        assert turns[0] >= len(file) // TURN_BYTES


async def test_a_form_is_one_whatever_its_body_begins_with():
    async with run_gateway(echo, aliases=(CHAT,)) as rig:
        answer = await send_form(rig, b'{"model":"none"}\r\n' + field(b"model", b"chat"))
        assert answer.status_code == 200
        assert field(b"model", b"m") in rig.engines[0].received[0].body


@pytest.mark.parametrize(
    ("words", "at"),
    [
        (rb"\ud83d", 0),
        (rb"fine \ud83d\ude00 \uDE00", 18),
        (rb"\ud83d \ude00", 0),
        (rb"\\ud83d \ud83d", 8),
    ],
)
async def test_half_a_character_is_called_that(words: bytes, at: int):
    """As JavaScript writes text that was cut inside an emoji; engines refuse it, too."""
    begin = b'{"model":"m","messages":[{"role":"user","content":"'
    async with run_gateway(echo) as rig:
        body = begin + words + b'"}]}'
        answer = await rig.client.post("/v1/chat/completions", content=body)
        assert answer.status_code == 400
        half = f"the escape {words[at : at + 6].decode()} at byte {len(begin) + at} is half of a"
        assert half in answer.json()["error"]["message"]
        whole = begin + rb"fine \ud83d\ude00" + b'"}]}'
        assert (await rig.client.post("/v1/chat/completions", content=whole)).status_code == 200
