"""An engine's count that cannot be true is in no sum; the client still gets it as it came."""

import json

import pytest

from tests.gateway.conftest import run_gateway
from tests.scripted import chat_chunk

IMPOSSIBLE = [(-5, 7), (7, -7), (7, 2**70), (2**70, 7)]
ANSWER = {"role": "assistant", "content": "hi"}


def usage_of(input_tokens, output_tokens, cached_tokens=0):
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def body_with(usage):
    async def script(_received, peer):
        await peer.json({"choices": [{"index": 0, "message": ANSWER}], "usage": usage})

    return script


def stream_with(usage, *, running=None):
    """Two words, the first with what was counted so far if `running` says it."""

    async def script(_received, peer):
        await peer.start_stream()
        for word in ("a", "b"):
            more = {} if running is None else {"usage": running}
            await peer.event(chat_chunk(word, **more))
        await peer.event({"choices": [], "usage": usage})
        await peer.end_stream()

    return script


def the_series(rig):
    return next(iter(rig.telemetry.series))


@pytest.mark.parametrize("told", IMPOSSIBLE)
async def test_of_a_whole_answer(told):
    async with run_gateway(body_with(usage_of(*told))) as rig:
        answer = await rig.chat()
        assert answer.json()["usage"] == usage_of(*told)
        series = the_series(rig)
        assert 0 <= series.input_tokens < 100
        assert 0 <= series.output_tokens.value < 100
        assert series.output_tokens.debt == 0
        assert sum(series.usage_missing.values()) == 1


@pytest.mark.parametrize(
    ("told", "counted"),
    [((-5, 7), 7), ((2**70, 7), 7), ((7, -7), 2), ((7, 2**70), 2), ((7, 0), 2)],
)
async def test_of_a_stream(told, counted):
    """Its output may be right though its input is not."""
    async with run_gateway(stream_with(usage_of(*told))) as rig:
        await rig.chat(stream=True)
        series = the_series(rig)
        assert 0 <= series.input_tokens < 100
        assert (series.output_tokens.value, series.output_tokens.debt) == (counted, 0)
        assert sum(series.usage_missing.values()) == 1


@pytest.mark.parametrize("output_tokens", [-7, 2**70])
async def test_of_a_stream_that_is_still_running(output_tokens):
    script = stream_with(usage_of(7, 2), running=usage_of(7, output_tokens))
    async with run_gateway(script) as rig:
        options = {"include_usage": True, "continuous_usage_stats": True}
        await rig.chat(stream=True, stream_options=options)
        series = the_series(rig)
        assert (series.output_tokens.value, series.output_tokens.debt) == (2, 0)
        assert series.input_tokens == 7


async def test_no_more_is_cached_than_came():
    """SGLang adds up what each of several choices found in the cache."""
    async with run_gateway(body_with(usage_of(10, 8, 36))) as rig:
        await rig.chat(n=4)
        series = the_series(rig)
        assert (series.input_tokens, series.cached_tokens) == (10, 10)
        assert series.output_tokens.value == 8


async def test_what_is_wrong_is_not_learned():
    async with run_gateway(body_with(usage_of(2**70, 2**70))) as rig:
        pool = rig.fleet.pools["p"]
        before = pool.bytes_per_token, pool.output_tokens_mean
        await rig.chat()
        assert (pool.bytes_per_token, pool.output_tokens_mean) == before


@pytest.mark.parametrize("buffered", [1 << 20, 0], ids=["read at once", "relayed"])
async def test_of_choices_that_it_does_not_tell_no_more_is_reckoned_than_was_asked(buffered):
    """A reply of rare words beside one of common ones: its length says three times as much."""
    long = {"role": "assistant", "content": ANSWER["content"] * 40}
    choices = [{"finish_reason": "stop", "message": each} for each in (ANSWER, long)]

    async def script(_received, peer):
        body = json.dumps({"choices": choices, "usage": usage_of(7, 5)}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        await peer.send(head + b"content-length: %d\r\n\r\n" % len(body))
        await peer.send(body[: buffered or 20])
        await peer.send(body[buffered or 20 :])

    async with run_gateway(script, engine="llamacpp") as rig:
        await rig.chat(n=2, max_tokens=8)
        series = the_series(rig)
        assert (series.input_tokens, series.output_tokens.value) == (7, 13)


@pytest.mark.parametrize("pieces", [False, True], ids=["in one piece", "in chunks"])
@pytest.mark.parametrize(("engine", "counted"), [("llamacpp", 10), ("vllm", 5)])
async def test_of_a_whole_answer_that_tells_its_first_choice_alone(engine, counted, pieces):
    choices = [{"index": at, "finish_reason": "length", "message": ANSWER} for at in (0, 1)]
    told = {"choices": choices, "usage": usage_of(7, 5)}

    async def script(_received, peer):
        if not pieces:
            await peer.json(told)
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        await peer.send(head + b"transfer-encoding: chunked\r\n\r\n")
        body = json.dumps(told).encode()
        await peer.chunk(body[:20])
        await peer.chunk(body[20:])
        await peer.send(b"0\r\n\r\n")

    async with run_gateway(script, engine=engine) as rig:
        answer = await rig.chat(n=2)
        assert answer.json() == told
        series = the_series(rig)
        assert (series.input_tokens, series.output_tokens.value) == (7, counted)
