"""A pool of real child processes that follows plans."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from headrace.core.events import Event, ReplicaChanged, ReplicaGone
from headrace.core.scaling.observation import Phase
from headrace.core.scaling.plan import ScalePlan
from headrace.edges.fleets import local, replica_process
from headrace.edges.fleets.command import CommandReplicas, CommandSettings
from headrace.edges.fleets.keep_alive import LocalFleetError
from headrace.edges.fleets.local import ReplicaUp
from headrace.edges.fleets.scaled import ScaledFleet, ScaledPool
from headrace.edges.fleets.sleep_mode import (
    EngineSleep,
    Sleeper,
    SleepError,
    SleepRefusedError,
    SleepSettings,
)
from headrace.engines.sleep_mode import VLLM, is_sleeping
from tests.children import spawned_pids
from tests.plain_http import NO_TRUST_STORE
from tests.waiting import until

HANG_GUARD_S = 60.0
_SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""
ENGINE = (sys.executable, "-S", "-c", _SERVER, "{port}")
"""Healthy, and sooner there than a `headrace engine`."""


EMULATED = ("headrace", "engine", "--port", "{port}", "--sleep-mode", "50ms")


class Switch:
    """A sleeper whose engines do as a test says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sleep_fails: SleepError | None = None
        self.wake_fails: SleepError | None = None
        self.may_sleep = asyncio.Event()
        self.may_sleep.set()
        self.may_wake = asyncio.Event()
        self.may_wake.set()

    async def sleep(self, url: str) -> None:
        self.asked.append("sleep")
        await self.may_sleep.wait()
        if self.sleep_fails is not None:
            raise self.sleep_fails

    async def wake(self, url: str) -> None:
        self.asked.append("wake")
        await self.may_wake.wait()
        if self.wake_fails is not None:
            raise self.wake_fails


class Pool:
    """A scaled fleet with what it told, and requests in flight that a test sets."""

    def __init__(
        self,
        folder: Path,
        command: tuple[str, ...] = ENGINE,
        sleeper: Sleeper | None = None,
        *,
        max_log_bytes: int = 1_000_000,
        silent_timeout_s: float = 120.0,
    ) -> None:
        self.told: list[Event] = []
        self.lines: list[str] = []
        self.in_flight: dict[str, int] = {}
        settings = CommandSettings(
            command=command,
            log_dir=folder,
            max_failed_starts=2,
            first_restart_delay_s=0.05,
            silent_timeout_s=silent_timeout_s,
            stop_grace_s=0.5,
            max_log_bytes=max_log_bytes,
        )
        self.fleet = ScaledFleet(
            CommandReplicas(settings),
            ScaledPool(pool="emu"),
            emit=self.told.append,
            in_flight=lambda name: self.in_flight.get(name, 0),
            notice=lambda _name, line: self.lines.append(line),
            clock=time.time,
            sleeper=sleeper,
        )

    def plan(self, replicas: int = 1, **facts) -> None:
        self.fleet.carry_out(ScalePlan(time.time(), "emu", replicas, **facts))

    def phases(self) -> dict[str, Phase]:
        return {each.name: each.phase for each in self.fleet.observed()}

    async def until(self, done: Callable[[], bool]) -> None:
        try:
            await until(done, hang_s=HANG_GUARD_S)
        except TimeoutError:
            raise AssertionError((self.phases(), self.lines)) from None

    async def ready(self, *names: str) -> None:
        await self.until(lambda: all(self.phases().get(n) is Phase.READY for n in names))


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    pool = Pool(tmp_path)
    yield pool
    await pool.fleet.close()


async def test_replicas_are_ordered_serve_and_leave_when_their_last_request_has_ended(pool: Pool):
    pool.fleet.start(1)
    assert pool.phases() == {"emu-0": Phase.STARTING}
    await pool.ready("emu-0")
    pool.plan(2, order=1)
    await pool.ready("emu-0", "emu-1")
    [first, second] = pool.fleet.observed()
    for each in (first, second):
        assert each.ready_at_s is not None
        assert each.ready_at_s > each.ordered_at_s
    changed = [each for each in pool.told if isinstance(each, ReplicaChanged)]
    async with httpx.AsyncClient(trust_env=False, verify=NO_TRUST_STORE) as client:
        for each in changed:
            assert (await client.get(f"{each.url}/health")).status_code == 200

    pool.in_flight["emu-1"] = 1
    pool.plan(1, drain=("emu-1",))
    assert pool.phases()["emu-1"] is Phase.DRAINING
    drains = pool.told[-1]
    assert isinstance(drains, ReplicaChanged)
    assert drains.draining
    await asyncio.sleep(0.2)
    assert "emu-1" in pool.phases()  # its stream runs on
    pool.in_flight["emu-1"] = 0
    await pool.until(lambda: "emu-1" not in pool.phases())
    assert pool.told[-1] == ReplicaGone("emu-1")


