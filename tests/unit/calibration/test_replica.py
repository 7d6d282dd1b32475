"""What an engine says of itself, and whether others use it."""

import asyncio
import itertools
import json
import random

import pytest

from headrace.calibration.design import PromptExperiment
from headrace.calibration.experiments import Laboratory
from headrace.calibration.replica import CalibrationError, identify
from headrace.calibration.session import Session, Settings
from headrace.calibration.stream import StreamClient, StreamError
from headrace.core.latency import LatencyProfile
from headrace.core.model import Endpoint
from tests.scripted import Peer, Received, ScriptedEngine, stream_words, usage_chunk

METRICS = """\
vllm:num_requests_running{{engine="0"}} {running}
vllm:num_requests_waiting{{engine="0"}} 0
vllm:generation_tokens_total{{engine="0"}} {generated}
vllm:prefix_cache_hits_total{{engine="0"}} {hits}
vllm:cache_config_info{{block_size="16",num_gpu_blocks="101",engine="0"}} 1
"""
MODELS: tuple[dict[str, object], ...] = (
    {"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 2048},
    {"id": "lora", "object": "model", "owned_by": "vllm", "parent": "m"},
)


class Engine:
    """vLLM's metrics and completions of one token; others may use it too."""

    def __init__(self) -> None:
        self.running = 0
        self.generated = 0
        self.others_tokens = 0
        self.hits = 0
        self.last_prompt = ""

    async def __call__(self, received: Received, peer: Peer) -> None:
        if received.target == "/metrics":
            text = METRICS.format(
                running=self.running, generated=self.generated, hits=self.hits
            ).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n"
            await peer.send(head % len(text) + text)
        elif received.target == "/version":
            await peer.json({"version": "0.32.0"})
        elif received.target == "/v1/completions":
            await self.complete(received, peer)
        else:
            await peer.json({"detail": "Not Found"}, 404)

    async def complete(self, received: Received, peer: Peer) -> None:
        prompt, tokens = received.json["prompt"], received.json["max_tokens"]
        words = len(prompt.split())
        if self.last_prompt and prompt.startswith(self.last_prompt):
            self.hits += len(self.last_prompt.split())
        self.last_prompt = prompt
        self.generated += tokens + self.others_tokens
        await peer.start_stream()
        for _ in range(tokens):
            await peer.event({"choices": [{"index": 0, "text": "a", "finish_reason": None}]})
        await peer.event(usage_chunk(words, tokens))
        await peer.end_stream()


async def test_what_it_is_and_holds():
    async with ScriptedEngine(Engine(), models=MODELS) as engine:
        replica = await identify(engine.url, None, None)
        assert (replica.model, replica.dialect.name, replica.version) == ("m", "vllm", "0.32.0")
        assert replica.max_context_tokens == 2048
        assert (replica.kv_capacity_tokens, replica.kv_block_tokens) == (1600, 16)
        assert (await identify(engine.url, "lora", None)).model == "lora"
        with pytest.raises(CalibrationError, match="does not serve 'x' but m, lora"):
            await identify(engine.url, "x", None)


async def test_what_it_says_does_nothing_to_a_terminal():
    name = "\x1b[31mred"
    models: tuple[dict[str, object], ...] = ({"id": name, "object": "model"},)

    async def refuse(_received: Received, peer: Peer) -> None:
        await peer.json({"error": {"message": "\x1b[2Jnot\r\ntoday\x07"}}, 500)

    async with ScriptedEngine(refuse, models=models) as engine:
        replica = await identify(engine.url, None, None)
        assert (replica.model, replica.title) == (name, "�[31mred")
        with pytest.raises(CalibrationError, match=r"does not serve 'x' but �\[31mred$"):
            await identify(engine.url, "x", None)
        with pytest.raises(CalibrationError, match=r"HTTP 500: �\[2Jnot today�$"):
            await (await session(engine)).calibrate()
    twice: tuple[dict[str, object], ...] = (
        {"id": name, "object": "model"},
        {"id": "m", "object": "model"},
    )
    async with ScriptedEngine(refuse, models=twice) as engine:
        with pytest.raises(CalibrationError, match=r"serves �\[31mred, m: name one with --model"):
            await identify(engine.url, None, None)


async def test_a_key_is_sent_and_never_shown():
    async with ScriptedEngine(Engine(), models=MODELS) as engine:
        replica = await identify(engine.url, None, "secret")
        assert {each.headers["authorization"] for each in engine.received} == {"Bearer secret"}
        assert "secret" not in repr(replica)


async def test_nobody_there():
    with pytest.raises(CalibrationError, match=r"does not answer: cannot connect: .*; is the eng"):
        await identify("http://127.0.0.1:1", None, None)


async def session(engine: ScriptedEngine) -> Session:
    replica = await identify(engine.url, None, None)
    client = StreamClient(replica, timeout_s=30.0)
    return Session(replica, client, Settings(budget_s=1.0), lambda *_: None)


async def test_hits_that_usage_does_not_tell_are_read_from_the_metrics():
    async with ScriptedEngine(Engine(), models=MODELS) as engine:
        replica = await identify(engine.url, None, None)
        client = StreamClient(replica, timeout_s=30.0)
        laboratory = Laboratory(replica, client, random.Random(1))
        await laboratory.warm_up()
        points = await laboratory.prompt(PromptExperiment(64, (16, 32)))
        tokens = [(point.uncached_tokens, point.cached_tokens) for point in points]
        assert tokens == [(64, 0), (16, 64), (32, 80)]
        assert laboratory.hits_verified
        client.close()


async def test_what_nobody_says_was_cached_is_no_experiment():
    async def silent(received: Received, peer: Peer) -> None:
        await stream_words(peer, received.json["max_tokens"], input_tokens=100)

    async with ScriptedEngine(silent, models=({"id": "m"},)) as engine:
        replica = await identify(engine.url, None, None)
        assert replica.dialect.name == "openai"
        client = StreamClient(replica, timeout_s=30.0)
        laboratory = Laboratory(replica, client, random.Random(1))
        points = await laboratory.prompt(PromptExperiment(64, (16,)))
        assert len(points) == 1
        assert laboratory.hits_verified is False
        client.close()


async def test_a_replica_that_works_for_others_is_not_measured():
    script = Engine()
    script.running = 2
    async with ScriptedEngine(script, models=MODELS) as engine:
        with pytest.raises(CalibrationError, match="not idle: 2 requests run and 0 wait"):
            await (await session(engine)).calibrate()
        assert [each for each in engine.received if each.method == "POST"] == []


async def test_others_that_came_in_between_are_noticed_at_the_end():
    script = Engine()
    async with ScriptedEngine(script, models=MODELS) as engine:
        measuring = await session(engine)
        script.others_tokens = 50
        with pytest.raises(CalibrationError, match="tokens for others meanwhile"):
            await measuring.check(LatencyProfile("p", "", 1e-4, 1e-6))


async def test_an_engine_of_chats_alone_that_does_not_know_ignore_eos():
    async def strict(received: Received, peer: Peer) -> None:
        body = received.json
        if received.target != "/v1/chat/completions":
            await peer.json({"error": {"message": "no such path"}}, 404)
        elif "ignore_eos" in body:
            await peer.json({"error": {"message": "unknown field ignore_eos"}}, 422)
        else:
            await stream_words(peer, body["max_tokens"])

    async with ScriptedEngine(strict, models=MODELS) as engine:
        replica = await identify(engine.url, None, None)
        client = StreamClient(replica, timeout_s=30.0)
        answer = await client.settle("Good morning")
        assert (client.endpoint, client.ignores_eos) == (Endpoint.CHAT, False)
        assert len(answer.content_s) == answer.usage.output_tokens == 8
        assert answer.tokens_per_event == 1.0
        client.close()


async def test_a_gateway_before_several_replicas_is_not_measured():
    asked = itertools.count()

    async def gateway(received: Received, peer: Peer) -> None:
        if received.target != "/v1/completions":
            await peer.json({"error": {"message": "no such path"}}, 404)
            return
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"x-headrace-replica: pool/%d\r\ntransfer-encoding: chunked\r\n\r\n"
            % (next(asked) // 2)
        )
        await peer.event({"choices": [{"index": 0, "text": "a", "finish_reason": None}]})
        await peer.event(usage_chunk(3, 1))
        await peer.end_stream()

    async with ScriptedEngine(gateway, models=MODELS) as engine:
        replica = await identify(engine.url, None, None)
        client = StreamClient(replica, timeout_s=30.0)
        await client.ask("one", 8)
        await client.ask("two", 8)
        with pytest.raises(CalibrationError, match=r"several replicas \(pool/0, pool/1\): measure"):
            await client.ask("three", 8)
        client.close()


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "said"),
    [
        (5, 8, "5 prompt tokens for 64 words, 8 output tokens in 8 events"),
        (-5, -3, "-5 prompt tokens for 64 words, -3 output tokens"),
        (64, 10**26, "100,000,000,000,000,000,000,000,000 output tokens in 8 events"),
        (10**26, 8, "100,000,000,000,000,000,000,000,000 prompt tokens for 64 words"),
        (64, 0, "0 output tokens in 8 events"),
    ],
)
async def test_usage_that_cannot_be_measures_nothing(
    input_tokens: int, output_tokens: int, said: str
):
    async def lie(received: Received, peer: Peer) -> None:
        await peer.start_stream()
        for _word in range(received.json["max_tokens"]):
            await peer.event({"choices": [{"index": 0, "text": "a", "finish_reason": None}]})
        usage = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens}
        await peer.chunk(b"data: " + json.dumps({"choices": [], "usage": usage}).encode())
        await peer.chunk(b"\n\n")
        await peer.end_stream()

    async with ScriptedEngine(lie, models=({"id": "m"},)) as engine:
        with pytest.raises(CalibrationError, match=f"its usage cannot be: .*{said}"):
            await (await session(engine)).calibrate()


