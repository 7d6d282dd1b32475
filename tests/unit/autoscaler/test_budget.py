"""One GPU budget over two pools: nobody loses what he must keep, and nothing trembles."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

from headrace.autoscaler.budget import GpuBudget
from headrace.autoscaler.pool import NOT_LEARNED, ScaledPool
from headrace.autoscaler.program import Autoscaler
from headrace.autoscaler.settings import GatheringSettings
from headrace.core.length_counter import sketch_of
from headrace.core.scaling.decision import KNOWS_AFTER_S
from headrace.core.scaling.observation import ReplicaObservation
from headrace.core.scaling.plan import ScalePlan, Signal
from headrace.core.scaling.report import PoolReport
from headrace.core.scaling.settings import ColdStart, EngineFigures, ScalingSettings
from headrace.forecasting import pool_scaler
from tests.unit.autoscaler.reports import pool_report, replica, report
from tests.unit.autoscaler.test_program import Source

LENGTHS = sketch_of([(500, 0, 100)] * 100)


def asked(total: float, *replicas: ReplicaObservation, pool: str) -> PoolReport:
    """A pool that was asked so often, for as much each time."""
    plain = pool_report(*replicas, pool=pool)
    demand = replace(
        plain.demand,
        requests=total,
        input_tokens=500 * total,
        uncached_tokens=500 * total,
        output_tokens=100 * total,
        judged=total,
        lengths=LENGTHS,
    )
    return replace(plain, demand=demand)


def budgeted(name: str, **settings: Any) -> ScaledPool:
    figures = EngineFigures(NOT_LEARNED, kv_capacity_tokens=438_880, gpus=1)
    given: dict[str, Any] = {"warm_replicas": 1, **settings}
    return ScaledPool(name, pool_scaler(ScalingSettings(**given), figures))


async def numbers_in_a_budget(gpus: int, looks: int, *pools: ScaledPool) -> list[list[int]]:
    """Plans of "a" with eight replicas and hardly any demand, and of "b" with four and far more
    than these carry, from the first look on.
    """
    now = 1_000_000.0
    source = Source("gw", None)
    budget = GpuBudget(gpus, {each.name: 1.0 for each in pools})
    autoscaler = Autoscaler(pools, [source], GatheringSettings(), clock=lambda: now, budget=budget)
    idle = [replica(f"a{n}") for n in range(8)]
    busy = [replica(f"b{n}", measured_age_s=0.0, waiting_prefill_tokens=4e6) for n in range(4)]
    found: list[list[int]] = []
    for number in range(looks):
        source.told = report(
            asked(number, *idle, pool="a"),
            asked(5000 * number, *busy, pool="b"),
        )
        await autoscaler.ask(source)
        found.append([each.plan.replicas for each in pools if each.plan is not None])
        now += 15.0
    return found


async def test_a_first_look_under_a_gpu_budget_takes_no_replica_away():
    pools = budgeted("a"), budgeted("b")
    assert await numbers_in_a_budget(12, 1, *pools) == [[8, 4]]


async def test_a_restarted_scaler_under_a_gpu_budget_goes_on_with_the_number_it_had():
    before = budgeted("a"), budgeted("b")
    await numbers_in_a_budget(12, 1, *before)
    again = budgeted("a"), budgeted("b")
    for old, new in zip(before, again, strict=True):
        new.scaler.restore(old.scaler.state())
        new.go_on(new.scaler)
    assert await numbers_in_a_budget(12, 1, *again) == [[8, 4]]


async def test_nobody_is_given_the_gpus_of_a_pool_whose_demand_is_not_known_yet():
    pools = budgeted("a"), budgeted("b")
    found = await numbers_in_a_budget(12, 40, *pools)
    known = int(KNOWS_AFTER_S / 15.0)
    assert all(each == [8, 4] for each in found[:known])
    a, b = found[-1]
    assert (a < 8, b > 4, a + b <= 12) == (True, True, True)


def test_what_no_whole_group_can_use_is_left_to_others():
    groups = budgeted("a", group_replicas=2, max_replicas=5)
    others = budgeted("b")
    for pool in (groups, others):
        pool.plan = ScalePlan(0.0, pool.name, 1, signals=(Signal("token_throughput", 9, "kv"),))
    shares = GpuBudget(10, {"a": 1.0, "b": 1.0}).share({"a": groups, "b": others})
    assert shares == {"a": 4.0, "b": 6.0}


async def test_demand_that_trembles_takes_no_replica_from_one_pool_to_another_and_back():
    """Of what there is, "a" wants less than half and "b" all the rest."""
    rng, now = random.Random(4), 1_000_000.0
    pools = [budgeted(name, cold_start=ColdStart(0, 0, 1, 240.0)) for name in "ab"]
    rates, totals, have = {"a": 180.0, "b": 2000.0}, {"a": 0.0, "b": 0.0}, {"a": 6, "b": 10}
    source, budget = Source("gw", None), GpuBudget(16, {"a": 1.0, "b": 1.0})
    autoscaler = Autoscaler(pools, [source], GatheringSettings(), clock=lambda: now, budget=budget)
    busy: dict[str, Any] = {
        "measured_age_s": 0.0,
        "running": 5.0,
        "kv_usage_ratio": 0.2,
        "waiting_prefill_tokens": 0.0,
    }
    numbers: list[tuple[int, ...]] = []
    for _ in range(2 * 240):
        told = []
        for name, rate in rates.items():
            mean = 15.0 * rate
            totals[name] += round(rng.gauss(mean, (2.0 * mean) ** 0.5))
            there = [replica(f"{name}{n:02d}", **busy) for n in range(have[name])]
            told.append(asked(totals[name], *there, pool=name))
        source.told = report(*told)
        await autoscaler.ask(source)
        now += 15.0
        have = {each.name: each.plan.replicas for each in pools if each.plan is not None}
        numbers.append(tuple(have.values()))
    known = numbers[120:]  # the first half hour aside
    assert all(a + b <= 16 for a, b in known)
    changes = sum(before != after for before, after in pairwise(known))
    assert changes <= 3  # at most two an hour, as of a pool alone


async def holding_beside_idle(*idle: ReplicaObservation, gpus: int = 1, **settings: Any):
    """Plans of "a", which nobody asks for anything, and of "b", whose requests wait from the third
    minute on, look by look until the fifth minute.
    """
    now = 1_000_000.0
    pools = [budgeted("a", **({"min_replicas": 0} | settings)), budgeted("b", min_replicas=0)]
    source, budget = Source("gw", None), GpuBudget(gpus, {"a": 1.0, "b": 1.0})
    autoscaler = Autoscaler(pools, [source], GatheringSettings(), clock=lambda: now, budget=budget)
    found: list[tuple[int, ...]] = []
    for look in range(int(KNOWS_AFTER_S / 15.0) - 1):
        waits = 3.0 if look >= 8 else 0.0
        source.told = report(
            pool_report(*idle, pool="a"),
            pool_report(pool="b", requests=waits, held_requests=waits),
        )
        await autoscaler.ask(source)
        found.append(tuple(each.plan.replicas for each in pools if each.plan is not None))
        now += 15.0
    return found


async def test_an_idle_pool_lets_go_of_the_only_gpu_for_requests_that_wait():
    found = await holding_beside_idle(replica("a0"), idle_to_zero_s=60.0)
    assert set(found[:8]) == {(1, 0)}
    assert found[-1] == (0, 1)


async def test_a_pool_that_was_idle_for_less_than_idle_to_zero_keeps_its_gpu():
    found = await holding_beside_idle(replica("a0"), idle_to_zero_s=600.0)
    assert set(found) == {(1, 0)}


async def test_a_pool_whose_replica_runs_something_keeps_its_gpu():
    busy = replica("a0", running=1.0, measured_age_s=0.0)
    found = await holding_beside_idle(busy, idle_to_zero_s=60.0)
    assert set(found) == {(1, 0)}


async def test_an_idle_pool_keeps_its_gpu_where_there_is_another_one():
    found = await holding_beside_idle(replica("a0"), gpus=2, idle_to_zero_s=60.0)
    assert found[-1] == (1, 1)


async def test_an_idle_pool_gives_up_no_more_than_others_need():
    idle = [replica(f"a{n}") for n in range(3)]
    found = await holding_beside_idle(*idle, gpus=3, idle_to_zero_s=60.0)
    assert found[-1] == (2, 1)


async def test_an_idle_pool_keeps_what_its_min_replicas_promise():
    found = await holding_beside_idle(replica("a0"), idle_to_zero_s=60.0, min_replicas=1)
    assert {a for a, _ in found} == {1}


async def test_who_gives_and_who_takes_a_gpu_decide_at_once():
    """Looks are more frequent than ticks, and a GPU is not to be in two hands in between."""
    found = await holding_beside_idle(
        replica("a0"), idle_to_zero_s=60.0, tick_s=50.0, scale_down_window_s=50.0
    )
    assert set(found) == {(1, 0), (0, 1)}