async def test_a_replica_that_drains_stays_if_it_is_wanted_after_all(pool: Pool):
    pool.fleet.start(1)
    await pool.ready("emu-0")
    pool.in_flight["emu-0"] = 1
    pool.plan(0, drain=("emu-0",))
    pool.plan(1, order=1)
    assert pool.phases() == {"emu-0": Phase.READY}
    back = pool.told[-1]
    assert isinstance(back, ReplicaChanged)
    assert not back.draining
    pool.in_flight["emu-0"] = 0
    await asyncio.sleep(0.2)
    assert pool.phases() == {"emu-0": Phase.READY}


async def test_a_standby_is_not_told_until_it_is_woken_and_then_joins_at_once(pool: Pool):
    pool.fleet.start(0)
    pool.plan(0, standby=1)
    assert pool.phases() == {}  # one that stands by counts when it can
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.STANDBY})
    assert pool.told == []
    pool.plan(1, wake=("emu-0",), standby=0)
    assert pool.phases() == {"emu-0": Phase.READY}
    assert isinstance(pool.told[-1], ReplicaChanged)


async def test_a_standby_that_cannot_be_woken_is_ordered_instead_and_one_too_many_ends(pool: Pool):
    pool.fleet.start(0)
    pool.plan(1, wake=("emu-7",))
    assert pool.phases() == {"emu-0": Phase.STARTING}
    pool.plan(1, standby=1)
    await pool.until(lambda: pool.phases().get("emu-1") is Phase.STANDBY)
    pool.plan(1, standby=0)
    assert "emu-1" not in pool.phases()


async def test_one_that_leaves_stands_by_where_one_is_missing(pool: Pool):
    pool.fleet.start(1)
    await pool.ready("emu-0")
    pool.in_flight["emu-0"] = 1
    pool.plan(1, order=1)
    await pool.ready("emu-0", "emu-1")
    pool.fleet._again_s = time.time() + HANG_GUARD_S  # no other one may be ordered meanwhile
    pool.plan(1, drain=("emu-0",), standby=1)
    pool.in_flight["emu-0"] = 0
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.STANDBY, "emu-1": Phase.READY})
    assert pool.told[-1] == ReplicaGone("emu-0")


async def test_real_engines_sleep_while_they_stand_by_and_wake_when_they_are_wanted(tmp_path: Path):
    sleeper = EngineSleep(VLLM, SleepSettings(timeout_s=HANG_GUARD_S))
    pool = Pool(tmp_path, EMULATED, sleeper)
    pool.fleet.start(0)
    pool.plan(1, order=1, standby=1)
    await pool.until(lambda: sorted(pool.phases().values()) == [Phase.READY, Phase.STANDBY])
    [asleep] = [name for name, phase in pool.phases().items() if phase is Phase.STANDBY]
    assert any(line == f"replica {asleep} stands by, asleep" for line in pool.lines)
    pool.plan(2, wake=(asleep,))
    assert pool.phases()[asleep] is Phase.STARTING  # ordered, and not there yet
    await pool.ready("emu-0", "emu-1")
    woken = pool.told[-1]
    assert isinstance(woken, ReplicaChanged)
    assert woken.replica == asleep
    async with httpx.AsyncClient(
        trust_env=False, base_url=woken.url, timeout=30.0, verify=NO_TRUST_STORE
    ) as client:
        assert not is_sleeping((await client.get("/is_sleeping")).content)
        body = {"prompt": "Hi", "max_tokens": 2}
        assert (await client.post("/v1/completions", json=body)).status_code == 200
        assert pool.fleet.wakes.joined == 1
        assert pool.fleet.wakes.last_s > 0.0
        pool.plan(1, drain=(asleep,), standby=1)  # and it sleeps again
        await pool.until(lambda: pool.phases().get(asleep) is Phase.STANDBY)
        assert is_sleeping((await client.get("/is_sleeping")).content)
    await pool.fleet.close()


async def wakes(pool: Pool, switch: Switch) -> None:
    """The only one stood by, and is on its way back."""
    pool.fleet.start(0)
    pool.plan(0, standby=1)
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.STANDBY})
    switch.may_wake.clear()
    pool.plan(1, wake=("emu-0",))
    await pool.until(lambda: switch.asked == ["sleep", "wake"])


