"""The timed question: what it returns, and how each way to fail is told."""

import pytest

from headrace.compose.up.ask import AskError, ask
from headrace.core.model import Endpoint, Usage
from tests.scripted import ScriptedEngine, chat_chunk, stream_words

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_whole_answer():
    async def script(received, peer):
        assert received.target == "/v1/chat/completions"
        assert received.json == {
            **BODY,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        await stream_words(peer, 3, input_tokens=9, pause_s=0.01)

    heard = []
    async with ScriptedEngine(script) as engine:
        answer = await ask(engine.url, Endpoint.CHAT, BODY, timeout_s=30, on_text=heard.append)
    assert heard == ["w0 ", "w1 ", "w2 "]
    assert answer.text == "w0 w1 w2 "
    assert answer.usage == Usage(9, 3, 0)
    assert answer.ttft_s > 0
    assert answer.tpot_s is not None
    assert answer.header(b"content-type") == "text/event-stream"
    assert answer.header(b"none") == ""


async def test_one_token_has_no_time_between_tokens():
    async def script(_received, peer):
        await stream_words(peer, 1)

    async with ScriptedEngine(script) as engine:
        answer = await ask(engine.url, Endpoint.CHAT, BODY, timeout_s=30)
    assert answer.tpot_s is None


async def refuse(_received, peer):
    await peer.json({"error": {"message": "too long"}}, 400)


async def break_off(_received, peer):
    await peer.start_stream()
    await peer.event(chat_chunk("a"))
    peer.reset()


async def report_an_error(_received, peer):
    await peer.start_stream()
    await peer.event(chat_chunk("a"))
    await peer.event({"error": {"message": "out of memory"}})
    await peer.end_stream(done=False)


async def say_nothing(_received, peer):
    await peer.start_stream()
    await peer.end_stream()


async def hang(_received, peer):
    await peer.gone.wait()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (refuse, "HTTP 400: too long"),
        (break_off, "connection"),
        (report_an_error, "out of memory"),
        (say_nothing, "without a token"),
    ],
)
async def test_failures_say_what_happened(script, said):
    async with ScriptedEngine(script) as engine:
        with pytest.raises(AskError, match=said):
            await ask(engine.url, Endpoint.CHAT, BODY, timeout_s=30)


async def test_no_answer_in_time():
    async with ScriptedEngine(hang) as engine:
        with pytest.raises(AskError, match=r"within 0\.05 s"):
            await ask(engine.url, Endpoint.CHAT, BODY, timeout_s=0.05)


async def test_nobody_there():
    async with ScriptedEngine(hang) as engine:
        url = engine.url
    with pytest.raises(AskError, match="cannot connect"):
        await ask(url, Endpoint.CHAT, BODY, timeout_s=30)
