"""One figure each: what a proxy spends per request, per event, per stream that is open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import NamedTuple

import uvloop

from benchmarks.contenders import Proxy
from benchmarks.engines import STREAM_TOKENS, stream
from benchmarks.load import Payloads, closed_loop, hold_streams, open_loop, run_streams

CONNECTIONS = 32
"""Connections of a closed loop: enough to keep a proxy busy, few enough for it to answer all."""
SETTLE_S = 0.3
"""After a run, for what is done once its answers are out."""
WARM_REQUESTS = 1_500
WARM_STREAMS = 64
WARM_TOKENS = 16


def request_cpu_us(proxy: Proxy, payloads: Payloads, requests: int) -> float:
    """CPU microseconds per request, of a loop that leaves no pause."""

    async def load() -> None:
        await closed_loop(proxy.port, payloads, connections=CONNECTIONS, requests=requests)
        await asyncio.sleep(SETTLE_S)

    return _cpu_s(proxy, load()) / requests * 1e6


class Events(NamedTuple):
    """What streamed events took."""

    cpu_us: float
    """CPU microseconds per event."""
    waits: float
    """How often per event the proxy slept until there was something to do."""


def events(proxy: Proxy, streams: int, *, apart_s: float) -> Events:
    """Of streams at the engines' own pace, each begun `apart_s` seconds after the one before."""
    came = 0

    async def load() -> None:
        nonlocal came
        request = stream(STREAM_TOKENS)
        came = await run_streams(proxy.port, request, streams=streams, apart_s=apart_s)
        await asyncio.sleep(SETTLE_S)

    waits_before = proxy.process.waits()
    cpu_s = _cpu_s(proxy, load())
    return Events(cpu_s / came * 1e6, (proxy.process.waits() - waits_before) / came)


def idle_cpu_s(proxy: Proxy, span_s: float) -> float:
    """CPU seconds per second with no request at all: scrapes, health checks, timers."""
    return _cpu_s(proxy, asyncio.sleep(span_s)) / span_s


def latencies_s(port: int, payloads: Payloads, *, rate: float, requests: int) -> list[float]:
    """Seconds from each request to the end of its answer."""

    async def load() -> list[float]:
        return await open_loop(port, payloads, rate=rate, requests=requests)

    return uvloop.run(load())


def stream_memory_bytes(proxy: Proxy, streams: int) -> float:
    """Memory per stream that is open and silent; its engines must be slow ones."""

    async def load() -> float:
        before = proxy.process.memory_bytes()
        async with hold_streams(proxy.port, stream(STREAM_TOKENS), streams=streams):
            await asyncio.sleep(SETTLE_S)
            return (proxy.process.memory_bytes() - before) / streams

    return uvloop.run(load())


def warm_up(proxy: Proxy, payloads: Payloads) -> None:
    """Open connections, fill caches of code, reach the steady state."""
    uvloop.run(closed_loop(proxy.port, payloads, connections=CONNECTIONS, requests=WARM_REQUESTS))


def let_learn(proxy: Proxy) -> None:
    """Send it streams: from those the gateway learns seconds, and routes by them from then on."""
    uvloop.run(run_streams(proxy.port, stream(WARM_TOKENS), streams=WARM_STREAMS))


def _cpu_s(proxy: Proxy, load: Awaitable[None]) -> float:
    async def run() -> float:
        before_s = proxy.process.cpu_s()
        await load
        return proxy.process.cpu_s() - before_s

    return uvloop.run(run())
