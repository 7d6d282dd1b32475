"""The local fleet with real llama.cpp processes and the real model."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from headrace.edges.fleets.keep_alive import LocalFleetError
from headrace.edges.fleets.local import (
    FleetEvent,
    LocalFleet,
    LocalFleetSettings,
    ReplicaDown,
    ReplicaUp,
)
from tests.children import spawned_pids
from tests.live.conftest import HANG_GUARD_S, LlamaReplicas
from tests.plain_http import NO_TRUST_STORE
from tests.waiting import until

pytestmark = pytest.mark.live


class Fleet:
    """A fleet of the test's own, with its events in a queue."""

    def __init__(self, settings: LocalFleetSettings) -> None:
        self.events: asyncio.Queue[FleetEvent] = asyncio.Queue()
        self.fleet = LocalFleet(settings, self.events.put_nowait)

    async def next_event(self) -> FleetEvent:
        async with asyncio.timeout(HANG_GUARD_S):
            return await self.events.get()


@pytest.fixture
def settings(model_path: Path, tmp_path: Path) -> LocalFleetSettings:
    return LocalFleetSettings(model_path=model_path, log_dir=tmp_path)


@pytest.fixture
async def own(
    settings: LocalFleetSettings, path_without_compilers: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet]:
    monkeypatch.setenv("PATH", path_without_compilers)
    fleet = Fleet(settings)
    yield fleet
    await fleet.fleet.stop()


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def until_gone(*pids: int) -> None:
    await until(lambda: not any(is_running(pid) for pid in pids), hang_s=HANG_GUARD_S)


async def test_a_killed_replica_is_noticed_and_comes_back_and_stop_leaves_no_child(own: Fleet):
    own.fleet.start(2)
    first, second = await own.next_event(), await own.next_event()
    assert isinstance(first, ReplicaUp)
    assert isinstance(second, ReplicaUp)
    assert {first.name, second.name} == {"local-0", "local-1"}
    assert first.url != second.url
    assert first.cold_start_s > 0
    await own.fleet.wait_ready()

    os.kill(first.pid, signal.SIGKILL)
    assert await own.next_event() == ReplicaDown(first.name, "killed by SIGKILL")
    back = await own.next_event()
    assert isinstance(back, ReplicaUp)
    assert back.name == first.name
    assert back.pid != first.pid
    async with httpx.AsyncClient(timeout=HANG_GUARD_S, verify=NO_TRUST_STORE) as client:
        health = await client.get(f"{back.url}/health")
    assert health.status_code == 200

    await own.fleet.stop()
    assert not is_running(second.pid)
    assert not is_running(back.pid)
    assert own.events.empty()


async def test_stop_while_the_model_loads_leaves_no_child(
    own: Fleet, monkeypatch: pytest.MonkeyPatch
):
    pids = spawned_pids(monkeypatch)
    own.fleet.start(1)
    while not pids:
        await asyncio.sleep(0.001)
    await own.fleet.stop()
    assert not is_running(pids[0])
    assert own.events.empty()


async def test_children_die_with_a_parent_that_is_killed(
    settings: LocalFleetSettings, path_without_compilers: str
):
    program = f"""
import asyncio
from pathlib import Path
from headrace.edges.fleets.local import LocalFleet, LocalFleetSettings
async def run():
    settings = LocalFleetSettings(
        model_path=Path({str(settings.model_path)!r}), log_dir=Path({str(settings.log_dir)!r})
    )
    fleet = LocalFleet(settings, lambda event: print(event.pid, flush=True))
    fleet.start(2)
    await asyncio.sleep(3600)
asyncio.run(run())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": path_without_compilers},
    ) as parent:
        assert parent.stdout is not None
        pids = [int(await asyncio.to_thread(parent.stdout.readline)) for _ in range(2)]
        assert all(is_running(pid) for pid in pids)
        parent.kill()
    await until_gone(*pids)


async def test_a_file_that_is_no_model_is_given_up_with_the_engines_reason(tmp_path: Path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    own = Fleet(
        LocalFleetSettings(
            model_path=broken, log_dir=tmp_path, first_restart_delay_s=0.01, max_failed_starts=2
        )
    )
    own.fleet.start(1)
    with pytest.raises(LocalFleetError, match=r"local-0 failed to start 2 times: .*local-0\.log"):
        await own.fleet.wait_ready()
    assert isinstance(await own.next_event(), ReplicaDown)
    await own.fleet.stop()


async def test_a_missing_model_file_is_named(tmp_path: Path):
    fleet = LocalFleet(LocalFleetSettings(model_path=tmp_path / "none.gguf"), print)
    with pytest.raises(LocalFleetError, match=r"none\.gguf does not exist"):
        fleet.start(1)


async def test_shared_replicas_answer_chat_and_embeddings(llamacpp_replicas: LlamaReplicas):
    async with httpx.AsyncClient(timeout=HANG_GUARD_S, verify=NO_TRUST_STORE) as client:
        for url in llamacpp_replicas.urls:
            models = await client.get(f"{url}/v1/models")
            assert [m["id"] for m in models.json()["data"]] == [llamacpp_replicas.model_id]
            slots = await client.get(f"{url}/slots")
            assert [slot["n_ctx"] for slot in slots.json()] == [4096] * 4
            chat = await client.post(
                f"{url}/v1/chat/completions",
                json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
            )
            assert chat.json()["usage"]["completion_tokens"] == 4
            embeddings = await client.post(f"{url}/v1/embeddings", json={"input": ["a", "b"]})
            assert len(embeddings.json()["data"]) == 2