async def test_one_that_is_not_wanted_any_more_while_it_wakes_sleeps_again(tmp_path: Path):
    switch = Switch()
    pool = Pool(tmp_path, sleeper=switch)
    await wakes(pool, switch)
    pool.plan(0, drain=("emu-0",), standby=1)
    switch.may_wake.set()
    await pool.until(lambda: switch.asked == ["sleep", "wake", "sleep"])
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.STANDBY})
    assert pool.told == []
    await pool.fleet.close()


async def falls_asleep(pool: Pool, switch: Switch) -> None:
    """Two are ready, and the second is on its way to stand by."""
    switch.may_sleep.clear()
    pool.fleet.start(2)
    await pool.ready("emu-0", "emu-1")
    pool.plan(1, drain=("emu-1",), standby=1)
    await pool.until(lambda: switch.asked == ["sleep"])
    assert pool.phases() == {"emu-0": Phase.READY}


async def test_one_that_is_wanted_again_while_it_falls_asleep_is_woken(tmp_path: Path):
    switch = Switch()
    pool = Pool(tmp_path, sleeper=switch)
    await falls_asleep(pool, switch)
    pool.plan(2, order=1, standby=0)
    assert pool.phases() == {"emu-0": Phase.READY, "emu-1": Phase.STARTING}
    pool.plan(2, standby=0)  # it is none that stands by
    switch.may_sleep.set()
    await pool.ready("emu-0", "emu-1")
    assert switch.asked == ["sleep", "wake"]
    assert pool.fleet.wakes.joined == 1
    assert not any("started" in line for line in pool.lines)
    await pool.fleet.close()


async def test_one_that_is_wanted_again_and_does_not_fall_asleep_joins_as_it_is(tmp_path: Path):
    switch = Switch()
    switch.sleep_fails = SleepRefusedError("answers 404 to /sleep; start it with a flag")
    pool = Pool(tmp_path, sleeper=switch)
    await falls_asleep(pool, switch)
    pool.plan(2, order=1)
    switch.may_sleep.set()
    await pool.ready("emu-0", "emu-1")
    assert switch.asked == ["sleep"]
    await pool.fleet.close()


async def test_one_that_is_wanted_and_not_again_while_it_falls_asleep_stands_by(tmp_path: Path):
    switch = Switch()
    pool = Pool(tmp_path, sleeper=switch)
    await falls_asleep(pool, switch)
    pool.plan(2, order=1)
    pool.plan(1, drain=("emu-1",), standby=1)
    switch.may_sleep.set()
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.READY, "emu-1": Phase.STANDBY})
    assert switch.asked == ["sleep"]
    await pool.fleet.close()


async def test_a_standby_that_loads_is_what_is_ordered_next(pool: Pool):
    pool.fleet.start(0)
    pool.plan(0, standby=1)
    pool.plan(1, order=1, standby=0)
    assert pool.phases() == {"emu-0": Phase.STARTING}
    await pool.ready("emu-0")


async def test_one_that_wakes_and_was_not_wanted_for_a_moment_joins(tmp_path: Path):
    switch = Switch()
    pool = Pool(tmp_path, sleeper=switch)
    await wakes(pool, switch)
    pool.plan(0, drain=("emu-0",), standby=1)
    pool.plan(1, order=1)
    assert pool.phases() == {"emu-0": Phase.STARTING}
    switch.may_wake.set()
    await pool.ready("emu-0")
    assert switch.asked == ["sleep", "wake"]
    await pool.fleet.close()


async def test_what_becomes_ready_while_the_fleet_is_closed_is_not_put_to_sleep(tmp_path: Path):
    switch = Switch()
    pool = Pool(tmp_path, sleeper=switch)
    await falls_asleep(pool, switch)
    pool.plan(1, standby=2)  # the second of them loads
    told, lines = len(pool.told), len(pool.lines)
    closing = asyncio.create_task(pool.fleet.close())
    await asyncio.sleep(0)  # it waits for the one that falls asleep
    pool.fleet._on_event(ReplicaUp("emu-2", "http://127.0.0.1:9", 1, 0.1))
    pool.plan(2, order=1)
    await closing
    await asyncio.sleep(0)
    assert switch.asked == ["sleep"]
    assert (len(pool.told), len(pool.lines)) == (told, lines)


