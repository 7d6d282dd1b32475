"""A ramp of `headrace bench` over emulated replicas that take 10 s to start: capacity comes in time
and goes again, and `headrace why --scaling` tells why at each step.

The replicas are `headrace engine` processes, modelled on an L40S with an 8B model, that the gateway
starts and ends itself. Prompts of 2,000 tokens, none of it cached: one replica prefills about six
of them a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.serve_process import Serve, headrace, serving

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]

PROFILE = "l40s-llama-3.1-8b"
LOAD_TIME_S = 10
TTFT_TARGET_S = 2.0
LENGTHS = "2000/24"
RATES = "1@20s,1..8@100s,8@30s,8..1@10s,1@320s"
"""Up, and then little for so long that replicas go: the scaler lowers nothing in its first 300 s,
and looks at a window of its wishes."""
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
class Seen:
    """What the fleet did, and what `headrace bench` kept of each request."""

    began_s: float = field(default_factory=time.monotonic)
    replicas: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the begin, replicas ready, replicas wanted."""
    report: dict[str, Any] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    why: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ttfts(self) -> list[tuple[float, float]]:
        """When a request was due, and how long after that its first token came."""
        return [
            (each["intended_s"], each["first_token_s"] - each["intended_s"])
            for each in self.requests
            if each["first_token_s"] is not None
        ]


async def watch(serve: Serve, seen: Seen) -> None:
    while True:
        view = (await serve.control_client.get("/api/v1/scaler")).json()["pools"][0]
        ready = sum(each["phase"] == "ready" for each in view["replicas"])
        wanted = view["plan"]["replicas"] if view["plan"] else 0
        seen.replicas.append((time.monotonic() - seen.began_s, ready, wanted))
        await asyncio.sleep(1.0)


async def ramp(serve: Serve, raw: Path) -> Seen:
    """Drive the ramp and keep all that is told of it."""
    load = ("--rates", RATES, "--lengths", LENGTHS, "--seed", "7", "--slo", "ttft=2s,tpot=200ms")
    url = str(serve.client.base_url)
    bench = await headrace("bench", url, *load, "--model", "emulated", "--json", "--raw", raw)
    seen = Seen()
    watching = asyncio.create_task(watch(serve, seen))
    told, errors = await bench.communicate()
    watching.cancel()
    assert bench.returncode in {0, 1}, errors.decode()
    seen.report = json.loads(told)
    with raw.open() as lines:
        _, *seen.requests = [json.loads(line) for line in lines]
    why = await headrace("why", "--scaling", "--json", "--control", serve.control)
    told, _ = await why.communicate()
    seen.why = json.loads(told)["pools"][0]["plans"]
    return seen


def shown(seen: Seen) -> str:
    lines = ["   s  ready wanted  requests  TTFT p50  p95"]
    for begin in range(0, int(seen.replicas[-1][0]), 10):
        at = [each for each in seen.replicas if begin <= each[0] < begin + 10]
        ttfts = sorted(ttft for due_s, ttft in seen.ttfts if begin <= due_s < begin + 10)
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
        seen = await ramp(serve, tmp_path / "raw.jsonl")
        in_time = sum(ttft <= TTFT_TARGET_S for _, ttft in seen.ttfts) / len(seen.requests)
        print(
            f"\n{shown(seen)}\nTTFT within {TTFT_TARGET_S:g} s: {in_time:.1%} of "
            f"{len(seen.requests)}"
        )
        assert [each for each in seen.requests if each["error"]] == []
        peak = max(ready for _, ready, _ in seen.replicas)
        assert peak >= 3
        assert seen.replicas[-1][1] < peak
        assert in_time >= 0.95
        _explains_each_step(seen)
        serve.signal()
        await serve.ended()


def _explains_each_step(seen: Seen) -> None:
    """Whenever the number changed, who decided it, of which figures, is told."""
    steps = [(before, after) for before, after in pairwise(seen.why)]
    changed = [after for before, after in steps if after["replicas"] != before["replicas"]]
    assert changed
    for plan in changed:
        told = {signal["name"]: signal["why"] for signal in plan["signals"]}
        decided_by = plan["decided_by"].partition(":")[0]
        assert decided_by in {"floor", "ceiling", "hysteresis"} or told[decided_by], plan
