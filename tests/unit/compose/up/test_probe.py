"""The probe: what it makes of engines that answer, refuse, or take too long."""

import asyncio
import random

import pytest

from headrace.compose.up import probe as probing
from headrace.compose.up.probe import probe
from tests.scripted import Peer, Received, ScriptedEngine, usage_chunk


async def by_length(received: Received, peer: Peer) -> None:
    """Prefills a word in 2 ms and decodes a token in 4."""
    words = len(received.json["prompt"].split())
    tokens = received.json["max_tokens"]
    await peer.start_stream()
    await asyncio.sleep(0.002 * words)
    for number in range(tokens):
        await asyncio.sleep(0.004)
        await peer.event({"choices": [{"index": 0, "text": f"t{number} ", "finish_reason": None}]})
    await peer.event(usage_chunk(words, tokens))
    await peer.end_stream()


async def refuse(_received: Received, peer: Peer) -> None:
    await peer.json({"error": {"message": "no completions here"}}, 404)


async def hang(_received: Received, peer: Peer) -> None:
    await peer.gone.wait()


async def test_a_profile_of_an_engine_that_answers():
    async with ScriptedEngine(by_length) as engine:
        profile = await probe(engine.url, "m", random.Random(1))
    assert profile.source == "probed at start"
    assert profile.prefill_s(400) > profile.prefill_s(100) > 0
    assert profile.step_s(1, 100) > 0
    prompts = [received.json["prompt"] for received in engine.received]
    assert len(set(prompts)) == len(prompts)  # none is found in a cache


async def test_an_engine_that_refuses():
    async with ScriptedEngine(refuse) as engine:
        with pytest.raises(ValueError, match="did not answer the probe: HTTP 404: no completions"):
            await probe(engine.url, "m", random.Random(1))


async def test_an_engine_that_takes_too_long_leaves_too_little_to_fit(monkeypatch):
    monkeypatch.setattr(probing, "PROBE_S", 0.1)
    async with ScriptedEngine(hang) as engine:
        with pytest.raises(ValueError, match=r"^too slow or too busy to measure in 0\.1 s$"):
            await probe(engine.url, "m", random.Random(1))