async def test_one_that_does_not_wake_is_ended_and_said(tmp_path: Path):
    switch = Switch()
    switch.wake_fails = SleepError("did not wake within 60 s")
    pool = Pool(tmp_path, sleeper=switch)
    pool.fleet.start(0)
    pool.plan(0, standby=1)
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.STANDBY})
    pool.plan(1, wake=("emu-0",))
    await pool.until(lambda: pool.phases() == {})
    assert pool.fleet.refused == "replica emu-0 did not wake within 60 s"
    assert pool.fleet.wakes.failed == 1
    pool.plan(1, order=1)  # as the scaler does when it sees that one is missing
    await pool.until(lambda: list(pool.phases().values()) == [Phase.READY])
    assert pool.fleet.refused == ""
    await pool.fleet.close()


async def test_one_without_sleep_mode_stands_by_awake_and_joins_at_once(tmp_path: Path):
    switch = Switch()
    switch.sleep_fails = SleepRefusedError("answers 404 to /sleep; start it with a flag")
    pool = Pool(tmp_path, sleeper=switch)
    pool.fleet.start(0)
    pool.plan(0, standby=1)
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.STANDBY})
    assert any("stands by awake: it answers 404" in line for line in pool.lines)
    pool.plan(1, wake=("emu-0",))
    assert pool.phases() == {"emu-0": Phase.READY}
    assert switch.asked == ["sleep"]
    await pool.fleet.close()


async def test_one_that_still_starts_is_dropped_at_once(pool: Pool):
    pool.fleet.start(1)
    pool.plan(0, drain=("emu-0",))
    assert pool.phases() == {}
    assert pool.told == []


async def test_one_that_is_ended_twice_while_it_starts_leaves_no_child(tmp_path, monkeypatch):
    pids = spawned_pids(monkeypatch)
    pool = Pool(tmp_path)
    for turns in range(1, 12):  # of the loop, between the first end and the second
        pool.fleet.start(1)
        while len(pids) < turns:
            await asyncio.sleep(0)
        pool.plan(0, drain=tuple(pool.phases()))
        for _ in range(turns):
            await asyncio.sleep(0)
        await pool.fleet.close()
        with pytest.raises(ProcessLookupError):  # it was waited for, too
            os.kill(pids[-1], 0)


async def test_a_replica_that_dies_is_told_and_comes_back(pool: Pool, monkeypatch):
    pids = spawned_pids(monkeypatch)
    pool.fleet.start(1)
    await pool.ready("emu-0")
    os.kill(pids[0], signal.SIGKILL)
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.FAILING})
    down = pool.told[-1]
    assert isinstance(down, ReplicaChanged)
    assert not down.ready
    await pool.ready("emu-0")


async def test_a_command_that_never_serves_is_given_up_and_said(tmp_path: Path):
    pool = Pool(tmp_path, ("sh", "-c", "echo no GPU >&2; exit 3 # {port}"))
    pool.fleet.start(1)
    await pool.until(lambda: bool(pool.fleet.refused))
    assert "failed to start 2 times: exited with status 3: no GPU" in pool.fleet.refused
    down, given_up, gone = pool.lines
    assert down.endswith("it is started again")
    assert given_up.startswith("replica emu-0 is given up: it failed to start 2 times: exited")
    assert gone == "replica emu-0 is gone"
    assert pool.phases() == {}
    pool.plan(1, order=1)
    assert pool.phases() == {}  # not at once: it would only fail again
    pool.fleet._again_s = 0.0
    pool.plan(1, order=1)
    # Which name it gets is open: the one given up may still be ending.
    assert list(pool.phases().values()) == [Phase.STARTING]
    await pool.fleet.close()


async def test_one_that_hangs_gets_nothing_and_comes_back_when_it_answers(pool: Pool, monkeypatch):
    monkeypatch.setattr(local, "LOOK_S", 0.02)
    monkeypatch.setattr(replica_process, "_HEALTH_TIMEOUT_S", 0.2)
    pids = spawned_pids(monkeypatch)
    pool.fleet.start(1)
    await pool.ready("emu-0")
    os.kill(pids[0], signal.SIGSTOP)
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.FAILING})
    down = pool.told[-1]
    assert isinstance(down, ReplicaChanged)
    assert not down.ready
    os.kill(pids[0], signal.SIGCONT)
    await pool.ready("emu-0")
    assert pool.lines[-2:] == [
        "replica emu-0 does not answer its health",
        "replica emu-0 answers again",
    ]


