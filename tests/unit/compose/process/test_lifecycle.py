"""Stopping: the first signal drains, the second ends it at once."""

import asyncio
import os
import signal

import pytest

from headrace.compose.process.lifecycle import StopAsked, StopSignals


class Plane:
    """Notes what is asked of it; drains when let go."""

    def __init__(self, stop: StopSignals) -> None:
        self.stop = stop
        self.calls: list[object] = []
        self.idle = asyncio.Event()

    def begin_drain(self) -> None:
        self.calls.append("begin")

    async def drain(self, drain_s: float) -> int:
        self.calls.append(drain_s)
        if not drain_s:
            return 3
        try:
            async with asyncio.timeout(drain_s):
                await self.idle.wait()
        except TimeoutError:
            return 2
        return 0


async def test_work_goes_on_while_nobody_asks_to_stop():
    async def work():
        await asyncio.sleep(0)
        return 7

    assert await StopSignals().unless_asked(work()) == 7


async def test_errors_of_the_work_come_through():
    async def work():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await StopSignals().unless_asked(work())


async def test_a_stop_cancels_the_work_and_lets_it_clean_up():
    stop, cleaned = StopSignals(), asyncio.Event()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    asyncio.get_running_loop().call_soon(stop.stop)
    with pytest.raises(StopAsked):
        await stop.unless_asked(work())
    assert cleaned.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_real_signals(number):
    stop = StopSignals()
    stop.listen()
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.asked.wait(), 10)
        assert not stop.at_once.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.at_once.wait(), 10)
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(each)


async def test_grace_comes_before_the_drain():
    stop = StopSignals()
    plane = Plane(stop)
    plane.idle.set()
    assert await stop.drain(plane, grace_s=0.01, drain_s=5.0) == 0
    assert plane.calls == ["begin", 5.0]


async def test_what_takes_too_long_is_cut_and_counted():
    stop = StopSignals()
    assert await stop.drain(Plane(stop), grace_s=0.0, drain_s=0.01) == 2


async def test_a_second_signal_ends_the_grace():
    stop = StopSignals()
    plane = Plane(stop)
    stop.stop()
    stop.stop()
    assert await stop.drain(plane, grace_s=3600.0, drain_s=3600.0) == 3
    assert plane.calls == ["begin", 0.0]


async def test_a_second_signal_ends_the_drain():
    stop = StopSignals()
    plane = Plane(stop)
    stop.stop()
    asyncio.get_running_loop().call_later(0.02, stop.stop)
    assert await stop.drain(plane, grace_s=0.0, drain_s=3600.0) == 3
    assert plane.calls[-1] == 0.0
