"""From wishes to plans: zero, warm replicas, groups, budgets, standby, drain."""

from dataclasses import replace

import pytest

from headrace.core.scaling.cold_starts import ColdStarts
from headrace.core.scaling.decision import PoolScaler
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.drain_choice import drain_order
from headrace.core.scaling.gpu_budget import GpuClaim, share_gpus
from headrace.core.scaling.observation import Phase, ReplicaObservation
from headrace.core.scaling.ratio_groups import RatioGroup
from headrace.core.scaling.settings import ColdStart, ScheduledFloor
from headrace.forecasting import pool_scaler
from tests.unit.core.scaling.world import (
    FIGURES,
    SETTINGS,
    World,
    each_replica,
    each_report,
)


def test_up_at_once_down_late():
    world = World(lambda now: 30.0 if now < 1800.0 or now > 2400.0 else 300.0).run(1800.0)
    low = world.plan.replicas
    world.run(60.0)
    assert world.plan.replicas > 3 * low
    world.run(540.0)
    high = world.plan.replicas
    world.run(45.0)
    assert world.plan.replicas == high
    world.run(5400.0)
    assert world.plan.replicas < high / 2


def test_zero_replicas_after_long_idleness_and_one_at_the_first_held_request():
    settings = replace(SETTINGS, min_replicas=0, warm_replicas=2, idle_to_zero_s=600.0)
    world = World(lambda now: 20.0 if now < 600.0 else 0.0, settings, replicas=2)
    world.spoil = lambda observation: replace(
        observation, replicas=tuple(replace(each, running=0.0) for each in observation.replicas)
    )
    world.run(1140.0)
    assert world.plan.replicas == 2
    assert world.plan.active
    world.run(420.0)
    assert (world.plan.replicas, world.plan.active) == (0, False)
    world.spoil = each_report(lambda report: replace(report, held_requests=1.0))
    plan = world.step()
    assert (plan.replicas, plan.order, plan.active) == (2, 2, True)


def idle_world(warm_replicas: int, replicas: int, asked_s: float) -> World:
    """A pool that may be at zero, of replicas with nothing to do, asked until `asked_s`."""
    settings = replace(SETTINGS, min_replicas=0, warm_replicas=warm_replicas, idle_to_zero_s=3600.0)
    world = World(lambda now: 0.5 if now < asked_s else 0.0, settings, replicas=replicas)
    world.spoil = each_replica(running=0.0, kv_usage_ratio=0.0)
    return world


@pytest.mark.parametrize("warm_replicas", [0, 1])
def test_the_last_replica_stays_until_the_pool_was_idle_for_as_long_as_was_said(warm_replicas: int):
    world = idle_world(warm_replicas, 1, 1800.0).run(1800.0)
    world.run(3540.0)
    assert world.plan.replicas == 1
    world.run(180.0)
    assert world.plan.replicas == 0


def test_a_scaler_without_memory_starts_nothing_that_nobody_asked_for():
    world = idle_world(2, 0, 0.0).run(1800.0)
    assert {plan.replicas for plan in world.plans} == {0}
    world.spoil = each_report(lambda report: replace(report, held_requests=1.0))
    assert world.step().replicas == 2


def test_running_requests_keep_a_pool_from_zero():
    settings = replace(SETTINGS, min_replicas=0, warm_replicas=1, idle_to_zero_s=300.0)
    world = World(lambda now: 0.0, settings).run(1800.0)
    assert world.plan.replicas == 1  # the world's replicas always run something


def test_warm_replicas_stay_while_there_is_demand():
    settings = replace(SETTINGS, warm_replicas=3)
    world = World(lambda now: 0.2, settings, replicas=3).run(1800.0)
    assert world.plan.replicas == 3
    assert world.plan.decided_by == "floor: warm_replicas"


def test_standby_replicas_wake_before_any_is_ordered():
    world = World(lambda now: 30.0 if now < 1800.0 else 120.0).run(1800.0)
    asleep = tuple(ReplicaObservation(f"asleep-{n}", Phase.STANDBY) for n in range(2))
    world.spoil = lambda observation: replace(
        observation, replicas=(*observation.replicas, *asleep)
    )
    world.run(30.0)
    plan = next(plan for plan in world.plans[-2:] if plan.wake)
    assert plan.wake[0] == "asleep-0"
    assert plan.order == plan.replicas - len(world.seen.replicas) + 2 - len(plan.wake)


def test_who_stands_by_takes_the_gpus_that_work_leaves():
    settings = replace(SETTINGS, standby_replicas=3)
    world = World(lambda now: 0.2, settings, replicas=2)
    world.run(60.0)
    assert (world.plan.replicas, world.plan.standby) == (2, 3)
    for gpus, standby in ((16.0, 3), (3.0, 1), (2.0, 0), (1.0, 0)):
        world.spoil = lambda observation, gpus=gpus: replace(observation, gpus_available=gpus)
        assert world.step().standby == standby


def test_whole_groups_are_ordered_and_removed():
    settings = replace(SETTINGS, group_replicas=4, min_replicas=4)
    world = World(lambda now: 250.0 if now < 3600.0 else 30.0, settings, replicas=4).run(7200.0)
    assert {plan.replicas % 4 for plan in world.plans} == {0}
    assert {plan.replicas for plan in world.plans} >= {4}


