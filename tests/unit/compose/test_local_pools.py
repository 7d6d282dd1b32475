"""Pools whose replicas the gateway starts, when its file changes."""

from __future__ import annotations

from pathlib import Path

from headrace.compose.fleets import Fleets
from headrace.compose.local_pools import LocalPools
from headrace.compose.plan import plan_of
from headrace.compose.reload import Reloader
from headrace.compose.terminal import Terminal
from headrace.compose.wiring import Gateway, nobody
from headrace.config import load

TEXT = """
pools:
  - {name: p, model: m, start: {command: [headrace, engine, --port, "{port}"]}}
scaling: {pools: {p: {}}}
"""


async def test_who_leaves_may_finish_what_may_take_longer_since_a_reload(tmp_path: Path):
    file = tmp_path / "headrace.yaml"

    def write(total: str) -> None:
        file.write_text(f"{TEXT}timeouts: {{total: {total}}}\n")

    write("10m")
    loaded = load(file, {})
    gateway = Gateway(plan_of(loaded))
    local = LocalPools(gateway, loaded, nobody)
    fleets = Fleets(gateway, nobody)
    reloader = Reloader(gateway, fleets, loaded, lambda: load(file, {}), Terminal(), local=local)
    limits_s = list[float]()
    for total in ("2h", "1m"):
        write(total)
        assert await reloader.reload()
        limits_s.append(local.fleets["p"].drain_s)
    assert limits_s == [7200.0, 7200.0]  # what began before the second reload has its two hours
