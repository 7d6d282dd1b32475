"""The fail-safe matrix: whatever is wrong, never below the floor, never down on missing data."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from headrace.core.length_counter import LengthCounter
from headrace.core.length_sketch import LengthSketch
from headrace.core.scaling.gateway_totals import GatewayTotals
from headrace.core.scaling.observation import GatewayReport, Phase, PoolObservation
from headrace.core.scaling.settings import ScalingSettings
from headrace.forecasting import pool_scaler
from tests.unit.core.scaling.world import (
    FIGURES,
    SETTINGS,
    World,
    each_replica,
    each_report,
)

BUSY, QUIET = 400.0, 40.0
Spoiler = Callable[[PoolObservation], PoolObservation]


def falling(world_s: float = 3600.0) -> Callable[[float], float]:
    """A demand that falls to a tenth after an hour: what a scaler would follow if it saw it."""
    return lambda now: BUSY if now < world_s else QUIET


def one_gateway(name: str, change: Callable[[GatewayReport], GatewayReport | None]) -> Spoiler:
    return each_report(lambda report: change(report) if report.gateway == name else report)


def without_list(observation: PoolObservation) -> PoolObservation:
    return replace(observation, replicas=(), replicas_known=False)


def frozen_since(world: World) -> Spoiler:
    """The reports of this moment again and again, older each time."""
    then_s, reports = world.now, world.observation().gateways

    def spoil(observation: PoolObservation) -> PoolObservation:
        age_s = observation.at_s - then_s
        return replace(observation, gateways=tuple(replace(each, age_s=age_s) for each in reports))

    return spoil


def settled(rate: Callable[[float], float] | None = None, gateways: int = 2) -> World:
    world = World(rate or falling(), gateways=gateways)
    world.run(3600.0)
    assert world.plan.replicas >= 10
    return world


def test_without_trouble_it_follows_demand_down():
    world = settled()
    world.run(1800.0)
    assert world.plan.replicas <= 4
    assert world.plan.complete


MISSING: dict[str, Spoiler] = {
    "no gateway reports": each_report(lambda report: None),
    "a gateway is missing": one_gateway("gateway-1", lambda report: None),
    "reports are old": each_report(lambda report: replace(report, age_s=600.0)),
    "one report is old": one_gateway("gateway-1", lambda report: replace(report, age_s=600.0)),
    "the list of replicas cannot be read": without_list,
    "figures of replicas are old": each_replica(measured_age_s=600.0),
    "figures of replicas are missing": lambda observation: replace(
        observation,
        replicas=tuple(
            replace(each, measured_age_s=None, kv_usage_ratio=None) if number % 3 else each
            for number, each in enumerate(observation.replicas)
        ),
    ),
    "figures are no ratios": each_replica(kv_usage_ratio=17.0),
    "figures are no numbers": each_replica(kv_usage_ratio=float("nan")),
    "more is refused than ever came": one_gateway(
        "gateway-1", lambda report: replace(report, refused_requests=2 * report.requests)
    ),
    "totals go back without a restart": one_gateway(
        "gateway-1", lambda report: replace(report, requests=10.0 + report.requests % 7)
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_nothing_goes_down_on_missing_or_contradictory_data(what):
    world = settled()
    before = world.plan.replicas
    world.spoil = MISSING[what]
    world.run(1800.0)
    spoiled = world.plans[-120:]
    assert min(plan.replicas for plan in spoiled) >= before
    assert all(plan.drain == () for plan in spoiled)
    assert any(not plan.complete and plan.holds for plan in spoiled)


@pytest.mark.parametrize("what", MISSING)
def test_when_data_are_back_it_goes_on(what):
    world = settled()
    world.spoil = MISSING[what]
    world.run(900.0)
    world.spoil = lambda observation: observation
    world.run(2400.0)
    assert world.plan.complete
    assert world.plan.replicas <= 5


CONTRADICTIONS: dict[str, Callable[[GatewayReport], GatewayReport]] = {
    "a total of long ago": lambda report: replace(report, requests=10.0),
    "a little less than before": lambda report: replace(report, requests=0.9 * report.requests),
    "far more than there ever was": lambda report: replace(report, requests=1e9 + report.requests),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_gateway_that_contradicted_itself_counts_as_before_when_it_is_believed_again(what):
    """What it said meanwhile is no demand, and that none of it is believed is no lack of it."""
    world = settled(lambda now: BUSY)
    before = world.plan.replicas
    world.spoil = one_gateway("gateway-1", CONTRADICTIONS[what])
    world.run(45.0)
    world.spoil = lambda observation: observation
    world.run(1800.0)
    spoiled = world.plans[-120:]
    assert any(not plan.complete for plan in spoiled)
    assert min(plan.replicas for plan in spoiled) >= before - 1
    assert world.plan.complete
    assert abs(world.plan.replicas - before) <= 1


def test_stale_reports_that_grow_older_hold_everything():
    world = settled()
    before = world.plan.replicas
    world.spoil = frozen_since(world)
    world.run(1200.0)
    assert world.plan.replicas >= before
    assert "old" in " ".join(world.plan.holds)


def test_a_restarted_gateway_counts_what_came_since():
    world = settled(lambda now: BUSY)
    before = world.plan.replicas
    reset_s, at_reset = world.now, dict(world.totals)

    def restarted(report: GatewayReport) -> GatewayReport:
        return replace(
            report, started_at_s=reset_s, requests=report.requests - at_reset[report.gateway]
        )

    world.spoil = one_gateway("gateway-1", restarted)
    world.run(900.0)
    assert abs(world.plan.replicas - before) <= 1
    assert world.plan.complete


def test_a_skewed_clock_is_told_and_not_believed():
    world = settled(lambda now: BUSY)
    before = world.plan.replicas
    world.spoil = one_gateway(
        "gateway-0",
        lambda report: replace(report, reported_at_s=(report.reported_at_s or 0) - 7200),
    )
    world.run(900.0)
    assert abs(world.plan.replicas - before) <= 1
    assert any("clock is off by -7200 s" in hold for hold in world.plan.holds)
    assert world.plan.complete
    clocks = {tuple(e for e in plan.holds if "clock" in e) for plan in world.plans[-10:]}
    assert len(clocks) == 1


def test_one_that_tells_the_same_again_and_again_is_not_believed():
    """As a cache between us and it does, which answers at once."""
    world = settled()
    before = world.plan.replicas
    old = world.observation().gateways[0]
    world.spoil = one_gateway("gateway-0", lambda _report: old)
    world.run(1800.0)
    assert world.plan.replicas == before
    assert not world.plan.complete
    assert any("its clock stands still" in hold for hold in world.plan.holds)
    world.spoil = lambda observation: observation
    world.run(1800.0)
    assert world.plan.complete


def test_cold_starts_by_two_clocks_are_not_measured():
    world = World(lambda now: 100.0)
    world.spoil = each_replica(ordered_at_s=5000.0, ready_at_s=100.0)
    world.run(600.0)
    assert world.scaler.horizon_s == pytest.approx(255.0)


def test_replicas_that_ran_before_they_were_seen_measure_no_cold_start():
    world = World(lambda now: 100.0)
    world.spoil = each_replica(ordered_at_s=0.0, ready_at_s=1_700_000_000.0)
    world.run(600.0)
    assert world.scaler.horizon_s == pytest.approx(255.0)


def test_requests_that_engines_refuse_are_no_demand():
    def none_served(report: GatewayReport) -> GatewayReport:
        return replace(
            report,
            input_tokens=900_000.0 * report.requests,
            refused_requests=report.requests,
            refused_input_tokens=900_000.0 * report.requests,
            lengths=LengthSketch(),
        )

    world = World(lambda now: BUSY)
    world.spoil = each_report(none_served)
    world.run(900.0)
    assert {plan.replicas for plan in world.plans} == {1}
    assert world.plan.complete


def test_what_is_refused_after_the_report_that_counted_it_is_taken_back():
    late: list[float] = [0.0, 0.0]

    def half_refused_later(report: GatewayReport) -> GatewayReport:
        late.append(report.requests / 2.0)
        return replace(report, refused_requests=late[-3])

    whole = World(lambda now: BUSY / 2.0).run(1800.0)
    world = World(lambda now: BUSY)
    world.spoil = each_report(half_refused_later)
    world.run(1800.0)
    assert abs(world.plan.replicas - whole.plan.replicas) <= 1
    assert world.plan.complete


def test_what_is_refused_long_after_it_came_takes_nothing_from_what_comes_now():
    totals = GatewayTotals()

    def at(now: float, requests: float, refused: float = 0.0) -> None:
        report = GatewayReport("g", 0.0, requests=requests, refused_requests=refused)
        totals.observe(report, now)

    for second in range(0, 121, 15):
        at(float(second), 10.0 * second)
    at(135.0, 1350.0 + 400.0)  # held meanwhile, and refused then
    at(150.0, 1500.0 + 400.0, 400.0)
    at(165.0, 1650.0 + 400.0, 400.0)
    assert totals.requests_per_s(15.0) == pytest.approx(10.0)
    assert 0.0 < (totals.requests_per_s(60.0) or 0.0) <= 10.0


def test_a_state_of_before_refusals_were_told_begins_to_count_anew():
    totals = GatewayTotals()
    totals.observe(GatewayReport("g", 0.0, requests=1000.0), 100.0)
    state = totals.state()
    del state["last"]["refused_requests"], state["last"]["refused_input_tokens"]
    again = GatewayTotals()
    again.restore(state)
    again.observe(GatewayReport("g", 0.0, requests=1010.0, refused_requests=800.0), 115.0)
    again.observe(GatewayReport("g", 0.0, requests=1160.0, refused_requests=800.0), 130.0)
    assert again.requests_per_s(15.0) == pytest.approx(10.0)


def test_a_gateway_that_is_gone_for_good_is_forgotten():
    world = settled()
    gone = world.gateways.pop()
    world.run(300.0)
    assert any(gone in hold for hold in world.plan.holds)
    assert world.plan.replicas >= 10
    world.run(3600.0)
    assert world.plan.complete
    assert world.plan.replicas <= 4


def test_a_gateway_that_leaves_is_not_counted_twice_and_nothing_goes_down_until_it_is_forgotten():
    world = settled(lambda _now: BUSY, gateways=3)
    before = world.plan.replicas
    left = world.gateways.pop()  # no longer expected: its clients go to the others
    world.gateways.append("gateway-new")
    world.totals["gateway-new"] = 0.0
    world.lengths["gateway-new"] = LengthCounter()
    since = len(world.plans)
    world.run(150.0)
    assert world.plan.complete  # KEDA is told a number, not to fall back
    world.rate = lambda _now: QUIET
    world.run(150.0)
    assert max(plan.replicas for plan in world.plans[since:]) <= before + 1
    assert world.plan.replicas >= before
    assert any(f"so soon after gateway {left} has left" in hold for hold in world.plan.holds)
    world.run(1800.0)
    assert world.plan.replicas <= 4


@pytest.mark.parametrize("cold_start_s", [60.0, 600.0])
def test_the_others_rates_are_whole_when_a_gateway_that_left_is_forgotten(cold_start_s: float):
    world = World(lambda _now: BUSY, gateways=3, cold_start_s=cold_start_s)
    world.run(5400.0)
    before = world.plan.replicas
    world.gateways.pop()
    since = len(world.plans)
    world.run(1800.0)
    # One fewer may be wanted as a first day's rise fades; a rate that is lost would be a third.
    assert {plan.replicas for plan in world.plans[since:]} <= {before - 1, before}


def test_gateways_that_come_and_go_now_and_then_do_not_keep_a_pool_up():
    world = settled(gateways=3)
    for number in range(6):  # one every ten minutes, each under a name of its own
        world.gateways.pop(0)
        new = f"gateway-new-{number}"
        world.gateways.append(new)
        world.totals[new], world.lengths[new] = 0.0, LengthCounter()
        world.run(600.0)
    assert world.plan.replicas <= 5
    demand = world.scaler.state()["demand"]
    assert len(demand["gateways"]) == len(world.gateways)
    assert demand["left_s"] == {}


def test_a_restarted_scaler_goes_on_as_if_it_had_not():
    world = settled(lambda now: BUSY + (now % 900) / 10)
    kept = json.loads(json.dumps(world.scaler.state()))
    other = pool_scaler(SETTINGS, FIGURES)
    other.restore(kept)
    for _ in range(240):
        plan = world.step()
        assert other.tick(world.seen, world.now) == plan


def test_a_scaler_without_memory_takes_nothing_down_at_once():
    fresh = World(lambda now: QUIET, replicas=20)
    fresh.run(240.0)
    assert all(plan.replicas == 20 for plan in fresh.plans)
    assert all(plan.drain == () for plan in fresh.plans)
    fresh.run(1800.0)
    assert fresh.plan.replicas <= 4


def test_a_refused_order_is_told_and_asked_again():
    world = settled(lambda now: BUSY if now < 3600 else 2 * BUSY)
    ordered = []

    def refuse(observation: PoolObservation) -> PoolObservation:
        return replace(observation, refused_order="quota of 16 GPUs exceeded")

    world.spoil = refuse
    world.carry_out = lambda plan: ordered.append(plan.order)
    world.run(600.0)
    assert world.plan.replicas > 20
    assert ordered[-1] == world.plan.replicas - len(world.running)
    assert any("quota of 16 GPUs" in hold for hold in world.plan.holds)


def test_replicas_without_a_place_are_not_ordered_twice_and_go_first():
    world = settled(lambda now: BUSY if now < 3600 or now > 5400 else 2 * BUSY)

    def unplaced(observation: PoolObservation) -> PoolObservation:
        changed = tuple(
            replace(each, phase=Phase.UNSCHEDULABLE) if each.phase is Phase.STARTING else each
            for each in observation.replicas
        )
        return replace(observation, replicas=changed)

    world.cold_start_s = 1e9
    world.spoil = unplaced
    world.run(1500.0)
    assert len(world.running) == world.plan.replicas
    assert any("no place" in hold for hold in world.plan.holds)
    ready = {name for name, (_, ready_s) in world.running.items() if ready_s <= world.now}
    world.run(4800.0)
    assert world.plan.replicas < 40
    # Of the ready ones only those go that are more than is wanted by then.
    assert len(ready & set(world.running)) == min(len(ready), world.plan.replicas)


@pytest.mark.parametrize("floor", [1, 3])
def test_never_below_the_floor(floor):
    settings = replace(SETTINGS, min_replicas=floor, warm_replicas=floor)
    for spoil in MISSING.values():
        world = World(lambda now: 0.0, settings, replicas=floor)
        world.spoil = spoil
        world.run(600.0)
        assert min(plan.replicas for plan in world.plans) >= floor


def test_replicas_that_vanish_all_at_once_are_not_believed():
    world = settled(lambda now: BUSY)
    before = world.plan.replicas
    world.spoil = lambda observation: replace(observation, replicas=observation.replicas[:1])
    plan = world.step()
    assert plan.replicas >= before
    assert not plan.complete


def test_settings_may_change_between_ticks():
    world = settled(lambda now: BUSY)
    world.scaler.settings = replace(SETTINGS, max_replicas=5)
    assert world.step().replicas == 5
    assert isinstance(world.scaler.settings, ScalingSettings)


@pytest.mark.parametrize("back_s", [3600.0, 400 * 86_400.0])
def test_a_clock_that_is_set_back_lowers_nothing_and_what_comes_is_seen(back_s):
    rates = [BUSY]
    world = World(lambda _now: rates[0])
    world.now = 500 * 86_400.0
    world.run(3600.0)
    number = world.plan.replicas
    world.now -= back_s
    rates[0] = QUIET
    world.run(300.0)
    assert world.plan.replicas == number
    assert world.plan.complete
    rates[0] = 1.5 * BUSY
    world.run(600.0)
    assert world.plan.replicas > 1.3 * number
    rates[0] = QUIET
    world.run(3600.0)
    assert world.plan.replicas < number


def test_a_forecast_of_a_clock_that_was_far_ahead_goes_on_learning():
    world = World(lambda _now: BUSY)
    world.now = 500 * 86_400.0
    world.run(3600.0)
    world.now -= 400 * 86_400.0
    known = world.scaler.state()["forecast"]["minutes"]
    world.run(3600.0)
    assert world.scaler.state()["forecast"]["minutes"] > known + 30.0


def test_a_first_look_that_does_not_know_the_replicas_ends_none_of_them():
    idle = replace(SETTINGS, min_replicas=0, warm_replicas=0)
    world = World(lambda _now: 0.0, idle, replicas=8)
    world.spoil = without_list
    world.run(60.0)
    assert not world.plan.complete
    kept = json.loads(json.dumps(world.scaler.state()))
    world.spoil = lambda observation: observation
    world.scaler = pool_scaler(idle, FIGURES)
    world.scaler.restore(kept)
    world.run(30.0)
    assert (world.plan.replicas, world.plan.complete) == (8, True)


def test_after_an_hour_of_looking_away_a_quiet_minute_lowers_nothing():
    rates = [BUSY]
    world = World(lambda _now: rates[0], gateways=2)
    world.run(3600.0)
    before, kept = world.plan.replicas, json.loads(json.dumps(world.scaler.state()))
    for name in world.gateways:
        world.totals[name] += BUSY / 2.0 * 3600.0
    world.now += 3600.0
    world.scaler = pool_scaler(SETTINGS, FIGURES)
    world.scaler.restore(kept)
    rates[0] = QUIET
    world.run(285.0)
    assert world.plan.replicas == before
    world.run(900.0)
    assert world.plan.replicas < before
