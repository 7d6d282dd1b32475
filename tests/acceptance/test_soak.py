"""A long load of short streams, of which one in twenty is left by its client: nothing grows."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
import uvloop

from benchmarks.engines import engines
from tests.acceptance.serving import figures, running_serve
from tests.live.up import Up

pytestmark = [pytest.mark.acceptance, pytest.mark.soak, pytest.mark.timeout(1500)]

WARM_UP = 20_000
"""Requests until every bounded memory of the gateway is full, the decision log the longest."""
REQUESTS = 200_000
PROMPTS = 5_000
"""Different prompts: the prefix index holds them all after the warm-up, and then grows no more."""
CLIENTS = 48
BODY = (
    b'{"model":"emulated","messages":[{"role":"user","content":"%d %b"}],'
    b'"max_tokens":4,"stream":true}'
)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
CONFIG = """\
pools:
  - name: emulated
    model: emulated
    engine: vllm
    replicas: [{urls}]
"""


async def one_client(port: int, numbers: list[int], rng: random.Random, ends: Counter[str]) -> None:
    """Ask again and again over one connection; one answer in twenty is not waited for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while numbers:
        prompt = numbers.pop() % PROMPTS
        body = BODY % (prompt, b"word " * (prompt % 200))
        writer.writelines([HEAD % len(body), body])
        if rng.random() < 0.05:
            await reader.read(1 + rng.randrange(400))
            writer.transport.abort()
            ends["left"] += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        answer = await reader.readuntil(b"0\r\n\r\n")
        ends["whole" if b"[DONE]" in answer else "broken"] += 1
    writer.close()


async def load(port: int, requests: int, seed: int) -> Counter[str]:
    """Send so many requests; return how they ended."""
    ends: Counter[str] = Counter()
    numbers = list(range(requests))
    clients = [one_client(port, numbers, random.Random(seed + n), ends) for n in range(CLIENTS)]
    await asyncio.gather(*clients)
    return ends


def resident_mib(gateway: Up) -> float:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def open_files(gateway: Up) -> int:
    return len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))


def test_nothing_grows(tmp_path: Path):
    with (
        engines("ttft=1ms,itl=1ms", count=4) as emulated,
        running_serve(CONFIG.format(urls=", ".join(emulated.urls)), tmp_path) as gateway,
    ):
        port = int(gateway.url.rpartition(":")[2])
        warm = uvloop.run(load(port, WARM_UP, seed=1))
        before_mib, before_files = resident_mib(gateway), open_files(gateway)
        ends = uvloop.run(load(port, REQUESTS, seed=2))
        after_mib, after_files = resident_mib(gateway), open_files(gateway)
        seen = figures(gateway)
    print(
        f"{REQUESTS} requests: {dict(ends)}; {before_mib:.1f} → {after_mib:.1f} MiB, "
        f"{before_files} → {after_files} open files"
    )
    assert ends["broken"] == 0
    assert ends["left"] > REQUESTS * 0.04
    assert after_mib < before_mib * 1.1
    assert after_files < before_files + CLIENTS
    assert seen.total("headrace_requests_in_flight") == 0
    asked = WARM_UP + REQUESTS
    # Some who left had their answer whole by then; of them all, none is lost or counted twice.
    assert seen.total("headrace_requests_total") == asked
    assert (
        seen.total("headrace_requests_total", outcome="completed") >= warm["whole"] + ends["whole"]
    )
