"""A ramp over emulated replicas that take 10 s to start: capacity comes in time, and goes again.

The replicas are `headrace engine` processes, modelled on an L40S with an 8B model, that the gateway
starts and ends itself. Prompts of some 2,000 tokens, none of it cached: one replica prefills about
six of them a second.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.gateway.serve_process import Serve, serving

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]

PROFILE = "l40s-llama-3.1-8b"
LOAD_TIME_S = 10
TTFT_TARGET_S = 2.0
WORDS = 1_400
"""About 2,000 tokens of four bytes."""
STEPS = ((20.0, 1.0, 1.0), (100.0, 1.0, 8.0), (30.0, 8.0, 8.0), (10.0, 8.0, 1.0))
"""Seconds, and requests per second at their begin and end."""
AFTER = 1.0
"""Requests per second from then on, until replicas go again."""
AFTER_S = 600.0
"""A hang guard."""
CONFIG = f"""
grace: 0s
pools:
  - name: emu
    model: emulated
    engine: vllm
    profile: {PROFILE}
    start:
      command: [headrace, engine, --port, "{{port}}", --profile, {PROFILE},
                --load-time, {LOAD_TIME_S}s]
scaling:
  pools:
    emu: {{max_replicas: 6, warm_replicas: 1, tick: 1s, cold_start: {LOAD_TIME_S}s,
          scale_down_window: 20s, target: {{ttft: 2s, tpot: 200ms}}}}
"""


@dataclass
class Load:
    """What was asked and what came of it."""

    began_s: float = field(default_factory=time.monotonic)
    ttfts: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the begin, and TTFT."""
    broken: list[str] = field(default_factory=list)
    replicas: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the begin, replicas ready, replicas wanted."""


def rate(at_s: float) -> float:
    for lasts_s, first, last in STEPS:
        if at_s < lasts_s:
            return first + (last - first) * at_s / lasts_s
        at_s -= lasts_s
    return AFTER


async def ask(serve: Serve, load: Load, rng: random.Random) -> None:
    words = " ".join(f"w{rng.randrange(10_000)}" for _ in range(WORDS))
    body = {
        "model": "emulated",
        "stream": True,
        "max_tokens": 24,
        "messages": [{"role": "user", "content": words}],
    }
    began, first, whole = time.monotonic(), None, False
    try:
        async with serve.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                load.broken.append(f"{answer.status_code} {await answer.aread()!r}")
                return
            async for line in answer.aiter_lines():
                if first is None and line.startswith("data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices and choices[0]["delta"].get("content"):
                        first = time.monotonic()
                whole |= line == "data: [DONE]"
    except httpx.HTTPError as error:
        load.broken.append(repr(error))
        return
    if first is None or not whole:
        load.broken.append("cut")
        return
    load.ttfts.append((began - load.began_s, first - began))


async def watch(serve: Serve, load: Load) -> None:
    while True:
        view = (await serve.control_client.get("/api/v1/scaler")).json()["pools"][0]
        ready = sum(each["phase"] == "ready" for each in view["replicas"])
        wanted = view["plan"]["replicas"] if view["plan"] else 0
        load.replicas.append((time.monotonic() - load.began_s, ready, wanted))
        await asyncio.sleep(1.0)


async def ramp(serve: Serve) -> Load:
    load, rng = Load(), random.Random(7)
    watching = asyncio.create_task(watch(serve, load))
    async with asyncio.TaskGroup() as group:
        while not _over(load):
            group.create_task(ask(serve, load, rng))
            await asyncio.sleep(rng.expovariate(rate(time.monotonic() - load.began_s)))
    watching.cancel()
    return load


def _over(load: Load) -> bool:
    """Whether the ramp is over and what it needed begins to go."""
    ramp_s, now_s = sum(lasts_s for lasts_s, _, _ in STEPS), time.monotonic() - load.began_s
    peak = max((ready for _, ready, _ in load.replicas), default=0)
    gone = bool(load.replicas) and load.replicas[-1][1] < peak
    return now_s > ramp_s and (gone or now_s > ramp_s + AFTER_S)


def shown(load: Load) -> str:
    lines = ["   s  ready wanted  requests  TTFT p50  p95"]
    for begin in range(0, int(load.replicas[-1][0]), 10):
        at = [each for each in load.replicas if begin <= each[0] < begin + 10]
        ttfts = sorted(ttft for began, ttft in load.ttfts if begin <= began < begin + 10)
        if at and ttfts:
            p50, p95 = ttfts[len(ttfts) // 2], ttfts[int(len(ttfts) * 0.95)]
            lines.append(
                f"{begin:4}  {at[-1][1]:5} {at[-1][2]:6}  {len(ttfts):8}  {p50:8.2f}  {p95:.2f}"
            )
    return "\n".join(lines)


async def test_capacity_arrives_before_ttft_breaks_and_goes_without_cutting_a_stream(
    tmp_path: Path,
):
    async with serving(tmp_path, CONFIG) as serve:
        load = await ramp(serve)
        in_time = sum(ttft <= TTFT_TARGET_S for _, ttft in load.ttfts) / len(load.ttfts)
        print(
            f"\n{shown(load)}\nTTFT within {TTFT_TARGET_S:g} s: {in_time:.1%} of {len(load.ttfts)}"
        )
        assert load.broken == []
        peak = max(ready for _, ready, _ in load.replicas)
        assert peak >= 3
        assert load.replicas[-1][1] < peak
        assert in_time >= 0.95
        serve.signal()
        await serve.ended()
