"""Arrivals gather only where they are many, and what is due is sent in time all the same."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import uvloop

from headrace.bench.sending.sender import Sender
from headrace.bench.timing import ticks
from headrace.bench.timing.arrival_log import ArrivalLog
from headrace.bench.timing.clock import Alarm
from headrace.bench.timing.ticks import JUDGED_EACH_S, LONGEST_S, Ticks
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings
from tests.unit.bench.runs import load_of, play

HANG_S = 30.0
MUCH = 1_000_000
"""Pieces between two looks, however long that takes."""


class Watched(ArrivalLog):
    """A loop with ticks whose arrivals are made up: `step` more at each look."""

    def __init__(self, step: int) -> None:
        super().__init__(may_hold=True, fail=print)
        self.step = step
        self.arrived = 0
        self.burst_each_s = 0.0
        self.connecting = False
        self.rings: list[float] = []
        self.rung = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.alarm = Alarm(loop, self.ring)
        self.ticks = Ticks(loop, self.alarm, self, lambda: self.connecting)

    @property
    def reads(self) -> int:
        if self.burst_each_s:
            return MUCH * int(time.monotonic() / self.burst_each_s)
        self.arrived += self.step
        return self.arrived

    def ring(self) -> None:
        self.rings.append(time.monotonic())
        self.rung.set()

    async def rings_at(self, at_s: float) -> None:
        self.rung.clear()
        self.alarm.set(at_s)
        await self.rung.wait()
        assert self.rings[-1] >= at_s

    def close(self) -> None:
        self.ticks.close()
        self.alarm.close()


def on_uvloop(work) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work(), HANG_S))


async def turns_until(condition) -> None:
    while not condition():
        await asyncio.sleep(JUDGED_EACH_S)


@pytest.mark.interpreted
def test_few_arrivals_are_noted_as_they_come():
    async def work() -> None:
        watched = Watched(0)
        await asyncio.sleep(5 * JUDGED_EACH_S)
        assert watched.ticks.longest_s == 0.0
        watched.close()

    on_uvloop(work)


@pytest.mark.interpreted
def test_many_gather_and_the_alarm_rings_in_time_before_within_and_after():
    async def work() -> None:
        watched = Watched(0)
        await watched.rings_at(time.monotonic() + 0.002)
        watched.step = MUCH
        await turns_until(lambda: watched.ticks.is_on)
        for number in range(20):
            await watched.rings_at(time.monotonic() + number * 0.00037)
        watched.step = 0
        await turns_until(lambda: not watched.ticks.is_on)
        await watched.rings_at(time.monotonic() + 0.002)
        assert len(watched.rings) == 22
        watched.close()

    on_uvloop(work)


@pytest.mark.interpreted
def test_a_set_alarm_outlives_the_end_of_ticks():
    async def work() -> None:
        watched = Watched(MUCH)
        await turns_until(lambda: watched.ticks.is_on)
        watched.alarm.set(time.monotonic() + 0.2)
        watched.step = 0
        await turns_until(lambda: not watched.ticks.is_on)
        await watched.rung.wait()
        watched.close()

    on_uvloop(work)


@pytest.mark.interpreted
def test_bursts_gather_by_themselves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ticks, "BURSTS_S", 1e9)
    monkeypatch.setattr(ticks, "WATCHED_TICKS", 10)

    async def work() -> None:
        watched = Watched(0)
        watched.burst_each_s = JUDGED_EACH_S / 2
        await turns_until(lambda: watched.ticks.longest_s > 0)
        await turns_until(lambda: not watched.ticks.is_on)
        for _ in range(5):
            await asyncio.sleep(JUDGED_EACH_S)
            assert not watched.ticks.is_on
        watched.close()

    on_uvloop(work)


@pytest.mark.interpreted
def test_what_takes_several_turns_has_none():
    async def work() -> None:
        watched = Watched(MUCH)
        await turns_until(lambda: watched.ticks.is_on)
        watched.connecting = True
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not watched.ticks.is_on
        watched.connecting = False
        await turns_until(lambda: watched.ticks.is_on)  # from the next judgement on
        watched.close()

    on_uvloop(work)


@pytest.fixture
async def engine() -> AsyncIterator[EmulatedEngine]:
    timing = ScriptedTiming(Script(0.02, 0.005), kv_capacity_tokens=1_000_000)
    emulated = EmulatedEngine(EngineSettings(model="m"), timing)
    await emulated.start("127.0.0.1", 0)
    yield emulated
    await emulated.close()


async def test_a_sender_reads_the_same_with_ticks(engine: EmulatedEngine):
    ticked: list[float] = []
    for requests, rate, lengths in ((300, 1000.0, "16/60"), (5, 100.0, "16/8")):
        senders: list[Sender] = []

        async def keep(sender: Sender, kept: list[Sender] = senders) -> None:
            kept.append(sender)

        url = f"http://127.0.0.1:{engine.port}"
        records = await play(url, load_of(requests, rate=rate, lengths=lengths), keep)
        ticked.append(senders[0].tick_s)
        assert [record.index for record in records] == list(range(requests))
        assert {(record.error, record.chunks) for record in records} == {
            ("", int(lengths.partition("/")[2]))
        }
    assert LONGEST_S >= ticked[0] > ticked[1] == 0.0
