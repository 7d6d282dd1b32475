"""The alarm rings once, never before its time, with a timer of the kernel and without."""

import asyncio
import time
from math import inf

import pytest
import uvloop

from headrace.bench.timing import clock
from headrace.bench.timing.clock import Alarm

HANG_S = 10.0


@pytest.fixture(params=["kernel's timer", "no timer"])
def timers(request, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no timer":
        monkeypatch.setattr(clock, "_open_timer", lambda: (None, -1))


def on_uvloop(work) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work(), HANG_S))


def alarm_noted_in(rings: list[float]) -> tuple[Alarm, asyncio.Event]:
    """An alarm whose rings are noted, and what is set by each."""
    rung = asyncio.Event()

    def ring() -> None:
        rings.append(time.monotonic())
        rung.set()

    return Alarm(asyncio.get_running_loop(), ring), rung


def test_it_never_rings_early(timers):
    early: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        for number in range(60):
            rung = loop.create_future()
            at_s = time.monotonic() + number * 0.00017
            alarm = Alarm(loop, lambda rung=rung: rung.set_result(time.monotonic()))
            alarm.set(at_s)
            early.append(await rung - at_s)
            alarm.close()

    on_uvloop(work)
    assert len(early) == 60
    assert min(early) >= 0


def test_it_rings_once_at_the_time_set_last(timers):
    rings: list[float] = []

    async def work() -> None:
        alarm, rung = alarm_noted_in(rings)
        now = time.monotonic()
        alarm.set(now + 60)
        alarm.set(now + 0.01)
        alarm.set(now + 0.05)
        await rung.wait()
        await asyncio.sleep(0.05)
        assert len(rings) == 1
        assert rings[0] >= now + 0.05
        alarm.set(time.monotonic() + 0.02)
        alarm.close()
        await asyncio.sleep(0.05)

    on_uvloop(work)
    assert len(rings) == 1


def test_what_it_calls_may_set_it_anew(timers):
    rings: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def ring() -> None:
            rings.append(time.monotonic())
            if len(rings) == 20:
                done.set_result(None)
            else:
                alarm.set(begun_s + 0.003 * len(rings))

        alarm = Alarm(loop, ring)
        begun_s = time.monotonic()
        alarm.set(0.0)  # long ago: at once
        await done
        alarm.close()
        assert all(at_s >= begun_s + 0.003 * place for place, at_s in enumerate(rings))

    on_uvloop(work)


def test_held_it_rings_when_it_is_checked_and_by_itself_when_released(timers):
    rings: list[float] = []

    async def work() -> None:
        alarm, rung = alarm_noted_in(rings)
        alarm.hold()
        at_s = time.monotonic() + 0.01
        alarm.set(at_s)
        assert alarm.at_s == at_s
        await asyncio.sleep(0.03)
        assert not rings
        alarm.check()
        alarm.check()  # once is enough
        assert len(rings) == 1
        assert alarm.at_s == inf
        rung.clear()
        alarm.set(time.monotonic() + 0.01)
        alarm.release()
        await rung.wait()
        assert len(rings) == 2
        alarm.close()

    on_uvloop(work)


def test_soon_is_the_next_turn_and_once(timers):
    rings: list[float] = []

    async def work() -> None:
        alarm = Alarm(asyncio.get_running_loop(), lambda: rings.append(time.monotonic()))
        alarm.set(time.monotonic() + 60)
        alarm.soon()
        alarm.soon()
        assert not rings
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(rings) == 1
        alarm.hold()
        alarm.soon()
        await asyncio.sleep(0.01)
        assert len(rings) == 1
        alarm.check()
        assert len(rings) == 2
        alarm.close()

    on_uvloop(work)
