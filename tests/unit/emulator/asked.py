"""Emulated engines on real ports, and a client that asks them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from headrace.compose.engine import Modelled
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.modelled import ModelledTiming
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings
from headrace.emulator.timing import TimingSource
from headrace.engine_model.profiles import profile
from headrace.engines.registry import dialect
from tests.plain_http import NO_TRUST_STORE

QUICK = Script(ttft_s=0.001, itl_s=0.0)
ENDLESS = Script(ttft_s=0.001, itl_s=3600.0)
HELLO = {"messages": [{"role": "user", "content": "hello there"}]}


@asynccontextmanager
async def running(
    script: Script = QUICK, **settings: object
) -> AsyncIterator[tuple[EmulatedEngine, httpx.AsyncClient]]:
    made = EngineSettings(**settings)  # pyright: ignore[reportArgumentType] - the test's own names
    timing = ScriptedTiming(script, kv_capacity_tokens=made.kv_capacity_tokens)
    async with serving(made, timing) as pair:
        yield pair


@asynccontextmanager
async def modelled(
    name: str = "h100-llama-3.1-8b", speed: float = 100.0
) -> AsyncIterator[tuple[EmulatedEngine, httpx.AsyncClient]]:
    settings = Modelled(profile(name)).settings("m", 128)
    async with serving(settings, ModelledTiming(profile(name), speed=speed)) as pair:
        yield pair


@asynccontextmanager
async def serving(
    settings: EngineSettings, timing: TimingSource
) -> AsyncIterator[tuple[EmulatedEngine, httpx.AsyncClient]]:
    engine = EmulatedEngine(settings, timing)
    port = await engine.start("127.0.0.1", 0)
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(
        base_url=base, timeout=30, trust_env=False, verify=NO_TRUST_STORE
    ) as client:
        try:
            yield engine, client
        finally:
            await engine.close()


async def chat(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**HELLO, **body})


def events(answer: httpx.Response) -> list[Any]:
    """The chunks of a stream; asserts its form."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done, rest = answer.text.split("\n\n")
    assert done == "data: [DONE]"
    assert rest == ""
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


async def read_metrics(client: httpx.AsyncClient):
    """What the gateway's vLLM dialect finds, so that names and form are those of a real one."""
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return dialect("vllm").read({"/metrics": (200, answer.content)})
