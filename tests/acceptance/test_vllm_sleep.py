"""vLLM's sleep mode, asked of a real one as the local fleet asks.

The build for CPUs has no memory to give back (it answers all the same), so this holds the calls,
their answers and what becomes of requests; not what sleeping saves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from headrace.edges.fleets.sleep_mode import EngineSleep, SleepError, SleepSettings
from headrace.engines.sleep_mode import VLLM, is_sleeping
from tests.acceptance.vllm_server import VllmServer, running_vllm
from tools.vllm_env import VllmEnv

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

KEY = "sk-sleep"
HANG_S = 120.0


@pytest.fixture(scope="module", params=[True, False], ids=["development", "plain"])
def server(
    request: pytest.FixtureRequest,
    vllm_env: VllmEnv,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[VllmServer, bool]]:
    """A server, and whether it has the endpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1" if request.param else "0")
        with running_vllm(vllm_env, tmp_path_factory.mktemp("vllm"), api_key=KEY) as made:
            yield made, request.param


@pytest.mark.parametrize("level", [1, 2])
async def test_it_sleeps_keeps_what_comes_and_answers_it_when_it_is_awake(
    server: tuple[VllmServer, bool], level: int
):
    made, can_sleep = server
    sleep = EngineSleep(VLLM, SleepSettings(level=level, timeout_s=HANG_S))
    if not can_sleep:
        with pytest.raises(SleepError, match=r"answers 404 to /sleep.*VLLM_SERVER_DEV_MODE"):
            await sleep.sleep(made.url)
        return
    key = {"authorization": f"Bearer {KEY}"}
    client = httpx.AsyncClient(base_url=made.url, headers=key, timeout=HANG_S, trust_env=False)
    body = {"model": made.model_id, "prompt": "Hi", "max_tokens": 3}
    async with client:
        running = asyncio.create_task(
            client.post("/v1/completions", json=body | {"max_tokens": 1500, "ignore_eos": True})
        )
        while "num_requests_running" not in (page := made.metrics()) or not any(
            line.startswith("vllm:num_requests_running") and line.endswith(" 1.0")
            for line in page.splitlines()
        ):
            await asyncio.sleep(0.05)
        await sleep.sleep(made.url)
        aborted = (await running).json()["choices"][0]
        assert aborted["finish_reason"] == "abort"
        assert is_sleeping((await client.get("/is_sleeping")).content)
        assert (await client.get("/health")).status_code == 200
        asked = asyncio.create_task(client.post("/v1/completions", json=body))
        done, _ = await asyncio.wait([asked], timeout=2.0)
        assert not done
        await sleep.wake(made.url)
        assert (await asked).json()["usage"]["completion_tokens"] == 3
