"""What a scaler makes of the state that an earlier one kept."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.autoscaler.history import FileHistory
from headrace.autoscaler.settings import HistorySettings, PoolScaling, ScalingSection
from headrace.compose.process.terminal import Terminal
from headrace.compose.serving.scaler import ScalerHost
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.observation import PoolObservation
from tests.unit.autoscaler.reports import PROFILE, pool_report, replica, report
from tests.unit.autoscaler.test_history import Prometheus
from tests.waiting import until


class Gateway:
    """One that tells of two pools."""

    name = "gw"

    def __init__(self, *, knows_engines: bool = True) -> None:
        self.latency = PROFILE if knows_engines else None

    async def read(self):
        pools = [
            pool_report(*(replica(f"{name}{n}") for n in range(3)), pool=name) for name in "ab"
        ]
        return report(*(replace(pool, latency=self.latency) for pool in pools))


class Heard(Terminal):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def status(self, line: str) -> None:
        self.lines.append(line)

    def problem(self, line: str) -> None:
        self.lines.append(line)

    def reads(self) -> int:
        """Of histories."""
        return sum("of history read" in line for line in self.lines)


def host(
    folder: Path,
    history: HistorySettings | None = None,
    *,
    knows_engines: bool = True,
    gpus: int | None = None,
) -> tuple[ScalerHost, Heard]:
    heard = Heard()
    section = ScalingSection(
        pools={"a": PoolScaling(), "b": PoolScaling()},
        state_file="state",
        history=history,
        gpus=gpus,
    )
    gateway = Gateway(knows_engines=knows_engines)
    return ScalerHost(section, folder, [gateway], {}, heard), heard


async def kept(folder: Path) -> dict[str, Any]:
    """The state of a scaler that ran for a moment."""
    first, _ = host(folder)
    await first.start()
    await first.autoscaler.ask(Gateway())
    await first.stop()
    return json.loads((folder / "state").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda pool: pool.pop("served"), "KeyError('served')"),
        (lambda pool: pool["demand"].update(gateways=[]), "AttributeError"),
        (lambda pool: pool["demand"].update(lengths=[[1]]), "IndexError"),
        (lambda pool: pool.update(forecast={"x": 1}), "KeyError('rule')"),
    ],
)
async def test_a_pool_whose_state_cannot_be_used_begins_anew_and_the_others_go_on(
    tmp_path, spoil, told
):
    state = await kept(tmp_path)
    spoil(state["a"])
    state["a"]["hysteresis"]["number"] = state["b"]["hysteresis"]["number"] = 17
    (tmp_path / "state").write_text(json.dumps(state))
    again, heard = host(tmp_path)
    await again.start()
    numbers = {
        name: pool.scaler.state()["hysteresis"]["number"]
        for name, pool in again.autoscaler.scaled.items()
    }
    await again.stop()
    assert numbers == {"a": None, "b": 17}
    [line] = [line for line in heard.lines if "another version" in line]
    assert told in line
    assert "pool a" in line


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pool: pool["hysteresis"].update(number="7"),
        lambda pool: pool.update(granted="seven"),
        lambda pool: (pool.pop("granted"), pool["hysteresis"].update(number="seven")),
        lambda pool: pool.update(cold_starts_s=[None]),
        lambda pool: pool["misses"].update(minutes=[["now", 1.0, 0.0]]),
    ],
    ids=["number", "granted", "number_of_an_older_file", "cold_starts", "misses"],
)
@pytest.mark.parametrize("gpus", [None, 100])
async def test_a_state_that_no_decision_can_be_made_by_does_not_end_decisions(
    tmp_path, spoil, gpus
):
    """Of the right shape and of wrong values, so that it can be restored. A budget reads some of
    them before anything is decided, and for all pools at once.
    """
    state = await kept(tmp_path)
    spoil(state["a"])
    (tmp_path / "state").write_text(json.dumps(state))
    again, _ = host(tmp_path, gpus=gpus)
    again._restore()
    for _ in range(2):
        await again.autoscaler.ask(Gateway())
    plans = [pool.plan for pool in again.autoscaler.scaled.values()]
    assert [plan and plan.replicas for plan in plans] == [3, 3]


async def test_a_pool_whose_learning_cannot_be_kept_does_not_stop_the_others(tmp_path, caplog):
    scaler, _ = host(tmp_path)
    await scaler.start()
    await scaler.autoscaler.ask(Gateway())
    scaler.autoscaler.scaled["a"].scaler = None  # pyright: ignore[reportAttributeAccessIssue]
    await scaler.stop()
    assert list(json.loads((tmp_path / "state").read_bytes())) == ["b"]
    assert "pool a has learned could not be kept" in caplog.text


async def test_a_history_that_does_not_answer_keeps_nobody_waiting(tmp_path, monkeypatch):
    class Silent:
        async def read(self, _pool: str, _now: float):
            await asyncio.Event().wait()

    monkeypatch.setattr("headrace.compose.serving.scaler._history_of", lambda *_: Silent())
    scaler, _ = host(tmp_path)
    await scaler.start()
    async with asyncio.timeout(60.0):
        while scaler.autoscaler.value_of("b", 0.1) is None:
            await asyncio.sleep(0.01)
    await scaler.stop()


async def test_what_was_read_is_learned_though_engines_are_known_much_later(tmp_path, monkeypatch):
    """A gateway that has just started learns them from its first streams, which may be hours."""
    monkeypatch.setattr("headrace.compose.serving.scaler.HISTORY_S", 0.2)
    monkeypatch.setattr("headrace.compose.serving.scaler.OLD_S", 0.2)
    now = time.time()
    file = FileHistory(tmp_path / "demand", 1.0)
    for minute in range(60, 0, -1):
        at_s = (now // 60 - minute) * 60
        file.keep("a", DemandSample(at_s, 60.0, 600.0, 3e5, 6e4))
    scaler, heard = host(tmp_path, HistorySettings(file="demand"), knows_engines=False)
    await scaler.start()
    await until(lambda: heard.reads() == 2)
    await asyncio.sleep(0.5)
    file.keep("a", DemandSample((now // 60) * 60 - 3660.0, 60.0, 600.0, 3e5, 6e4))
    [gateway] = scaler.autoscaler._sources
    assert isinstance(gateway, Gateway)
    gateway.latency = PROFILE
    await until(lambda: not scaler._past_awaited)
    learned = scaler.autoscaler.scaled["a"].scaler.state()["forecast"]["minutes"]
    await scaler.stop()
    assert not [line for line in heard.lines if "begins without its past" in line]
    assert learned >= 60.0  # with what was written since


async def test_a_past_that_could_not_be_learned_yet_is_read_again_after_a_restart(tmp_path):
    """Until engines are known, requests cannot be told in replicas."""
    for knows_engines, reads in ((False, 2), (False, 2), (True, 2), (True, 0)):
        history = HistorySettings(file="demand")
        scaler, heard = host(tmp_path, history, knows_engines=knows_engines)
        await scaler.start()
        async with asyncio.timeout(60.0):
            while scaler.autoscaler.value_of("b", 0.1) is None or heard.reads() < reads:
                await asyncio.sleep(0.01)
            while knows_engines and scaler._past_awaited:
                await asyncio.sleep(0.01)
        await scaler.stop()
        assert heard.reads() == reads


async def test_a_state_that_cannot_be_written_is_told_once(tmp_path):
    scaler, heard = host(tmp_path / "nowhere")
    await scaler.start()
    for _ in range(3):
        scaler.autoscaler.store()
        await asyncio.sleep(0.05)
    await scaler.stop()
    [line] = [line for line in heard.lines if "cannot be written" in line]
    assert "No such file or directory" in line


async def test_what_is_decided_while_the_disk_is_slow_is_kept_too(tmp_path, monkeypatch):
    """An order that is kept nowhere is taken back by who starts after a crash."""
    scaler, _ = host(tmp_path)
    assert scaler._state is not None
    may_write, write = threading.Event(), scaler._state.write

    def slow(state: dict[str, Any]) -> None:
        assert may_write.wait(60.0)
        write(state)

    monkeypatch.setattr(scaler._state, "write", slow)
    for number in range(3):
        scaler._store({"number": number})
        await asyncio.sleep(0)
    may_write.set()
    await scaler._written()
    assert json.loads((tmp_path / "state").read_bytes()) == {"number": 2}


async def test_it_says_once_when_demand_is_not_known_and_when_it_is_again(tmp_path, monkeypatch):
    scaler, heard = host(tmp_path)
    auto = scaler.autoscaler
    for now, told in ((1000.0, True), (1100.0, False), (1200.0, False), (1300.0, True)):
        monkeypatch.setattr(auto, "clock", lambda now=now: now)
        if told:
            await auto.ask(Gateway())
        auto.decide()
    lines = [line for line in heard.lines if line.startswith("pool a: demand")]
    assert lines == [
        "pool a: demand is not known, so nothing is lowered: gateway gw: its report is 100 s old",
        "pool a: demand is known again",
    ]


def test_a_history_that_cannot_be_written_is_told_once(tmp_path):
    section = ScalingSection(pools={"a": PoolScaling()}, history=HistorySettings(file="no/where"))
    heard = Heard()
    scaler = ScalerHost(section, tmp_path, [], {}, heard)
    log = scaler._minutes()
    assert log is not None
    for minute in range(5):
        demand = pool_report(requests=float(minute)).demand
        now = 60.0 * minute
        log.look("a", PoolObservation(now, "a", gateways=(demand,)), now)
    assert len([line for line in heard.lines if "cannot be written" in line]) == 1


async def test_a_pool_whose_state_fails_at_its_first_decision_asks_for_its_past(tmp_path):
    """As one without state does: for what was wanted, and for the demand of before."""
    state = await kept(tmp_path)
    state["a"]["hysteresis"]["number"] = "7"
    (tmp_path / "state").write_text(json.dumps(state))
    query = "last_over_time(headrace:scaling_wanted_replicas:max"
    async with Prometheus({}) as prometheus:
        prometheus.always = {query: "9"}
        again, heard = host(tmp_path, HistorySettings(prometheus=prometheus.url))
        await again.start()
        published = []

        def is_known() -> bool:
            known = again.autoscaler.value_of("a", 0.0)
            published.append(known and known[0].replicas)
            return published[-1] == 9

        await until(is_known)
        await until(lambda: heard.reads() == 1)
        await again.stop()
    assert set(published) == {None, 9}  # what is there alone is not told meanwhile
    assert {asked["query"][0] for asked in prometheus.asked} >= {
        'headrace:requests:rate1m{pool="a"}',
        'last_over_time(headrace:scaling_wanted_replicas:max{pool="a"}[3600s])',
    }
    assert not any('pool="b"' in asked["query"][0] for asked in prometheus.asked)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda pool: pool["hysteresis"].update(number=-7), "hysteresis.number is -7, and can"),
        (lambda pool: pool.update(granted=1e308), "granted is 1e+308, and can only be from 0"),
        (
            lambda pool: pool["demand"]["plain"].update(known_since_s=time.time() + 5e6),
            "a time that is still to come",
        ),
    ],
    ids=["negative", "enormous", "to_come"],
)
async def test_a_number_that_cannot_be_is_refused_by_name_and_its_pool_begins_as_without_state(
    tmp_path, spoil, told
):
    state = await kept(tmp_path)
    spoil(state["a"])
    state["b"]["hysteresis"]["number"] = state["b"]["granted"] = 17
    (tmp_path / "state").write_text(json.dumps(state))
    async with Prometheus({}) as prometheus:
        prometheus.always = {"last_over_time(headrace:scaling_wanted_replicas:max": "9"}
        again, heard = host(tmp_path, HistorySettings(prometheus=prometheus.url))
        await again.start()
        for name, replicas in (("a", 9), ("b", 17)):
            await until(lambda name=name: again.autoscaler.value_of(name, 0.0) is not None)
            known = again.autoscaler.value_of(name, 0.0)
            assert known is not None
            assert known[0].replicas == replicas
        await until(lambda: heard.reads() == 1)
        await again.stop()
    [line] = [line for line in heard.lines if "cannot be true" in line]
    assert line.startswith(f"{tmp_path / 'state'}: what is kept of pool a cannot be true: ")
    assert told in line
    assert line.endswith("; the pool begins anew")
    assert not any("traceback" in line.lower() for line in heard.lines)
