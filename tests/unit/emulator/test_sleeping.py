"""An emulated engine's sleep mode, asked by a real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from headrace.emulator.modelled import ModelledTiming
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings
from headrace.emulator.timing import TimingSource
from headrace.engine_model.profiles import profile
from headrace.engines.sleep_mode import VLLM, is_sleeping
from tests.unit.emulator import asked

HELLO = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3}


def scripted(script: Script) -> ScriptedTiming:
    return ScriptedTiming(script, kv_capacity_tokens=100_000)


@asynccontextmanager
async def serving(
    wake_s: float | None, timing: TimingSource | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    timing = timing or scripted(Script(0.001, 0.0))
    async with asked.serving(EngineSettings(wake_s=wake_s), timing) as (_, client):
        yield client


async def chat(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**HELLO, **body})


async def sleeps(client: httpx.AsyncClient) -> bool:
    return is_sleeping((await client.get("/is_sleeping")).content)


@pytest.mark.parametrize("level", [1, 2])
async def test_what_comes_while_it_sleeps_is_answered_when_it_is_awake(level: int):
    async with serving(0.05) as client:
        slept = await client.post(f"/sleep?level={level}")
        assert slept.json() == {"status": "sleeping", "level": level}
        assert await sleeps(client)
        assert (await client.get("/health")).status_code == 200  # as the real one
        asked = asyncio.create_task(chat(client))
        while "num_requests_waiting{" not in (page := (await client.get("/metrics")).text):
            await asyncio.sleep(0.01)
        assert 'sleep_state="awake"} 0.0' in page
        done, _ = await asyncio.wait([asked], timeout=0.2)
        assert not done
        for post in VLLM.to_wake[level]:
            assert (await client.post(post.path, content=post.body)).status_code == 200
        assert not await sleeps(client)
        assert (await asked).json()["usage"]["completion_tokens"] == 3


async def test_it_sleeps_until_all_of_its_memory_is_back():
    async with serving(0.0) as client:
        await client.post("/sleep?level=2")
        half = await client.post("/wake_up?tags=weights")
        assert half.json() == {"status": "sleeping", "tags": ["weights"]}
        assert await sleeps(client)
        whole = await client.post("/wake_up?tags=kv_cache")
        assert whole.json() == {"status": "awake", "tags": ["kv_cache"]}
        again = await client.post("/wake_up")  # does no harm
        assert again.json() == {"status": "awake", "tags": None}


async def test_a_wake_that_is_under_way_does_not_end_the_sleep_after_it():
    async with serving(0.5) as client:
        await client.post("/sleep")
        waking = asyncio.create_task(client.post("/wake_up"))
        await asyncio.sleep(0.05)
        await client.post("/sleep")
        assert (await waking).json() == {"status": "sleeping", "tags": None}
        assert await sleeps(client)
        assert (await client.post("/wake_up")).json()["status"] == "awake"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_runs_when_it_falls_asleep_is_aborted(stream: bool):
    async with serving(0.0, scripted(Script(0.001, 3600.0))) as client:
        asked = asyncio.create_task(chat(client, stream=stream))
        while "generation_tokens_total" not in (page := (await client.get("/metrics")).text) or (
            'generation_tokens_total{engine="0",model_name="emulated"} 0.0' in page
        ):
            await asyncio.sleep(0.01)
        await client.post("/sleep")
        answer = await asked
        assert '"finish_reason":"abort"' in answer.text
        page = (await client.get("/metrics")).text
        assert 'finished_reason="abort"} 1.0' in page


async def test_what_was_cached_is_forgotten():
    timing = ModelledTiming(profile("h100-llama-3.1-8b"), speed=100.0)
    text = "a prompt of many words " * 200
    body = {"messages": [{"role": "user", "content": text}]}
    async with serving(0.0, timing) as client:

        async def cached() -> float:
            await chat(client, **body)
            page = (await client.get("/metrics")).text
            row = next(x for x in page.splitlines() if x.startswith("vllm:prefix_cache_hits_total"))
            return float(row.rpartition(" ")[2])

        assert await cached() == 0.0
        assert (once := await cached()) > 0.0
        await client.post("/sleep")
        await client.post("/wake_up")
        assert await cached() == once
        assert await cached() > once


async def test_without_sleep_mode_nothing_of_it_is_there_and_what_is_wrong_is_refused():
    async with serving(None) as client:
        assert (await client.post("/sleep")).status_code == 404
        assert (await client.get("/is_sleeping")).status_code == 404
    async with serving(0.0) as client:
        assert (await client.get("/sleep")).status_code == 405
        assert (await client.post("/sleep?level=3")).status_code == 400
        assert not await sleeps(client)