async def test_a_standby_that_hangs_is_not_woken_and_another_is_ordered(pool: Pool, monkeypatch):
    monkeypatch.setattr(local, "LOOK_S", 0.02)
    monkeypatch.setattr(replica_process, "_HEALTH_TIMEOUT_S", 0.2)
    pids = spawned_pids(monkeypatch)
    pool.fleet.start(0)
    pool.plan(0, standby=1)
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.STANDBY})
    os.kill(pids[0], signal.SIGSTOP)
    await pool.until(lambda: "replica emu-0 does not answer its health" in pool.lines)
    pool.plan(1, wake=("emu-0",), standby=0)
    assert pool.phases() == {"emu-1": Phase.STARTING}  # one standby is no longer asked for
    assert pool.told == [ReplicaGone("emu-0")]


async def test_one_that_hangs_while_it_drains_does_not_stay(pool: Pool, monkeypatch):
    monkeypatch.setattr(local, "LOOK_S", 0.02)
    monkeypatch.setattr(replica_process, "_HEALTH_TIMEOUT_S", 0.2)
    pids = spawned_pids(monkeypatch)
    pool.fleet.start(1)
    await pool.ready("emu-0")
    pool.in_flight["emu-0"] = 1
    os.kill(pids[0], signal.SIGSTOP)
    await pool.until(lambda: pool.phases() == {"emu-0": Phase.FAILING})
    pool.plan(0, drain=("emu-0",))
    assert pool.phases() == {"emu-0": Phase.DRAINING}
    pool.plan(1, order=1)
    assert pool.phases() == {"emu-0": Phase.DRAINING, "emu-1": Phase.STARTING}


async def test_one_that_hangs_for_too_long_is_started_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(local, "LOOK_S", 0.02)
    monkeypatch.setattr(replica_process, "_HEALTH_TIMEOUT_S", 0.1)
    pids = spawned_pids(monkeypatch)
    pool = Pool(tmp_path, silent_timeout_s=0.5)
    pool.fleet.start(1)
    await pool.ready("emu-0")
    os.kill(pids[0], signal.SIGSTOP)
    await pool.until(lambda: len(pids) > 1)
    assert any("is down: did not answer its health for 0.5 s" in line for line in pool.lines)
    await pool.ready("emu-0")
    assert not is_running(pids[0])
    await pool.fleet.close()


async def test_one_that_a_signal_without_a_name_killed_is_started_again(
    tmp_path: Path, monkeypatch
):
    pids = spawned_pids(monkeypatch)
    pool = Pool(tmp_path)
    pool.fleet.start(1)
    await pool.ready("emu-0")
    number = signal.SIGRTMIN + 1
    os.kill(pids[0], number)
    await pool.until(lambda: len(pids) > 1)
    assert any(f"is down: killed by signal {number}" in line for line in pool.lines)
    await pool.fleet.close()


async def test_the_log_of_one_that_runs_does_not_grow_for_ever(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(replica_process, "LOG_LOOK_S", 0.02)
    talk = "while :; do echo 0123456789; sleep 0.001; done"
    pool = Pool(tmp_path, ("sh", "-c", f'({talk}) & exec "$@"', "sh", *ENGINE), max_log_bytes=1000)
    pool.fleet.start(1)
    await pool.ready("emu-0")
    log = tmp_path / "emu-0.log"
    await pool.until(lambda: log.stat().st_size > 1000)
    await pool.until(lambda: log.stat().st_size < 1000)
    await pool.fleet.close()


@pytest.mark.parametrize("end", ["by us", "by itself"])
async def test_what_a_script_leaves_behind_ends_with_it(tmp_path: Path, monkeypatch, end: str):
    left = tmp_path / "left"
    pids = spawned_pids(monkeypatch)
    pool = Pool(tmp_path, ("sh", "-c", f'"$@" & echo $! >> {left}; wait', "sh", *ENGINE))
    pool.fleet.start(1)
    await pool.ready("emu-0")
    pid = int(left.read_text())
    if end == "by itself":
        os.kill(pids[0], signal.SIGKILL)
    else:
        pool.plan(0, drain=("emu-0",))
    await pool.until(lambda: not is_running(pid))
    await pool.fleet.close()


def is_running(pid: int) -> bool:
    """Whether it is there and no zombie that only its parent's end waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("headrace", "engine"), r"does not say \{port\}"),
        (("no-such-engine", "{port}"), "'no-such-engine' is not on PATH"),
    ],
    ids=["no port", "no program"],
)
def test_a_command_that_cannot_work_is_refused_at_the_start(tmp_path: Path, command, said):
    with pytest.raises(LocalFleetError, match=said):
        CommandReplicas(CommandSettings(command=command, log_dir=tmp_path)).check()
