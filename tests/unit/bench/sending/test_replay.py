"""A replayed trace finds in an engine's prefix cache what the trace says is shared, no more."""

import asyncio
import time

import pytest

from headrace.bench.endpoint.target import reach
from headrace.bench.sending.sender import Sender
from headrace.bench.settings import BenchSettings
from headrace.compose.engine import Modelled
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.modelled import ModelledTiming
from headrace.engine_model.profiles import profile
from headrace.traffic.load import Load
from headrace.traffic.shape import sped_up
from tests.generated_traffic import generate

REQUESTS = 30


@pytest.mark.parametrize("kind", ["multi_turn", "shared_system_prompts"])
async def test_an_engine_sees_the_lengths_and_the_sharing_of_the_trace(kind: str):
    spec = profile("h100-llama-3.1-8b")
    settings = Modelled(spec).settings("m", output_tokens=1)
    # So fast that a prompt is cached before the next one comes.
    engine = EmulatedEngine(settings, ModelledTiming(spec, speed=1000.0))
    await engine.start("127.0.0.1", 0)
    trace = sped_up(generate(kind, requests=REQUESTS, requests_per_s=10.0, seed=5), 2.0)
    try:
        url = f"http://127.0.0.1:{engine.port}"
        target = await asyncio.to_thread(reach, BenchSettings(url, natural_ends=True))
        sender = Sender(target, Load.of_trace(trace, seed=0), worker=0, workers=1)
        await sender.run(time.monotonic())
    finally:
        await engine.close()
    records = sorted(sender.records, key=lambda record: record.index)
    assert [record.input_tokens for record in records] == [
        request.input_tokens for request in trace.requests
    ]
    seen: set[int] = set()
    for record, request in zip(records, trace.requests, strict=True):
        shared = sum(block in seen for block in request.blocks) * trace.block_tokens
        assert record.cached_tokens == min(shared, request.input_tokens - 1)
        seen.update(request.blocks)
