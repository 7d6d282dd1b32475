"""The memory bandwidth of replicas' GPUs, from an exporter's page to what a scaler is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.core.scaling.report import ScalingReport
from headrace.edges.gpu_metrics import GpuMetricsSettings
from tests.gateway.serve_process import HANG_S, Serve, pool, serving
from tests.scripted import Peer, Received, ScriptedEngine

PAGE = """\
DCGM_FI_PROF_DRAM_ACTIVE{{gpu="0",container="vllm"}} {one}
DCGM_FI_PROF_DRAM_ACTIVE{{gpu="1",container="vllm"}} {other}
DCGM_FI_PROF_DRAM_ACTIVE{{gpu="2",container="training"}} 1.0
"""


class Exporter(ScriptedEngine):
    """A DCGM exporter, as far as its page goes."""

    def __init__(self) -> None:
        self.page = PAGE.format(one=0.9, other=0.7)

        async def answer(_received: Received, peer: Peer) -> None:
            body = self.page.encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"
            await peer.send(head.encode() + body)

        super().__init__(answer)


async def ratios(gateway: Serve) -> list[float | None]:
    """Of each replica, as a scaler is told."""
    answer = await gateway.control_client.get("/api/v1/scaling")
    report = msgspec.json.decode(answer.content, type=ScalingReport)
    return [each.memory_bandwidth_ratio for pool in report.pools for each in pool.replicas]


async def until(gateway: Serve, told: list[Any]) -> None:
    async with asyncio.timeout(HANG_S):
        while await ratios(gateway) != told:
            await asyncio.sleep(0.02)


def silent() -> ScriptedEngine:
    async def answer(_received: Received, _peer: Peer) -> None:
        raise AssertionError

    return ScriptedEngine(answer, models=({"id": "m"},))


async def test_a_scaler_is_told_how_busy_the_memory_of_a_replicas_gpus_is(tmp_path: Path):
    async with silent() as engine, Exporter() as exporter:
        plain = f"pools:\n{pool(engine)}"
        port = exporter.url.rpartition(":")[2]
        page = f"url: 'http://{{host}}:{port}/metrics', labels: [container=vllm], interval: 50ms"
        looking = plain.rstrip().removesuffix("}") + f", gpu_metrics: {{{page}}}}}\n"
        async with serving(tmp_path, looking) as gateway:
            await until(gateway, [pytest.approx(0.8)])
            exporter.page = PAGE.format(one=0.2, other=0.4)
            await until(gateway, [pytest.approx(0.3)])
            exporter.page = "DCGM_FI_DEV_GPU_UTIL 100\n"
            fleet = ""
            async with asyncio.timeout(HANG_S):
                while "DCGM_FI_PROF_DRAM_ACTIVE" not in fleet:
                    fleet = (await gateway.control_client.get("/api/v1/fleet")).text
                    await asyncio.sleep(0.02)
            assert "is it among what the exporter collects?" in fleet
            await gateway.reload(plain)
            asked = len(exporter.received)
            await gateway.reload(looking)
            exporter.page = PAGE.format(one=0.5, other=0.5)
            await until(gateway, [0.5])
            assert len(exporter.received) > asked


@pytest.mark.parametrize(
    ("replica", "page"),
    [
        ("http://10.0.0.7:8000", "http://10.0.0.7:9400/metrics"),
        ("https://gpus.example:443/llama", "http://gpus.example:9400/metrics"),
        ("http://[fd00::7]:8000", "http://[fd00::7]:9400/metrics"),
        ("unix:/run/vllm.sock", "http://127.0.0.1:9400/metrics"),
    ],
)
def test_the_exporter_is_on_the_replicas_host(replica: str, page: str):
    settings = GpuMetricsSettings(url="http://{host}:9400/metrics")
    assert settings.url_for(replica) == page
