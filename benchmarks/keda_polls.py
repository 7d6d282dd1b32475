"""How fast KEDA is answered, and how fast the first held request is pushed to it.

    python -m benchmarks.keda_polls [--polls 1000] [--json]

A poll is what KEDA does at each: GetMetricSpec, GetMetrics, IsActive, one after the other on one
connection, without a deadline, as about half of KEDA's own calls. The peer is a gRPC server with
the same messages whose answers are constants: what is left between the two is what a scaler costs
that asks its gateway twice a second meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from grpc.aio import AioRpcError

from benchmarks.engines import MODEL, engines
from benchmarks.processes import HEADRACE, START_S, free_port, running, wait_until_served
from tests.keda_client import KedaClient, reference

LIMIT_S = 0.020
"""What is asked for: p99 of a poll."""
PUSHES = 5
NOBODY = "dns: {name: nobody.invalid, port: 8000}"
"""Zero replicas: a name without an address."""
_CONSTANT = """
import asyncio, sys
from headrace.edges.keda.ports import Published
from headrace.edges.keda.server import KedaServer
from headrace.edges.keda.settings import KedaSettings

class Constant:
    def pools(self): return ("bench",)
    def published(self, pool, tolerance): return Published(2.0, True)
    def next_change(self): return asyncio.get_running_loop().create_future()

async def serve():
    server = KedaServer(KedaSettings(port=int(sys.argv[1])), Constant())
    await server.start()
    await asyncio.Event().wait()

asyncio.run(serve())
"""


def config(control: int, engines_are: str, *, scaler: int, keda: int) -> str:
    """Of both the gateway and its scaler."""
    return f"""
pools:
  - {{name: bench, model: {MODEL}, engine: vllm, {engines_are}, wait_for_replica: 1m}}
scaling:
  gateways: ["http://127.0.0.1:{control}"]
  listen: {{port: {scaler}}}
  keda: {{port: {keda}}}
  pools: {{bench: {{min_replicas: 0, warm_replicas: 0}}}}
"""


@contextmanager
def scaled(engines_are: str) -> Iterator[tuple[int, int]]:
    """A gateway and a scaler that has decided, as two processes; the ports of the gateway and for
    KEDA.
    """
    port, control, scaler, keda = (free_port() for _ in range(4))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "headrace.yaml"
        file.write_text(config(control, engines_are, scaler=scaler, keda=keda))
        ports = ("--port", str(port), "--control-port", str(control))
        with (
            running([*HEADRACE, "serve", "-c", file, *ports]) as gateway,
            running([*HEADRACE, "scaler", "-c", file]) as program,
        ):
            wait_until_served(gateway, control, "/health")
            wait_until_served(program, scaler, "/health")
            wait_until_decided(scaler)
            yield port, keda


def wait_until_decided(scaler: int) -> None:
    """At zero replicas a new scaler does not know for minutes whether none are needed, but decides:
    a request that waits is told of all the same.
    """
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        told = httpx.get(f"http://127.0.0.1:{scaler}/api/v1/scaler", trust_env=False).json()
        if all(pool["plan"] for pool in told["pools"]):
            return
        time.sleep(0.1)
    raise TimeoutError(f"the scaler on port {scaler} did not decide within {START_S:g} s")


async def until_known(keda: int) -> None:
    """Wait until a poll is answered."""
    async with asyncio.timeout(START_S):
        while True:
            async with KedaClient(f"127.0.0.1:{keda}") as client:
                try:
                    await client.poll(reference(pool="bench"))
                except AioRpcError:
                    await asyncio.sleep(0.1)
                else:
                    return


async def polls(keda: int, number: int) -> list[float]:
    """Seconds of each poll, sorted."""
    ref, took = reference(pool="bench"), list[float]()
    await until_known(keda)
    async with KedaClient(f"127.0.0.1:{keda}") as client:
        for _ in range(20):
            await client.poll(ref)
        for _ in range(number):
            began_s = time.perf_counter()
            await client.poll(ref)
            took.append(time.perf_counter() - began_s)
    return sorted(took)


async def push(port: int, keda: int) -> float:
    """Seconds from the first request at zero replicas to KEDA's being told."""
    body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    async with (
        KedaClient(f"127.0.0.1:{keda}") as client,
        httpx.AsyncClient(timeout=60.0, trust_env=False) as http,
    ):
        pushes = client.pushes(reference(pool="bench"))
        began_s = time.perf_counter()
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        asked = asyncio.create_task(http.post(url, json=body))
        while not await anext(pushes):
            pass
        took_s = time.perf_counter() - began_s
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    return took_s


def measure(number: int) -> dict[str, float]:
    """All figures, in milliseconds."""
    with engines("ttft=1ms,itl=1ms", count=2) as fleet, scaled(_listed(fleet.urls)) as (_, keda):
        ours = asyncio.run(polls(keda, number))
    peer = free_port()
    with running([sys.executable, "-c", _CONSTANT, str(peer)]):
        constant = asyncio.run(polls(peer, number))
    pushed: list[float] = []
    for _ in range(PUSHES):
        with scaled(NOBODY) as (port, keda):
            pushed.append(asyncio.run(push(port, keda)))
    return {
        "poll_p50_ms": 1e3 * ours[len(ours) // 2],
        "poll_p99_ms": 1e3 * ours[int(len(ours) * 0.99)],
        "constant_p50_ms": 1e3 * constant[len(constant) // 2],
        "constant_p99_ms": 1e3 * constant[int(len(constant) * 0.99)],
        "push_median_ms": 1e3 * sorted(pushed)[PUSHES // 2],
        "push_worst_ms": 1e3 * max(pushed),
    }


def _listed(urls: list[str]) -> str:
    return f"replicas: {json.dumps(urls)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast KEDA is answered.")
    parser.add_argument("--polls", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.polls)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:16} {value:8.2f}")
    ratio = found["poll_p99_ms"] / found["constant_p99_ms"]
    verdict = "within" if found["poll_p99_ms"] <= 1e3 * LIMIT_S else "OVER"
    print(f"p99 of a poll is {ratio:.2f} times that of constant answers, {verdict} 20 ms")


if __name__ == "__main__":
    main()