def test_a_gpu_budget_is_a_ceiling_and_says_so():
    figures = replace(FIGURES, gpus=4)
    world = World(lambda now: 400.0, scaler=pool_scaler(SETTINGS, figures))
    world.spoil = lambda observation: replace(observation, gpus_available=26.0)
    world.run(900.0)
    assert world.plan.replicas == 6
    assert world.plan.decided_by == "ceiling: gpu_budget"
    assert any("allowed by gpu_budget" in hold for hold in world.plan.holds)


def test_the_calendar_orders_one_cold_start_ahead():
    settings = replace(SETTINGS, schedule=(ScheduledFloor(3600.0, 7200.0, 12, "opening"),))
    world = World(lambda now: 10.0, settings).run(3300.0)
    assert world.plan.replicas < 4
    world.run(75.0)
    assert world.plan.replicas == 12
    world.run(225.0)
    assert world.now == 3600.0
    assert all(ready_s <= 3600.0 for _, ready_s in world.running.values())


def test_history_teaches_what_the_forecast_would_have_learned():
    samples = [
        DemandSample(600.0 * n, 600.0, 600.0 * rate, 600.0 * rate * 400, 600.0 * rate * 300)
        for n, rate in enumerate([40.0, 160.0] * 200)
    ]
    taught, untaught = pool_scaler(SETTINGS, FIGURES), pool_scaler(SETTINGS, FIGURES)
    taught.learn(samples)
    numbers = []
    for scaler in (taught, untaught):
        world = World(lambda now: 40.0, scaler=scaler)
        world.now = 240_000.0
        numbers.append(world.run(420.0).plan.replicas)
    assert numbers[0] > numbers[1]


def test_without_a_forecaster_it_follows_demand():
    world = World(lambda now: 200.0, scaler=PoolScaler(SETTINGS, FIGURES)).run(600.0)
    assert world.plan.outlook is None
    assert world.plan.decided_by == "token_throughput"
    assert world.plan.replicas == pytest.approx(8, abs=1)


def test_a_cold_start_is_expected_until_it_is_measured():
    starts, prior = ColdStarts(), ColdStart(12e9, 18e9, 1e9, 60.0)
    assert starts.expected_s(prior) == 90.0
    for number, took_s in enumerate((100.0, 110.0, 300.0)):
        starts.observe((ReplicaObservation(f"r{number}", Phase.READY, 50.0, 50.0 + took_s),))
    assert starts.expected_s(prior) == 300.0
    for number in range(3, 40):
        starts.observe((ReplicaObservation(f"r{number}", Phase.READY, 50.0, 150.0),))
    assert starts.expected_s(prior) == 100.0


def test_who_goes_first():
    def ready(name: str, **fields) -> ReplicaObservation:
        return ReplicaObservation(name, Phase.READY, **fields)

    replicas = [
        ready("busy", running=9.0, cache_value_s=1.0),
        ready("cold-cache", running=9.0, cache_value_s=0.2),
        ready("idle", idle_since_s=90.0, cache_value_s=5.0),
        ready("idle-longer", idle_since_s=10.0, cache_value_s=9.0),
        ready("stale-idle", idle_since_s=1.0, running=4.0, cache_value_s=0.5),
        ReplicaObservation("old-order", Phase.STARTING, 10.0),
        ReplicaObservation("new-order", Phase.STARTING, 20.0),
        ReplicaObservation("no-place", Phase.UNSCHEDULABLE, 1.0),
        ReplicaObservation("leaving", Phase.DRAINING),
    ]
    assert drain_order(replicas, 100.0) == (
        "no-place", "new-order", "old-order", "idle-longer", "idle", "cold-cache", "stale-idle",
        "busy",
    )  # fmt: skip


def test_gpus_are_shared_by_weight_floors_first():
    claims = (
        GpuClaim("large", wanted=20, floor=1, gpus_per_replica=4, weight=2.0),
        GpuClaim("small", wanted=40, floor=2, weight=1.0),
        GpuClaim("idle", wanted=1, floor=1, weight=10.0),
    )
    granted = share_gpus(claims, 61)
    assert granted == {"large": 10, "small": 20, "idle": 1}
    assert share_gpus(claims, 500) == {"large": 20, "small": 40, "idle": 1}
    assert share_gpus(claims, 5) == {"large": 1, "small": 1, "idle": 0}
    with pytest.raises(ValueError, match=r"pool 'a': weight is 0; give more than 0"):
        share_gpus((GpuClaim("a", 1, weight=0.0),), 4)
    with pytest.raises(ValueError, match="claims GPUs twice"):
        share_gpus((GpuClaim("a", 1), GpuClaim("a", 1)), 4)


def test_prefill_and_decode_go_in_whole_groups():
    group = RatioGroup((("prefill", 1), ("decode", 2)), min_groups=1, max_groups=8)
    assert group.replicas({"prefill": 3.0, "decode": 3.0}) == {"prefill": 3, "decode": 6}
    assert group.replicas({"prefill": 0.2, "decode": 7.1}) == {"prefill": 4, "decode": 8}
    assert group.replicas({}) == {"prefill": 1, "decode": 2}
    assert group.groups({"decode": 99.0}) == 8
    assert group.gpus({"prefill": 4, "decode": 2}) == 8
    with pytest.raises(ValueError, match="0 replicas in a group"):
        RatioGroup((("prefill", 0),))
