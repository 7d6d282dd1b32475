"""How a program's event loop runs and stops: SIGTERM or SIGINT drains, a second one ends it."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import uvloop

Result = TypeVar("Result")

_COLLECT_EVERY = (20_000, 50, 100)
"""Allocations before the youngest objects are searched for cycles, and how many such searches come
before the older ones'. Python's own 700 have the collector walk through requests in flight and the
decision log all the time: a tenth of the CPU per request, for nothing, since a request that ends
leaves no cycle behind."""


def run_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a program that serves, to its end, on uvloop."""
    gc.collect()
    gc.freeze()  # modules and classes are never garbage
    gc.set_threshold(*_COLLECT_EVERY)
    return uvloop.run(work)


class StopAsked(Exception):
    """A signal came while something was still being prepared."""


class Drainable(Protocol):
    """A data plane, as far as stopping it goes."""

    def begin_drain(self) -> None:
        """Say 503 on `/ready`, serve on."""
        ...

    async def drain(self, drain_s: float) -> int:
        """Refuse new connections, let requests finish; return how many were cut."""
        ...


def hangups(asked_before: Callable[[], bool]) -> asyncio.Event:
    """What every SIGHUP sets from now on, and one that came before the loop ran has set."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    if asked_before():
        asked.set()
    return asked


class StopSignals:
    """Turns signals into two events: `asked`, then `at_once`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def listen(self) -> None:
        """Take SIGTERM and SIGINT from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """What each signal does."""
        (self.at_once if self.asked.is_set() else self.asked).set()

    async def unless_asked(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do `work`; raise StopAsked, with `work` cancelled, when a stop is asked for."""
        return await _unless(self.asked, work)

    async def drain(self, plane: Drainable, *, grace_s: float, drain_s: float) -> int:
        """Let a gateway finish. Return how many requests were cut off."""
        plane.begin_drain()
        try:
            await _unless(self.at_once, asyncio.sleep(grace_s))
            return await _unless(self.at_once, plane.drain(drain_s))
        except StopAsked:
            return await plane.drain(0.0)


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result:
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise StopAsked
    finally:
        waiter.cancel()
        task.cancel()
        await asyncio.gather(task, waiter, return_exceptions=True)
