"""SIGHUP changes how pools are scaled, and forgets nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.serve_process import HANG_S, Serve, serving
from tests.scripted import ScriptedEngine, stream_words

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


GONE = "pools:\n  - {name: q, model: n, replicas: [http://127.0.0.1:1]}\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GONE, "scaling, pools[].start"),
        (TEXT.replace("model: m,", "model: n,"), "pools[].model"),
        (TEXT.replace("--model, m]", "--model, n]"), "pools[].start"),
    ],
)
async def test_a_pool_that_is_started_here_stays_as_it_is_until_a_restart(
    tmp_path: Path, text: str, named: str
):
    ask = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    async with serving(tmp_path, TEXT) as serve:
        await until_wanted(serve, 1)
        assert (await serve.client.post("/v1/chat/completions", json=ask)).status_code == 200
        for _ in range(2):
            assert f"needs a restart: {named}" in await serve.reload(text)
            assert (await serve.client.post("/v1/chat/completions", json=ask)).status_code == 200
        assert "needs a restart" not in await serve.reload(TEXT)
        assert (await serve.client.post("/v1/chat/completions", json=ask)).status_code == 200


async def test_scaling_that_is_taken_back_before_a_restart_needs_none(tmp_path: Path):
    async with ScriptedEngine(
        lambda _, peer: stream_words(peer, 1), models=({"id": "m"},)
    ) as engine:
        plain = f"pools:\n  - {{name: p, model: m, replicas: ['{engine.url}']}}\n"
        scaled = plain + "scaling: {pools: {p: {}}}\n"
        elsewhere = plain + "scaling: {gateways: ['http://127.0.0.1:1'], pools: {p: {}}}\n"
        async with serving(tmp_path, plain) as serve:
            for _ in range(2):
                assert "needs a restart: scaling" in await serve.reload(scaled)
            assert "needs a restart" not in await serve.reload(plain)
            assert "needs a restart" not in await serve.reload(elsewhere)
