"""Two gateways before the same engines: the sums that people scale by stay true."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.acceptance.clients import has_content
from tests.acceptance.serving import Figures, running_serve
from tests.live.conftest import (  # noqa: F401 - fixtures of the live lane
    LlamaReplicas,
    llamacpp_replicas,
    model_path,
)
from tests.live.up import HANG_S, Up
from tests.prometheus_server import running_prometheus

pytestmark = [pytest.mark.acceptance, pytest.mark.prometheus, pytest.mark.timeout(600)]

WINDOW_S = 60.0
OUTPUT_RATE = 'sum(rate(llm_tokens_processed_total{token_type="output"}[1m]))'


@pytest.fixture
def gateways(llamacpp_replicas: LlamaReplicas, tmp_path: Path) -> Iterator[tuple[Up, Up]]:  # noqa: F811
    def config(engine_gauges: str) -> str:
        return f"""
            pools:
              - name: shared
                model: {llamacpp_replicas.model_id}
                engine: llamacpp
                replicas: {msgspec.json.encode(llamacpp_replicas.urls).decode()}
            telemetry:
              engine_gauges: {engine_gauges}
        """

    with (
        running_serve(config("true"), tmp_path, name="first") as first,
        running_serve(config("false"), tmp_path, name="second") as second,
    ):
        yield first, second


class Streams:
    """Long answers that follow one another, and when each content chunk of them came."""

    def __init__(self, model_id: str) -> None:
        self.arrivals_s: list[float] = []
        self.ended = 0
        self._model_id = model_id

    def rate(self, until_s: float) -> float:
        """Content chunks per second in the window before."""
        first = bisect_left(self.arrivals_s, until_s - WINDOW_S)
        return (bisect_left(self.arrivals_s, until_s) - first) / WINDOW_S

    @asynccontextmanager
    async def running(self, gateways: tuple[Up, Up], each: int) -> AsyncIterator[None]:
        """So many at once through either gateway; their clients leave at the end."""
        async with httpx.AsyncClient(timeout=HANG_S, trust_env=False) as client:
            tasks = [
                asyncio.ensure_future(self._follow(client, gateway.url, f"{number}: tell a story"))
                for gateway in gateways
                for number in range(each)
            ]
            try:
                yield
                failed = [task.exception() for task in tasks if task.done()]
                assert not failed
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, client: httpx.AsyncClient, url: str, prompt: str) -> None:
        body = {
            "model": self._model_id,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 3500,
            "ignore_eos": True,
            "stream": True,
        }
        while True:
            async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    if line and has_content(line.encode()):
                        self.arrivals_s.append(time.monotonic())
            self.ended += 1


def waiting_in(replicas: LlamaReplicas) -> float:
    """What the engines themselves say."""
    with httpx.Client(trust_env=False, timeout=HANG_S) as client:  # they are kept busy
        texts = [client.get(f"{url}/metrics").text for url in replicas.urls]
    return sum(Figures(text).total("llamacpp:requests_deferred") for text in texts)


async def test_sums_over_two_gateways_are_true_during_long_answers(
    gateways: tuple[Up, Up],
    llamacpp_replicas: LlamaReplicas,  # noqa: F811
    prometheus_binary,
    tmp_path: Path,
):
    targets = [gateway.control.removeprefix("http://") for gateway in gateways]
    queue = f'sum(llm_queue_depth{{model_id="{llamacpp_replicas.model_id}"}})'
    streams = Streams(llamacpp_replicas.model_id)
    async with running_prometheus(prometheus_binary, targets, tmp_path) as prometheus:
        async with streams.running(gateways, each=3):
            await asyncio.sleep(WINDOW_S + 10.0)
            seen = await prometheus.value(OUTPUT_RATE)
            true = streams.rate(time.monotonic())
            ended = streams.ended
        print(f"rate {seen:.1f}/s, clients got {true:.1f}/s; {ended} answers had ended")
        assert seen == pytest.approx(true, rel=0.1)
        await prometheus.until(queue, 0)

        # Eight sequences run; of fourteen the rest waits, wherever each gateway sent its share.
        async with streams.running(gateways, each=7):
            waiting = 0.0
            while waiting < 6:
                await asyncio.sleep(0.2)
                waiting = waiting_in(llamacpp_replicas)
            print(f"{waiting:.0f} wait in the engines")
            await prometheus.until(queue, waiting)
            assert await prometheus.value('count(llm_queue_depth{replica!=""})') == 2
            assert await prometheus.value("sum(llm_requests_running)") == 14 - waiting
        await prometheus.until(queue, 0)
