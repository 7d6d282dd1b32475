"""Putting an engine to sleep and waking it, against emulated engines in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.edges.fleets.sleep_mode import (
    EngineSleep,
    SleepError,
    SleepRefusedError,
    SleepSettings,
)
from headrace.edges.http import fetch
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings
from headrace.engines.sleep_mode import VLLM, is_sleeping
from tests.scripted import Peer, Received, ScriptedEngine

LONG_S = 60.0
SHORT_S = 0.2


@asynccontextmanager
async def engine(wake_s: float | None) -> AsyncIterator[str]:
    timing = ScriptedTiming(Script(), kv_capacity_tokens=1000)
    made = EmulatedEngine(EngineSettings(wake_s=wake_s), timing)
    port = await made.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await made.close()


async def asleep(url: str) -> bool:
    return is_sleeping((await fetch.get(f"{url}/is_sleeping", timeout_s=LONG_S)).body)


@pytest.mark.parametrize("level", [1, 2])
async def test_it_sleeps_and_wakes(level: int):
    sleep = EngineSleep(VLLM, SleepSettings(level=level, timeout_s=LONG_S))
    async with engine(0.05) as url:
        await sleep.sleep(url)
        assert await asleep(url)
        await sleep.wake(url)
        assert not await asleep(url)
        await sleep.wake(url)  # one that is awake: nothing happens


async def test_one_that_does_not_wake_in_time_has_failed():
    sleep = EngineSleep(VLLM, SleepSettings(timeout_s=SHORT_S))
    async with engine(3600.0) as url:
        await sleep.sleep(url)
        with pytest.raises(SleepError, match=r"did not wake within 0\.2 s"):
            await sleep.wake(url)


async def test_one_that_was_not_started_for_it_says_what_it_needs():
    sleep = EngineSleep(VLLM, SleepSettings(timeout_s=LONG_S))
    async with engine(None) as url:
        with pytest.raises(SleepRefusedError, match="VLLM_SERVER_DEV_MODE=1"):
            await sleep.sleep(url)


async def test_one_that_is_not_there_and_one_that_talks_nonsense_are_told_apart():
    sleep = EngineSleep(VLLM, SleepSettings(timeout_s=LONG_S))
    with pytest.raises(SleepError, match=r"^/sleep: "):
        await sleep.sleep("http://127.0.0.1:9")

    async def broken(_received: Received, peer: Peer) -> None:
        await peer.json({}, status=500)

    async with ScriptedEngine(broken) as scripted:
        with pytest.raises(SleepError, match="answers 500 to /sleep"):
            await sleep.sleep(scripted.url)


@pytest.mark.parametrize("status", [404, 405])
async def test_one_that_took_the_call_and_hides_its_state_is_not_as_awake_as_before(status: int):
    async def hides(received: Received, peer: Peer) -> None:
        await peer.json({}, status=200 if received.method == "POST" else status)

    sleep = EngineSleep(VLLM, SleepSettings(timeout_s=LONG_S))
    async with ScriptedEngine(hides) as scripted:
        with pytest.raises(SleepError, match=f"answers {status} to /is_sleeping") as raised:
            await sleep.sleep(scripted.url)
    assert not isinstance(raised.value, SleepRefusedError)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"is_sleeping": 1}', b'{"sleeping": true}'])
def test_an_answer_that_is_no_state_is_an_error(body: bytes):
    with pytest.raises(ValueError, match=r"."):
        is_sleeping(body)


def test_the_captured_answer_of_a_real_one_is_read():
    assert is_sleeping(b'{"is_sleeping":false}') is False
