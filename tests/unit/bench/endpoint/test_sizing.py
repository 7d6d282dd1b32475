"""Prompts are sized by the best source there is, and end up as long as planned."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from headrace.bench.endpoint.sizing import Asker, size_prompts
from headrace.bench.endpoint.target import reach
from headrace.bench.sending.sender import Sender
from headrace.bench.settings import BenchError, BenchSettings
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.texts import WORDS, Texts
from tests.scripted import Peer, Received, ScriptedEngine, chat_chunk
from tests.unit.bench.runs import load_of, target_at


@pytest.fixture
async def engine() -> AsyncIterator[str]:
    timing = ScriptedTiming(Script(0.0, 0.0), kv_capacity_tokens=1_000_000)
    emulated = EmulatedEngine(EngineSettings(model="m"), timing)
    await emulated.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{emulated.port}"
    await emulated.close()


def plain(chosen: dict[str, object]) -> str:
    """All text of a chat or completion request."""
    if "prompt" in chosen:
        return str(chosen["prompt"])
    messages = chosen["messages"]
    assert isinstance(messages, list)
    return "".join(message["content"] for message in messages)


def engine_that_counts(
    tokens_of: Callable[[dict[str, object]], int], tokenize: str = ""
) -> ScriptedEngine:
    """Answers with a usage, and `/tokenize` in the form of vLLM or llama.cpp, or not at all."""

    async def script(received: Received, peer: Peer) -> None:
        asked = received.json
        if received.target != "/tokenize":
            usage = {"prompt_tokens": tokens_of(asked), "completion_tokens": 1}
            await peer.json({"choices": [{"index": 0}], "usage": usage})
        elif tokenize == "vllm" and "prompt" in asked:
            await peer.json({"count": tokens_of(asked), "tokens": []})
        elif tokenize == "llamacpp":
            words = asked.get("content", "").split()
            # One word is two tokens for this engine.
            await peer.json({"tokens": [0 for word in words for _ in range(1 + (word == "tax"))]})
        else:
            await peer.json({"error": "no"}, status=404)

    return ScriptedEngine(script)


async def sizing_of(url: str, **settings: Any):
    given = BenchSettings(url, **settings)
    return await size_prompts(given, Asker(given, url, "m"))


async def test_vllms_tokenize_knows_words_and_template(engine: str):
    sizing = await sizing_of(engine)
    assert (sizing.by, sizing.words, sizing.tokens_per_word) == ("/tokenize", WORDS, 1.0)
    # 16 bytes for a role and two quotes, in tokens of four bytes.
    assert (sizing.template_tokens, sizing.shared_template_tokens) == (4, 9)


async def test_llamacpps_tokenize_knows_words_and_usage_the_template():
    def tokens_of(asked: dict[str, object]) -> int:
        return len(plain(asked).split()) + 12

    async with engine_that_counts(tokens_of, "llamacpp") as scripted:
        sizing = await sizing_of(scripted.url)
    assert sizing.by == "/tokenize"
    assert set(WORDS) - set(sizing.words) == {"tax"}
    assert (sizing.tokens_per_word, sizing.template_tokens) == (1.0, 12)


@pytest.mark.parametrize(("per_word", "template"), [(1.0, 7), (1.5, 20), (1.0, 0)])
async def test_usage_alone_tells_tokens_per_word_and_template(per_word: float, template: int):
    def tokens_of(asked: dict[str, object]) -> int:
        return round(len(plain(asked).split()) * per_word) + template

    async with engine_that_counts(tokens_of) as scripted:
        sizing = await sizing_of(scripted.url)
    assert (sizing.by, sizing.words) == ("usage", WORDS)
    assert sizing.tokens_per_word == pytest.approx(per_word)
    assert sizing.template_tokens == pytest.approx(template)
    texts = Texts(sizing, seed=0, block_tokens=512)
    for tokens in (100, 1000):
        _, own = texts.prompt(PlannedRequest(0.0, tokens, 1), 0)
        assert abs(tokens_of({"prompt": own.decode()}) - tokens) <= 1


async def test_without_any_word_on_tokens_a_word_is_one():
    async def script(_: Received, peer: Peer) -> None:
        await peer.json({"error": "busy"}, status=503)

    async with ScriptedEngine(script) as scripted:
        sizing = await sizing_of(scripted.url)
    assert (sizing.by, sizing.tokens_per_word, sizing.template_tokens) == ("words", 1.0, 0.0)


async def test_an_engine_that_would_refuse_every_request_ends_the_run():
    async def script(_: Received, peer: Peer) -> None:
        await peer.json({"error": "who are you?"}, status=401)

    async with ScriptedEngine(script) as scripted:
        with pytest.raises(BenchError, match=r"a first request got 401: .*who are you"):
            await sizing_of(scripted.url)


async def test_a_redirect_ends_the_run_and_says_where_it_leads():
    async def script(_: Received, peer: Peer) -> None:
        await peer.send(
            b"HTTP/1.1 308 X\r\nlocation: https://x/v1/chat/completions\r\n"
            b"content-length: 0\r\n\r\n"
        )

    said = r"a first request got 308: https://x/v1/chat/completions; give the URL that it leads to"
    async with ScriptedEngine(script) as scripted:
        with pytest.raises(BenchError, match=said):
            await sizing_of(scripted.url)


async def test_a_tokenizer_file_knows_which_words_are_one_token(engine: str, tmp_path: Path):
    vocabulary = {f" {word}": number for number, word in enumerate(WORDS[:100])}
    tokenizer = Tokenizer(models.WordLevel({**vocabulary, "?": 1000}, unk_token="?"))
    # A known word is one token together with its blank, an unknown one falls apart.
    known = "|".join(f" {word}" for word in WORDS[:100])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{known}|."), "isolated")
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    sizing = await sizing_of(engine, tokenizer=file)
    assert (sizing.by, sizing.tokens_per_word) == ("tokenizer file", 1.0)
    assert set(sizing.words) == set(WORDS[:100])
    texts = Texts(sizing, seed=0, block_tokens=512)
    _, own = texts.prompt(PlannedRequest(0.0, 700, 1), 0)
    assert len(tokenizer.encode(own.decode()).ids) == 700 - sizing.template_tokens


async def test_with_a_tokenizer_answers_without_usage_are_counted_by_it(tmp_path: Path):
    """Two tokens in each chunk, one of them an escape in JSON."""
    tokenizer = Tokenizer(models.WordLevel({"a": 1, "\n": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))

    async def script(_: Received, peer: Peer) -> None:
        await peer.start_stream()
        for _number in range(4):
            await peer.event(chat_chunk("a\n"))
            await asyncio.sleep(0.01)
        await peer.end_stream()

    async with ScriptedEngine(script) as scripted:
        target = target_at(scripted.url, tokenizer=file)
        sender = Sender(target, load_of(3), worker=0, workers=1)
        await sender.run(time.monotonic())
    assert {(each.output_tokens, each.tokens_exact) for each in sender.records} == {(4, False)}
    sender.count_untold()
    for record in sender.records:
        assert (record.output_tokens, record.tokens_exact, record.chunks) == (8, True, 4)
        tpot_s = record.tpot_s
        assert tpot_s is not None
        assert sum(record.itl_s) / 3 == pytest.approx(tpot_s, rel=1e-3)


async def test_a_file_that_is_no_tokenizer_is_one_line(engine: str, tmp_path: Path):
    file = tmp_path / "none.json"
    file.write_text("{}")
    with pytest.raises(BenchError, match=r"--tokenizer .*none.json: cannot be read"):
        await sizing_of(engine, tokenizer=file)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
async def test_the_endpoint_is_found_whatever_its_url_ends_with(engine: str, ending: str):
    target = await asyncio.to_thread(reach, BenchSettings(engine + ending))
    assert (target.model, target.base_path, target.ip) == ("m", "", "127.0.0.1")
    assert target.address().port == int(engine.rpartition(":")[2])


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, {}, r"/v1/models: status 404: \{\}; it lists no models: name one with --model$"),
        (400, {}, "status 400: .*; is it the URL of an OpenAI-compatible server[?]$"),
        (308, {}, "status 308: .*; give the URL that it leads to$"),
        (
            503,
            {"error": "loading"},
            "status 503: .*; it is overloaded or not ready: wait, and look",
        ),
        (500, {}, "status 500: .*; it is overloaded or not ready"),
        (429, {}, "status 429: .*; it is overloaded or not ready"),
        (200, {"data": []}, "lists none; name one with --model$"),
        (200, {"nothing": 1}, "not a list of models: .*; is this an engine[?]$"),
    ],
)
async def test_the_advice_fits_what_the_endpoint_answers(status: int, body: object, said: str):
    async def script(_: Received, peer: Peer) -> None:
        await peer.json(body, status=status)

    async with ScriptedEngine(script) as scripted:
        # Under a path of its own the scripted engine has no list of models.
        with pytest.raises(BenchError, match=said):
            await asyncio.to_thread(reach, BenchSettings(f"{scripted.url}/proxy/v1"))


async def test_an_endpoint_that_wants_a_key_is_not_said_to_want_a_model():
    async def script(_: Received, peer: Peer) -> None:
        await peer.json({"error": {"message": "who are you?"}}, status=401)

    async with ScriptedEngine(script) as engine:
        with pytest.raises(
            BenchError, match=r"status 401: .*; give its key in the variable HEADRACE_"
        ):
            await asyncio.to_thread(reach, BenchSettings(f"{engine.url}/proxy"))


async def test_an_endpoint_that_says_nothing_is_not_said_to_want_a_model():
    async def silent(_received: Received, _peer: Peer) -> None:
        await asyncio.sleep(30)

    async with ScriptedEngine(silent) as engine:
        with pytest.raises(BenchError, match=r"no answer within 0.2 s; it takes connections and"):
            await asyncio.to_thread(reach, BenchSettings(f"{engine.url}/proxy", connect_s=0.2))


async def test_tls_where_there_is_none_is_not_said_to_want_a_model(engine: str):
    url = engine.replace("http://", "https://")
    with pytest.raises(BenchError, match=r"does it speak TLS there[?] If not, write http://$"):
        await asyncio.to_thread(reach, BenchSettings(url))
