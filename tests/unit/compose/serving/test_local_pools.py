"""Pools whose replicas the gateway starts, when its file changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.compose.process.terminal import Terminal
from headrace.compose.serving.fleets import Fleets
from headrace.compose.serving.local_pools import LocalPools, left_as_started
from headrace.compose.serving.plan import plan_of
from headrace.compose.serving.reload import Reloader
from headrace.compose.serving.wiring import Gateway, nobody
from headrace.config.load import Loaded, load

TEXT = """
pools:
  - {name: p, model: m, start: {command: [headrace, engine, --port, "{port}"]}}
scaling: {pools: {p: {}}}
"""


KEYS = {"ONE": "1", "TWO": "2"}


@pytest.mark.parametrize(
    ("instead", "kept", "named"),
    [
        (
            "start: {command: [headrace, engine, --tokens, '5', --port, '{port}']}",
            True,
            ["pools[].start"],
        ),
        ("start: {command: [headrace, engine, --port, '{port}']}", False, []),
        ("replicas: ['http://127.0.0.1:1']", True, ["pools[].start"]),
    ],
    ids=["another command", "the same", "other engines"],
)
def test_of_a_pool_that_was_started_here_only_what_makes_its_replicas_is_left(
    tmp_path: Path, instead: str, kept: bool, named: list[str]
):
    def loaded(pool: str) -> Loaded:
        file = tmp_path / "headrace.yaml"
        scaled = "scaling: {pools: {p: {}}}" if "start:" in pool else ""
        file.write_text(f"pools: [{{name: p, model: m, {pool}}}]\n{scaled}\n")
        return load(file, KEYS)

    command = "start: {command: [headrace, engine, --port, '{port}']}"
    started = loaded(f"{command}, wait_for_replica: 1s, api_key_env: ONE")
    after, waiting = left_as_started(
        started, loaded(f"{instead}, wait_for_replica: 2s, api_key_env: TWO")
    )
    (own,), (pool,) = started.config.pools, after.config.pools
    assert waiting == named
    assert (pool.start, pool.replicas) == (own.start, ())
    assert pool.wait_for_replica_s == (1.0 if instead.startswith("replicas") else 2.0)
    assert pool.api_key_env == ("ONE" if kept else "TWO")
    assert after.secrets.upstream == {"p": "1" if kept else "2"}


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
