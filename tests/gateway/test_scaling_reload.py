"""SIGHUP changes how pools are scaled, and forgets nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.gateway.serve_process import HANG_S, Serve, serving

TEXT = """
grace: 0s
pools:
  - {name: p, model: m, engine: vllm, wait_for_replica: 60s,
     start: {command: [headrace, engine, --port, "{port}", --model, m]}}
scaling:
  gathering: {interval: 100ms}
  pools: {p: {min_replicas: 1, warm_replicas: 1, max_replicas: 3, tick: 200ms}}
"""


async def until_wanted(serve: Serve, replicas: int) -> dict:
    async with asyncio.timeout(HANG_S):
        while True:
            view = (await serve.control_client.get("/api/v1/scaler")).json()["pools"][0]
            if view["plan"] and view["plan"]["replicas"] == replicas:
                return view
            await asyncio.sleep(0.05)


async def test_a_floor_is_raised_without_a_restart(tmp_path: Path):
    async with serving(tmp_path, TEXT) as serve:
        before = await until_wanted(serve, 1)
        said = await serve.reload(TEXT.replace("min_replicas: 1", "min_replicas: 2"))
        assert "changed: scaling" in said
        assert "needs a restart" not in said
        after = await until_wanted(serve, 2)
        assert after["plans"][: len(before["plans"])] == before["plans"]


async def test_what_of_scaling_needs_a_restart_is_named_each_time(tmp_path: Path):
    changed = TEXT.replace("interval: 100ms", "interval: 200ms")
    changed = changed.replace("min_replicas: 1", "min_replicas: 2")
    async with serving(tmp_path, TEXT) as serve:
        for _ in range(2):
            assert "needs a restart: scaling.gathering" in await serve.reload(changed)
        await until_wanted(serve, 2)
        assert "needs a restart" not in await serve.reload(TEXT)
