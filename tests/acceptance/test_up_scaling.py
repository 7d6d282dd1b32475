"""`headrace up --scale` with real llama.cpp replicas: they start, join and drain with load."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from headrace.compose.up.scaling import SCALE_DOWN_WINDOW_S
from headrace.core.scaling.decision import KNOWS_AFTER_S
from tests.live.conftest import model_path  # noqa: F401 - a fixture of the live lane
from tests.live.up import Up, children_of, running_up

pytestmark = [pytest.mark.live, pytest.mark.acceptance, pytest.mark.timeout(1200)]

HANG_S = 500.0
DOWN_S = KNOWS_AFTER_S + SCALE_DOWN_WINDOW_S + 120.0
"""Nothing goes down in the first minutes, then a window after load has gone; and some room."""
BUSY = 6
"""Streams at once that two replicas' worth of load are made of."""


class Asking:
    """Streams that go on until told otherwise."""

    def __init__(self, up: Up, model: str) -> None:
        self.broken: list[str] = []
        self.done = 0
        self.most = 0
        self.pause_s = 0.0
        self._up = up
        self._model = model
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, streams: int, *, pause_s: float = 0.0) -> None:
        """So many at once from now on, with a pause behind each; what runs ends by itself."""
        self.most, self.pause_s = streams, pause_s
        while len(self._tasks) < streams:
            self._tasks.append(asyncio.create_task(self._go_on(len(self._tasks))))

    async def end(self) -> None:
        self.most = 0
        await asyncio.gather(*self._tasks)

    async def _go_on(self, number: int) -> None:
        async with httpx.AsyncClient(timeout=HANG_S, trust_env=False) as client:
            while True:
                if number >= self.most:
                    if self.most == 0:
                        return
                    await asyncio.sleep(0.1)
                    continue
                await self._one(client, number)
                await asyncio.sleep(self.pause_s)

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        message = {"role": "user", "content": f"Tell story {number} at {time.time()}"}
        body = {"model": self._model, "stream": True, "max_tokens": 60, "messages": [message]}
        last = ""
        try:
            url = f"{self._up.url}/v1/chat/completions"
            async with client.stream("POST", url, json=body) as answer:
                async for line in answer.aiter_lines():
                    last = line or last
        except httpx.HTTPError as error:
            self.broken.append(repr(error))
            return
        if last != "data: [DONE]":
            self.broken.append(f"{answer.status_code}: ended with {last!r}")
        self.done += 1


async def until(up: Up, ready: int, within_s: float = HANG_S) -> None:
    async with asyncio.timeout(within_s):
        while True:
            fleet = await asyncio.to_thread(up.fleet)
            if sum(each["state"] == "ready" for each in fleet.values()) == ready:
                return
            await asyncio.sleep(0.2)


async def test_replicas_follow_load_and_no_stream_is_cut(model_path: Path):  # noqa: F811
    with running_up("--scale", "1:2", "--standby", "1") as up:
        model = next(iter(httpx.get(f"{up.url}/v1/models", trust_env=False).json()["data"]))["id"]
        asking = Asking(up, model)
        async with asyncio.timeout(HANG_S):
            while "stands by" not in up.printed:
                await asyncio.sleep(0.2)
        asking.keep(BUSY)
        await until(up, 2)
        assert "joins from standby" in up.printed
        await asyncio.sleep(10.0)
        asking.keep(1, pause_s=8.0)  # goes on while the other one leaves
        await until(up, 1, DOWN_S)
        await asking.end()
        assert asking.broken == []
        assert asking.done > BUSY
        async with asyncio.timeout(HANG_S):
            while len(children_of(up.process.pid)) > 2:  # one that serves, one that stands by
                await asyncio.sleep(0.2)
        view = httpx.get(f"{up.control}/api/v1/scaler", trust_env=False).json()["pools"][0]
        steps = [plan["replicas"] for plan in view["plans"]]
        assert 2 in steps
        assert steps[-1] == 1
        print(f"\n{asking.done} streams, none cut\n{up.printed}")