async def test_an_engine_that_refuses_everything_is_quoted():
    async def refuse(_received: Received, peer: Peer) -> None:
        await peer.json({"error": {"message": "not today"}}, 500)

    async with ScriptedEngine(refuse, models=MODELS) as engine:
        with pytest.raises(CalibrationError, match="cannot be measured: HTTP 500: not today"):
            await (await session(engine)).calibrate()


async def test_prompts_beside_a_stream_come_when_it_has_begun_and_so_many_at_once():
    running, most, order = 0, 0, list[str]()

    async def answer(received: Received, peer: Peer) -> None:
        nonlocal running, most
        prompt, tokens = received.json["prompt"], received.json["max_tokens"]
        order.append(prompt)
        running += 1
        most = max(most, running)
        await peer.start_stream()
        for _ in range(tokens):
            await peer.event({"choices": [{"index": 0, "text": "a", "finish_reason": None}]})
            await asyncio.sleep(0.002)
        running -= 1
        await peer.event(usage_chunk(len(prompt.split()), tokens))
        await peer.end_stream()

    async with ScriptedEngine(answer, models=({"id": "m"},)) as engine:
        replica = await identify(engine.url, None, None)
        client = StreamClient(replica, timeout_s=30.0)
        prompts = [f"prompt {i}" for i in range(7)]
        clock, answers = await client.beside("the first one", 40, prompts, 2, 3)
        client.close()
    assert order[0] == "the first one"
    assert sorted(order[1:]) == prompts
    assert most == 1 + 3
    assert clock.usage.output_tokens == len(clock.content_s) == 40
    assert [each.usage.output_tokens for each in answers] == [2] * 7
    assert all(each.asked_s >= clock.content_s[0] for each in answers)


async def test_a_prompt_that_fails_beside_a_stream_is_told_and_nothing_goes_on():
    async def answer(received: Received, peer: Peer) -> None:
        if received.json["prompt"] == "bad":
            await peer.json({"error": {"message": "no room"}}, 500)
        else:
            await stream_words(peer, received.json["max_tokens"], input_tokens=3)

    async with ScriptedEngine(answer, models=({"id": "m"},)) as engine:
        replica = await identify(engine.url, None, None)
        client = StreamClient(replica, timeout_s=30.0)
        with pytest.raises(StreamError, match="HTTP 500: no room"):
            await client.beside("first", 5, ["good", "bad", "good"], 2, 1)
        client.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
