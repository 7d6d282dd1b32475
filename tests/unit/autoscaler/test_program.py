"""The loop, with gateways made by hand and the real scaler."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from math import ceil
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.autoscaler.app import make_scaler_app
from headrace.autoscaler.budget import GpuBudget
from headrace.autoscaler.keda import PlansForKeda
from headrace.autoscaler.pool import NOT_LEARNED, ScaledPool
from headrace.autoscaler.ports import SourceError
from headrace.autoscaler.program import Autoscaler
from headrace.autoscaler.settings import GatheringSettings
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.observation import Phase, ReplicaObservation, StandbyWakes
from headrace.core.scaling.plan import ScalePlan, Signal
from headrace.core.scaling.report import ScalingReport
from headrace.core.scaling.settings import ColdStart, EngineFigures, ScalingSettings
from headrace.edges.keda.ports import Published
from headrace.forecasting import pool_scaler
from headrace.forecasting.calendar import CalendarEntry
from tests.unit.autoscaler.reports import PROFILE, pool_report, replica, report
from tests.waiting import until


class Source:
    """A gateway that tells what a test says."""

    def __init__(self, name: str, told: ScalingReport | None) -> None:
        self.name = name
        self.told = told

    async def read(self) -> ScalingReport:
        if self.told is None:
            raise SourceError(f"{self.name} does not answer")
        return self.told


class World:
    """An autoscaler of one pool with a clock of its own."""

    def __init__(self, *told: ScalingReport | None, **settings) -> None:
        self.now = 1_000_005.0  # at a tick of the clock, of 15 s
        self.sources = [Source(f"gw-{n}", each) for n, each in enumerate(told)]
        self.stored: list[dict] = []
        given = {"warm_replicas": 1, "cold_start": ColdStart(0, 0, 1, 60.0), **settings}
        self.scaler = pool_scaler(
            ScalingSettings(**given), EngineFigures(NOT_LEARNED, kv_capacity_tokens=100_000)
        )
        self.pool = ScaledPool("llama", self.scaler)
        self.autoscaler = Autoscaler(
            [self.pool],
            self.sources,
            GatheringSettings(),
            clock=lambda: self.now,
            store=self.stored.append,
        )
        self.keda = PlansForKeda(self.autoscaler)

    async def look(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for source in self.sources:
            await self.autoscaler.ask(source)
        self.autoscaler.decide()

    def value(self, tolerance: float = 0.0) -> float | None:
        told = self.keda.published("llama", tolerance)
        return None if told is None else told.value


async def test_before_any_gateway_told_something_nothing_is_published():
    world = World(None)
    await world.look()
    assert world.value() is None
    assert world.autoscaler.gathering.failures == {"gw-0": "gw-0 does not answer"}


async def test_a_first_look_keeps_what_is_there_and_takes_the_gateways_profile():
    world = World(report(pool_report(*(replica(f"r{n}") for n in range(5)))))
    await world.look()
    assert world.value() == 5.0
    assert world.scaler.figures.latency == PROFILE


@pytest.mark.parametrize(
    ("profile", "cold_start", "expected_s"),
    [
        ("h100-llama-3.3-70b-tp4", ColdStart(), (12e9 + 2 * 70.55e9) / 0.5e9 + 60.0),
        ("measured on Monday", ColdStart(), (12e9 + 16e9) / 0.5e9 + 60.0),
        ("h100-llama-3.3-70b-tp4", ColdStart(0.0, 0.0, 1.0, 90.0), 90.0),
    ],
)
async def test_a_cold_start_is_reckoned_with_the_weights_of_the_profile_until_one_is_measured(
    profile: str, cold_start: ColdStart, expected_s: float
):
    told = pool_report(replica("r1"))
    told = replace(told, latency=replace(PROFILE, name=profile))
    world = World(report(told), cold_start=cold_start)
    await world.look()
    settings = replace(world.scaler.settings, max_replicas=9)
    for _ in range(2):
        horizon_s = world.scaler.horizon_s - world.scaler.settings.tick_s
        assert horizon_s == pytest.approx(expected_s, rel=0.001)
        world.pool.retune(replace(settings, cold_start=cold_start), (), 1)
        await world.look(15.0)


async def test_it_is_decided_when_it_is_due_and_no_sooner():
    world = World(report(pool_report(replica("r1"))), tick_s=15.0)
    await world.look()
    await world.look(14.0)
    assert world.autoscaler.ticks == 1
    await world.look(1.0)
    assert world.autoscaler.ticks == 2


async def test_what_a_missing_gateway_tells_is_decided_by_at_once():
    """Not at the next tick: KEDA is told UNAVAILABLE until then, and uses its fallback."""
    there = report(pool_report(replica("r1"), replica("r2")))
    world = World(there, None, tick_s=15.0)
    await world.look()
    assert world.value() is None
    world.sources[1].told = there
    await world.look(0.5)
    assert world.value() == 2.0
    ticks = world.autoscaler.ticks
    await world.look(0.5)
    assert world.autoscaler.ticks == ticks
    world.sources[1].told = None
    for _ in range(8):
        await world.look(15.0)
    assert world.value() is None
    world.sources[1].told = there
    await world.look(0.5)
    assert world.value() == 2.0


async def test_scalers_that_were_started_at_other_times_decide_at_the_same():
    worlds = [World(report(pool_report(replica("r1"))), tick_s=15.0) for _ in range(2)]
    worlds[1].now += 7.0
    decided: list[list[float]] = [[], []]
    for world, times in zip(worlds, decided, strict=True):
        for _ in range(200):
            ticks = world.autoscaler.ticks
            await world.look(0.5)
            if world.autoscaler.ticks > ticks:
                times.append(world.now)
    first, second = (set(times[1:]) for times in decided)
    assert min(len(first), len(second)) >= 5
    last = min(max(first), max(second))
    begin = max(min(first), min(second))
    assert {at for at in first if begin <= at <= last} == {at for at in second if at <= last}


async def test_a_request_that_is_held_at_zero_replicas_is_decided_at_once():
    world = World(report(pool_report()), min_replicas=0, warm_replicas=0)
    await world.look()
    assert world.value() == 0.0
    told = world.keda.published("llama", 0.1)
    assert told is not None
    assert not told.active
    change = world.autoscaler.next_change()
    world.sources[0].told = report(
        pool_report(requests=1, held_requests=1, held_input_tokens=500.0)
    )
    await world.look(0.5)
    assert change.done()
    told = world.keda.published("llama", 0.1)
    assert told is not None
    assert told.active
    assert told.value is not None
    assert told.value >= 1.0


async def test_when_a_gateway_is_silent_for_too_long_nothing_is_published_and_nothing_lowered():
    told = report(pool_report(*(replica(f"r{n}") for n in range(4))))
    world = World(told, told, stale_s=30.0)
    await world.look()
    await world.look(15.0)
    assert world.value() == 4.0
    world.sources[1].told = None
    for _ in range(20):
        await world.look(15.0)
    assert world.value() is None
    plan = world.pool.plan
    assert plan is not None
    assert plan.replicas == 4
    assert not plan.complete


async def test_what_keda_was_told_and_nobody_sees_yet_is_starting():
    world = World(report(pool_report(replica("r1"))), min_replicas=3)
    await world.look()
    assert world.value() == 3.0
    await world.look(15.0)
    seen = world.pool.observation
    assert seen is not None
    assert [each.phase for each in seen.replicas] == [
        *(Phase.READY, Phase.STARTING, Phase.STARTING),
    ]


async def test_the_tolerance_of_the_hpa_is_that_of_what_is_there():
    names = [f"r{n}" for n in range(10)]
    world = World(report(pool_report(*(replica(name) for name in names))), min_replicas=11)
    await world.look()
    world.pool._orders.want(0, 0, world.now)  # as an HPA that has not moved
    await world.look()
    assert world.value(0.0) == 11.0
    assert world.value(0.1) == 11.001


async def test_a_plan_that_is_overdue_is_not_published():
    world = World(report(pool_report(replica("r1"))), tick_s=15.0, stale_s=60.0)
    await world.look()
    world.now += 75.0  # as if nothing decided any more
    assert world.value() == 1.0
    world.now += 1.0
    assert world.value() is None


async def test_a_gateway_that_says_something_impossible_does_not_end_the_others(
    caplog: pytest.LogCaptureFixture,
):
    told = report(pool_report(replica("r1")))
    world = World(told, told)

    async def broken() -> ScalingReport:
        raise ZeroDivisionError

    world.sources[0].read = broken
    await world.look()
    assert "ZeroDivisionError" in world.autoscaler.gathering.failures["gw-0"]
    assert "gateway gw-0 could not be read" in caplog.text
    assert world.pool.plan is not None


async def test_a_fault_in_one_pool_does_not_stop_the_others(caplog: pytest.LogCaptureFixture):
    world = World(report(pool_report(replica("r1")), pool_report(replica("x1"), pool="other")))
    broken = ScaledPool("other", world.scaler)
    broken.look = None  # pyright: ignore[reportAttributeAccessIssue] - a fault
    world.autoscaler.scaled = {"other": broken, "llama": world.pool}
    await world.look()
    assert world.value() == 1.0
    assert "pool other could not be decided" in caplog.text


async def test_what_was_learned_is_kept_now_and_then_and_restores_the_same_answers():
    world = World(report(pool_report(*(replica(f"r{n}") for n in range(3)))))
    await world.look()
    await world.look(61.0)
    assert world.stored
    again = World(world.sources[0].told)
    again.now = world.now + 5.0
    again.scaler.restore(world.stored[-1]["llama"])
    await again.look()
    assert again.value() == world.value()


async def test_a_number_that_was_changed_is_kept_at_once():
    """Replicas that are being made are in no list: who forgets them would take them back."""
    told = pool_report(replica("r1", measured_age_s=0.0, waiting_prefill_tokens=0.0))
    world = World(report(told))
    await world.look()
    for number in range(1, 4):
        demand = replace(told.demand, requests=3000.0 * number)
        world.sources[0].told = report(replace(told, demand=demand))
        await world.look(15.0)
    assert world.pool.plan is not None
    assert world.pool.plan.replicas > 1
    assert world.stored[-1]["llama"]["hysteresis"]["number"] == world.pool.plan.replicas
    assert len(world.stored) < 4


async def test_it_runs_until_it_is_cancelled_while_one_gateway_hangs():
    world = World(report(pool_report(replica("r1"))))

    class Hanging:
        name = "hangs"

        async def read(self) -> ScalingReport:
            await asyncio.sleep(3600)
            raise AssertionError

    world.autoscaler._sources = [*world.sources, Hanging()]
    world.autoscaler._settings = GatheringSettings(interval_s=0.01, timeout_s=0.05)
    task = asyncio.create_task(world.autoscaler.run())
    await until(
        lambda: world.pool.plan is not None and "hangs" in world.autoscaler.gathering.failures,
        hang_s=30.0,
    )
    assert world.autoscaler.gathering.failures["hangs"] == "no answer within 0.05 s"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_calendar_becomes_floors_and_is_read_anew():
    world = World(report(pool_report(replica("r1"))))
    entry = CalendarEntry(start="0 8 * * *", end="0 18 * * *", replicas=6, name="office")
    world.pool = ScaledPool("llama", world.scaler, calendar=[entry])
    world.autoscaler.scaled = {"llama": world.pool}
    world.now = 1_790_000_000.0 // 86_400 * 86_400 + 7 * 3600.0  # seven in the morning, UTC
    await world.look()
    assert world.value() == 1.0
    assert world.scaler.settings.schedule[0].name == "office"
    for _ in range(70):
        await world.look(60.0)
    assert world.value() == 6.0
    assert world.pool.plan is not None
    assert ("schedule", "office") in [(each.name, each.why) for each in world.pool.plan.signals]


async def share(gpus: int, *pools: ScaledPool) -> None:
    """Ask a gateway with one replica of each until their plans go by the shares of all."""
    told = report(*(pool_report(replica(f"{each.name}1"), pool=each.name) for each in pools))
    now = 1_000_000.0
    autoscaler = Autoscaler(
        pools,
        [source := Source("gw", told)],
        GatheringSettings(),
        clock=lambda: now,
        budget=GpuBudget(gpus, {each.name: 1.0 for each in pools}),
    )
    for _ in range(3):
        await autoscaler.ask(source)
        now += 15.0


async def test_a_gpu_budget_is_shared_and_the_rest_is_left_to_who_wants_it():
    def pool(name: str, floor: int) -> ScaledPool:
        figures = EngineFigures(NOT_LEARNED, kv_capacity_tokens=100_000, gpus=4)
        settings = ScalingSettings(min_replicas=floor, warm_replicas=1)
        return ScaledPool(name, pool_scaler(settings, figures))

    pools = [pool("a", 3), pool("b", 1)]
    await share(16, *pools)
    shares = [each.observation.gpus_available for each in pools if each.observation is not None]
    assert shares == [12.0, 4.0]
    assert [each.plan.replicas for each in pools if each.plan is not None] == [3, 1]


def test_a_floor_of_the_calendar_comes_before_what_others_want():
    def pool(name: str, floor: int, wanted: int) -> ScaledPool:
        figures = EngineFigures(NOT_LEARNED, kv_capacity_tokens=100_000, gpus=4)
        made = ScaledPool(name, pool_scaler(ScalingSettings(min_replicas=1), figures))
        signals = (
            Signal("schedule", floor, "office", kind="floor"),
            Signal("token_throughput", wanted, "kv"),
        )
        made.plan = ScalePlan(0.0, name, 1, signals=signals)
        return made

    pools = {"a": pool("a", 3, 1), "b": pool("b", 0, 9)}
    assert GpuBudget(16, {"a": 1.0, "b": 3.0}).share(pools) == {"a": 12.0, "b": 4.0}


class Idle:
    """An actuator with one replica that does nothing of what it is told."""

    refused = ""
    wakes = StandbyWakes()

    def observed(self) -> tuple[ReplicaObservation, ...]:
        return (ReplicaObservation("a1", Phase.READY),)

    def carry_out(self, plan: ScalePlan) -> None:
        """Nothing."""


async def test_who_stands_by_has_what_all_who_work_leave_of_a_gpu_budget():
    def pool(name: str, floor: int) -> ScaledPool:
        figures = EngineFigures(NOT_LEARNED, kv_capacity_tokens=100_000, gpus=1)
        settings = ScalingSettings(min_replicas=floor, warm_replicas=1, standby_replicas=4)
        return ScaledPool(name, pool_scaler(settings, figures), actuator=Idle())

    pools = [pool("a", 3), pool("b", 1)]
    await share(7, *pools)
    plans = [each.plan for each in pools if each.plan is not None]
    assert [each.replicas for each in plans] == [3, 1]
    assert [each.standby for each in plans] == [1, 2]  # so that both have three or four


# ---------------------------------------------------------------- what is shown


def client(world: World) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(make_scaler_app(world.autoscaler))
    return httpx.AsyncClient(transport=transport, base_url="http://scaler")


async def test_the_metrics_api_trigger_reads_a_value_or_an_error():
    world = World(None)
    async with client(world) as http:
        assert (await http.get("/ready")).status_code == 503
        lost = await http.get("/api/v1/scaler/llama")
        assert lost.status_code == 503
        assert "`headrace why --scaling`" in lost.json()["error"]["message"]
        assert "not known" in lost.json()["error"]["message"]
        world.sources[0].told = report(pool_report(*(replica(f"r{n}") for n in range(10))))
        await world.look()
        told = (await http.get("/api/v1/scaler/llama")).json()
        assert told["value"] == 10.0
        assert told["active"] is True
        assert (await http.get("/ready")).status_code == 200
        wrong = await http.get("/api/v1/scaler/lama")
        assert wrong.status_code == 404
        assert "pools that are scaled here: llama" in wrong.json()["error"]["message"]
        odd = await http.get("/api/v1/scaler/llama?tolerance=abc")
        assert odd.status_code == 400
        assert "tolerance is 'abc'" in odd.json()["error"]["message"]


async def test_everything_is_shown_with_its_reasons():
    world = World(report(pool_report(replica("r1"))))
    await world.look()
    async with client(world) as http:
        told = (await http.get("/api/v1/scaler")).json()
    [pool] = told["pools"]
    assert pool["plan"]["replicas"] == 1
    assert {signal["name"] for signal in pool["plan"]["signals"]} >= {"floor", "ceiling"}
    assert pool["replicas"][0]["phase"] == "ready"


async def test_metrics_say_what_is_wanted_and_by_whom():
    world = World(report(pool_report(replica("r1"))), None)
    await world.look()
    async with client(world) as http:
        text = (await http.get("/metrics")).text
    rows = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert rows["headrace_scaling_wanted_replicas", "llama"] == 1.0
    assert rows["headrace_scaling_replicas", "llama", "ready"] == 1.0
    assert rows["headrace_scaling_gateway_up", "gw-0"] == 1.0
    assert rows["headrace_scaling_gateway_up", "gw-1"] == 0.0
    assert rows["headrace_scaling_known", "llama"] == 0.0  # one gateway never told anything
    assert ("headrace_scaling_published_replicas", "llama") not in rows


async def test_a_clock_that_is_set_back_stops_nothing():
    told = report(pool_report(*(replica(f"r{n}") for n in range(3))))
    world = World(told, told)
    await world.look()
    await world.look(15.0)
    ticks, stored = world.autoscaler.ticks, len(world.stored)
    await world.look(-7200.0)
    assert world.autoscaler.ticks > ticks
    assert len(world.stored) > stored
    await world.look(15.0)
    assert world.value() == 3.0


async def test_a_gateway_that_is_silent_since_before_a_clock_was_set_back_is_missing():
    told = report(pool_report(*(replica(f"r{n}") for n in range(3))))
    world = World(told, told)
    await world.look()
    world.sources[1].told = None
    await world.look(-7200.0)
    assert world.value() is None
    plan = world.pool.plan
    assert plan is not None
    assert plan.holds[0] == "gateway gw-1: no report"


async def test_a_pool_that_can_not_be_decided_is_not_called_known_and_told_once(
    monkeypatch, caplog
):
    world = World(report(pool_report(replica("r1"))), stale_s=30.0)
    await world.look()

    def fail(*_: object) -> ScalePlan:
        raise TypeError

    monkeypatch.setattr(type(world.scaler), "tick", fail)
    for _ in range(10):
        await world.look(15.0)
    assert world.value() is None
    text = await metrics_of(world)
    assert 'headrace_scaling_known{pool="llama"} 0.0' in text
    assert sum("could not be decided" in each.message for each in caplog.records) == 1


async def test_a_gateway_that_never_answered_is_named_in_the_log_once_and_when_it_does(caplog):
    world = World(None)
    await world.look()
    await world.look(1.0)
    said = [each.getMessage() for each in caplog.records]
    assert said == ["gateway gw-0 tells nothing: gw-0 does not answer"]
    caplog.clear()
    world.sources[0].told = report(pool_report(replica("r1")))
    await world.look(1.0)
    await world.look(1.0)
    assert [each.getMessage() for each in caplog.records] == ["gateway gw-0 answers now"]


async def test_the_pool_of_the_path_is_the_one_that_is_told():
    world = World(report(pool_report(replica("r1"))))
    await world.look()
    transport = httpx.ASGITransport(make_scaler_app(world.autoscaler))
    async with httpx.AsyncClient(transport=transport, base_url="http://scaler") as client:
        assert (await client.get("/api/v1/scaler/llama?pool=other")).json()["pool"] == "llama"
        assert (await client.get("/api/v1/scaler/other?pool=llama")).status_code == 404


async def metrics_of(world: World) -> str:
    transport = httpx.ASGITransport(make_scaler_app(world.autoscaler))
    async with httpx.AsyncClient(transport=transport, base_url="http://scaler") as client:
        return (await client.get("/metrics")).text


def past(minutes: int) -> list[DemandSample]:
    """Demand that swings by the quarter of an hour, 100,000 minutes before the world's now."""
    return [
        DemandSample(
            900_000.0 + 60.0 * n, 60.0, 600.0 + 300.0 * (n // 15 % 2), 3e5, 6e4 * (1 + n // 15 % 2)
        )
        for n in range(minutes)
    ]


async def test_the_past_is_learned_beside_decisions_and_as_if_at_once():
    world = World(report(pool_report(replica("r1"))))
    await world.look()
    learning = asyncio.create_task(world.autoscaler.remember("llama", past(500)))
    await asyncio.sleep(0)
    await world.look(15.0)
    assert world.autoscaler.ticks == 2
    assert not learning.done()
    await learning
    at_once = pool_scaler(world.scaler.settings, world.scaler.figures)
    at_once.learn(past(500))
    assert world.pool.scaler.state()["forecast"] == at_once.state()["forecast"]
    assert world.pool.scaler.state()["demand"] == world.scaler.state()["demand"]
    await world.look(15.0)
    assert world.value() == 1.0


async def test_the_past_is_learned_for_as_long_as_cold_starts_are_known_to_take():
    world = World(report(pool_report(replica("r1"))))
    await world.look()
    kept = world.scaler.state() | {"cold_starts_s": [280.0, 285.0, 290.0]}
    world.scaler.restore(kept)
    await world.autoscaler.remember("llama", past(500))
    patient = replace(world.scaler.settings, cold_start=ColdStart(0, 0, 1, 290.0))
    at_once = pool_scaler(patient, world.scaler.figures)
    at_once.learn(past(500))
    assert world.pool.scaler.state()["forecast"] == at_once.state()["forecast"]


async def test_the_past_is_kept_until_engines_are_known():
    unknown = replace(pool_report(replica("r1")), latency=None)
    world = World(report(unknown))
    world.autoscaler = Autoscaler(
        [world.pool], world.sources, GatheringSettings(interval_s=0.001), clock=lambda: world.now
    )
    await world.look()
    learning = asyncio.create_task(world.autoscaler.remember("llama", past(100)))
    await asyncio.sleep(0.02)
    assert not learning.done()
    world.sources[0].told = report(pool_report(replica("r1")))
    await world.look(15.0)
    await learning
    assert world.pool.scaler.state()["forecast"]["minutes"] > 90.0


async def test_replicas_that_no_gateway_has_found_yet_are_not_taken_for_none():
    """As after a start of everything while DNS is down: a "no" would end all that runs."""
    unlisted = replace(pool_report(), replicas_known=False)
    world = World(report(unlisted), report(unlisted), min_replicas=0, warm_replicas=0)
    await world.look()
    assert world.keda.published("llama", 0.1) is None
    world.sources[1].told = report(pool_report(*(replica(f"r{n}") for n in range(6))))
    await world.look(15.0)
    await world.look(15.0)
    assert world.value() == 6.0


async def test_a_rise_of_what_is_still_starting_is_not_swallowed():
    """The HPA has 30 already, and gateways see 20 of them, for the others take minutes."""
    world = World(report(pool_report(*(replica(f"r{n}") for n in range(20)))))
    await world.look()
    for wanted in (30, 32):
        settings = replace(world.scaler.settings, min_replicas=wanted, max_replicas=50)
        world.pool.retune(settings, (), 1)
        await world.look(15.0)
    assert world.value(0.1) == 33.001
    assert world.value(0.0) == 32.0
    # Nor is it where one that broke is in no list any more.
    world.sources[0].told = report(pool_report(*(replica(f"r{n}") for n in range(29))))
    await world.look(15.0)
    assert world.value(0.1) == 33.001


@pytest.mark.parametrize("wanted", [11, 12, 21, 22])
async def test_what_an_hpa_would_swallow_is_told_until_its_replica_is_seen(wanted: int):
    """An HPA of 15 s as Kubernetes has it, and pods that take minutes."""
    have = wanted - 1
    names = [f"r{n}" for n in range(have)]
    world = World(report(pool_report(*(replica(name) for name in names))))
    await world.look()
    world.pool.retune(replace(world.scaler.settings, min_replicas=wanted), (), 1)
    told: list[float | None] = []
    for _ in range(8):
        await world.look(15.0)
        value = world.value(0.1)
        assert value is not None
        told.append(value)
        if abs(value / have - 1.0) > 0.1:
            have = ceil(value)
    assert wanted <= have <= ceil(1.1 * wanted)
    assert len(set(told)) == 1
    seen = [replica(f"r{n}") for n in range(have)]
    world.sources[0].told = report(pool_report(*seen))
    await world.look(15.0)
    value = world.value(0.1)
    assert value is not None
    assert abs(value / have - 1.0) <= 0.1


@pytest.mark.parametrize("facts", [{"started_at_s": 999_995.0}, {"requests": 3.0}])
async def test_an_empty_list_of_replicas_is_not_told_as_inactive_before_demand_is_known(
    facts: dict[str, Any],
):
    """Those that all start just now are in no list, and KEDA would end them at once."""
    world = World(report(pool_report(**facts)), min_replicas=0, warm_replicas=0)
    await world.look()
    assert world.pool.plan is not None
    assert (world.pool.plan.active, world.pool.plan.complete) == (False, True)
    world.autoscaler.store()
    assert world.stored == [{}]
    for _ in range(60):
        assert world.keda.published("llama", 0.0) is None
        await world.look(5.0)
    await world.look(15.0)
    told = world.keda.published("llama", 0.0)
    assert told is not None
    assert (told.value, told.active) == (0.0, False)
    world.autoscaler.store()
    assert list(world.stored[-1]) == ["llama"]


async def test_who_waits_is_told_before_demand_is_known():
    began: dict[str, Any] = {"started_at_s": 999_995.0}
    world = World(report(pool_report(**began)), min_replicas=0, warm_replicas=0)
    await world.look()
    assert world.value() is None
    world.sources[0].told = report(pool_report(**began, held_requests=1.0))
    await world.look(0.5)
    told = world.keda.published("llama", 0.0)
    assert told is not None
    assert told.active


async def test_a_request_that_waits_is_told_while_another_gateway_is_silent():
    told = report(pool_report())
    world = World(told, told, min_replicas=0, warm_replicas=0)
    for _ in range(30):
        await world.look(15.0)
    known = world.keda.published("llama", 0.0)
    assert known is not None
    assert not known.active
    world.sources[1].told = None
    await world.look(90.0)
    assert world.keda.published("llama", 0.0) is None
    change = world.autoscaler.next_change()
    world.sources[0].told = report(pool_report(held_requests=1.0))
    await world.look(0.5)
    assert change.done()
    assert world.keda.published("llama", 0.0) == Published(None, active=True)
    assert world.value() is None
    world.now += 300.0  # as if nothing decided any more
    assert world.keda.published("llama", 0.0) is None


async def test_a_number_that_could_not_be_carried_out_is_kept_at_once_all_the_same():
    class Failing(Idle):
        def carry_out(self, plan):
            raise OSError("no process can be started")

    world = World(report(pool_report(replica("r1"))), min_replicas=3)
    world.pool.actuator = Failing()
    await world.look(1.0)
    assert "no process can be started" in world.pool.fault
    assert world.stored[-1]["llama"]["granted"] == 3
