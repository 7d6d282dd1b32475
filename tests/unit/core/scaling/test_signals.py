"""Each signal alone: what it wants, and why."""

from dataclasses import replace

import pytest

from headrace.core.length_counter import sketch_of
from headrace.core.scaling.backlog import backlog_of
from headrace.core.scaling.capacity import replica_capacity, replicas_for_load
from headrace.core.scaling.observation import (
    GatewayReport,
    Phase,
    PoolObservation,
    ReplicaObservation,
)
from headrace.core.scaling.plan import DemandOutlook, Signal
from headrace.core.scaling.settings import ScheduledFloor
from headrace.core.scaling.view import Phases, ScalingView
from headrace.core.signals import SIGNALS, opinions
from headrace.core.signals.burn_rate import burn_rate
from headrace.core.signals.forecast import forecast
from headrace.core.signals.kv_occupancy import kv_occupancy
from headrace.core.signals.memory_bandwidth import memory_bandwidth
from headrace.core.signals.queued_prefill import queued_prefill
from headrace.core.signals.schedule import schedule
from headrace.core.signals.slo_latency import slo_latency
from headrace.core.signals.token_throughput import token_throughput
from tests.unit.core.scaling.world import FIGURES, SETTINGS

LENGTHS = sketch_of([(1000, 500, 300)] * 10)


def view_of(
    usages=(0.3, 0.3, 0.3, 0.3), load=2.0, report=None, standby=0, replica=None, **fields
) -> ScalingView:
    ready = tuple(
        ReplicaObservation(
            f"r{number}", Phase.READY, measured_age_s=1.0, kv_usage_ratio=usage, **(replica or {})
        )
        for number, usage in enumerate(usages)
    )
    asleep = tuple(ReplicaObservation(f"s{number}", Phase.STANDBY) for number in range(standby))
    phases = Phases(ready + asleep, SETTINGS.stale_s)
    reports = (GatewayReport("g", 0.0, **(report or {})),)
    values = {
        "now": 10_000.0,
        "observation": PoolObservation(10_000.0, "pool", ready, reports),
        "settings": SETTINGS,
        "figures": FIGURES,
        "capacity": replica_capacity(FIGURES, SETTINGS.target, LENGTHS),
        "lengths": LENGTHS,
        "load": load,
        "requests_per_s": 20.0,
        "held_requests": 0.0,
        "cold_start_s": 240.0,
        "steady_replicas": len(ready),
        "fits_s": 600.0,
        "ready": phases.ready,
        "fresh": phases.fresh,
        "ordered": phases.ordered,
        "standby": phases.standby,
    }
    view = ScalingView(**{**values, **fields})
    view.backlog = backlog_of(view)
    return view


def told(signal: Signal | None) -> Signal:
    assert signal is not None
    return signal


def test_every_signal_has_a_file_of_its_name():
    for signal in SIGNALS:
        assert signal.__module__ == f"headrace.core.signals.{signal.__name__}"


def test_signals_are_told_with_finite_figures():
    signals = opinions(view_of(outlook=DemandOutlook(2.0, 2.5, 4.0, 255.0)))
    assert {signal.name for signal in signals} >= {"token_throughput", "forecast", "kv_occupancy"}
    for signal in signals:
        assert all(abs(value) < 1e12 for _, value in signal.figures)


def test_tokens_that_come_now_need_their_replicas_and_a_margin():
    view = view_of(load=4.0)
    wanted = told(token_throughput(view)).replicas
    assert view.capacity is not None
    assert wanted == pytest.approx(replicas_for_load(view.capacity, 4.0))
    assert 4.0 < wanted < 6.0


def test_the_forecast_needs_its_quantile_less_what_wakes_from_standby():
    outlook = DemandOutlook(2.0, 2.5, 6.0, 255.0)
    alone = told(forecast(view_of(outlook=outlook))).replicas
    with_two = told(forecast(view_of(outlook=outlook, standby=2))).replicas
    assert with_two == pytest.approx(alone - 2.0)
    with_many = view_of(outlook=outlook, standby=50)
    assert told(forecast(with_many)).replicas == pytest.approx(with_many.staffed(2.0))


def test_a_prefill_backlog_is_to_be_gone_within_a_cold_start():
    idle = told(queued_prefill(view_of(replica={"waiting_prefill_tokens": 0.0}))).replicas
    long = told(queued_prefill(view_of(replica={"waiting_prefill_tokens": 8_000_000.0})))
    short = told(queued_prefill(view_of(replica={"waiting_prefill_tokens": 10_000.0})))
    assert short.replicas == pytest.approx(idle)
    assert long.replicas > idle + 2.0
    assert dict(long.figures)["backlog_s"] > 700.0


def waiting_s(signal: Signal) -> float:
    """Replica-seconds that will wait when help is here."""
    figures = dict(signal.figures)
    return figures["excess_s"] + figures["growth_s"]


def test_a_shortage_orders_for_what_will_wait_when_help_is_there():
    waiting = {"waiting_prefill_tokens": 100_000.0}
    there = told(queued_prefill(view_of(load=3.0, replica=waiting))).replicas
    view = view_of(load=6.0, replica=waiting)
    short = told(queued_prefill(view))
    assert there < 4.5
    # Two a second more than four carry, for a cold start, and gone a minute after it.
    assert dict(short.figures)["growth_s"] == pytest.approx(2.0 * 240.0, rel=0.1)
    assert short.replicas == pytest.approx(view.staffed(6.0) + waiting_s(short) / 60.0)
    assert 14.0 < short.replicas < 17.0


def test_a_huge_jump_wants_at_most_twice_its_load_on_top():
    view = view_of(load=12.0, replica={"waiting_prefill_tokens": 100_000.0})
    jump = told(queued_prefill(view))
    assert waiting_s(jump) / 60.0 > 2.0 * view.staffed(12.0) > waiting_s(jump) / 240.0
    assert jump.replicas == pytest.approx(3.0 * view.staffed(12.0))


def test_a_backlog_beside_which_hardly_anything_comes_is_gone_within_a_cold_start():
    view = view_of(load=0.1, replica={"waiting_prefill_tokens": 100_000_000.0})
    left = told(queued_prefill(view))
    assert left.replicas == pytest.approx(view.staffed(0.1) + waiting_s(left) / 240.0)
    assert left.replicas > 2.0 * len(view.ready)


def test_where_a_cold_start_is_shorter_than_a_minute_a_backlog_takes_no_longer():
    waiting = {"waiting_prefill_tokens": 500_000.0}
    view = view_of(load=6.0, replica=waiting, cold_start_s=20.0)
    short = told(queued_prefill(view))
    assert waiting_s(short) / 20.0 < 2.0 * view.staffed(6.0)
    assert short.replicas == pytest.approx(view.staffed(6.0) + waiting_s(short) / 20.0)


def test_where_it_is_of_seconds_a_backlog_asks_for_no_fleet_of_its_own():
    """Else a pool of two would want hundreds, for a minute of work."""
    waiting = {"waiting_prefill_tokens": 500_000.0}
    view = view_of(load=2.0, replica=waiting, cold_start_s=3.0)
    wanted = told(queued_prefill(view))
    assert waiting_s(wanted) / 3.0 > 5.0 * view.staffed(2.0)
    assert wanted.replicas == pytest.approx(3.0 * view.staffed(2.0))
    huge = view_of(load=2.0, replica={"waiting_prefill_tokens": 50e6}, cold_start_s=3.0)
    left = told(queued_prefill(huge))
    assert left.replicas == pytest.approx(huge.staffed(2.0) + waiting_s(left) / 60.0)


def starting(number: int, ordered_at_s: float) -> tuple[ReplicaObservation, ...]:
    return tuple(
        ReplicaObservation(f"n{each}", Phase.STARTING, ordered_at_s=ordered_at_s)
        for each in range(number)
    )


def test_what_is_on_its_way_is_not_ordered_again():
    waiting = {"waiting_prefill_tokens": 100_000.0}
    alone = view_of(load=6.0, replica=waiting)
    coming = starting(3, ordered_at_s=9_880.0)
    half_there = view_of(load=6.0, replica=waiting, ordered=alone.ordered + coming)
    less = told(queued_prefill(alone)).replicas - told(queued_prefill(half_there)).replicas
    assert less == pytest.approx(3 * 120.0 / 60.0, abs=0.01)


def test_one_that_starts_nobody_knows_since_when_is_half_there_and_not_as_good_as_ready():
    waiting = {"waiting_prefill_tokens": 100_000.0}
    alone = view_of(load=7.0, replica=waiting)

    def wanted(ordered_at_s: float) -> float:
        coming = starting(2, ordered_at_s)
        there = view_of(load=7.0, replica=waiting, ordered=alone.ordered + coming)
        return told(queued_prefill(there)).replicas

    ordered_now, nearly_ready = wanted(alone.now), wanted(alone.now - alone.cold_start_s)
    assert wanted(0.0) == pytest.approx((ordered_now + nearly_ready) / 2.0)
    assert ordered_now > nearly_ready + 2.0


def test_what_starts_because_of_a_backlog_stays_until_that_is_worked_off():
    waiting = {"waiting_prefill_tokens": 100_000.0}
    alone = view_of(load=6.0, replica=waiting)
    for ordered_at_s, stay in ((9_880.0, True), (9_760.1, False)):
        coming = starting(12, ordered_at_s)
        there = view_of(load=6.0, replica=waiting, ordered=alone.ordered + coming)
        wanted = told(queued_prefill(there))
        assert waiting_s(wanted) < 0.0
        left_s = 240.0 - (there.now - ordered_at_s)
        to_come_s = dict(told(queued_prefill(alone)).figures)["growth_s"] * left_s / 240.0
        backlog_s = dict(wanted.figures)["excess_s"] + to_come_s
        assert wanted.replicas == pytest.approx(there.staffed(6.0) + backlog_s / 60.0)
        assert (wanted.replicas > there.staffed(6.0) + 3.0) is stay


def test_nobody_is_sent_away_before_the_backlog_is_gone():
    ten = (0.3,) * 10
    for tokens, stay in ((2_000_000.0, 10.0), (0.0, 0.0)):
        view = view_of(usages=ten, load=3.0, replica={"waiting_prefill_tokens": tokens})
        wanted = told(queued_prefill(view)).replicas
        assert wanted == pytest.approx(max(stay, view.staffed(3.0)))


def test_held_requests_want_a_first_replica_whatever_is_known():
    view = view_of(usages=(), load=0.0, held_requests=1.0, capacity=None)
    assert told(queued_prefill(view)).replicas >= 1.0


def test_kv_caches_are_used_to_the_target():
    assert told(kv_occupancy(view_of([0.6] * 4))).replicas == pytest.approx(3.2)
    assert told(kv_occupancy(view_of([0.9] * 4))).replicas >= 4.8


def test_hot_replicas_count_when_the_others_are_busy_too():
    even = told(kv_occupancy(view_of([0.7, 0.7, 0.7, 0.7])))
    hot = told(kv_occupancy(view_of([1.0, 0.6, 0.6, 0.6])))
    lone = told(kv_occupancy(view_of([1.0, 0.0, 0.0, 0.0])))
    assert hot.replicas > 4.0 > even.replicas
    assert hot.why == "hot"
    assert lone.replicas < 2.0


def test_kv_that_will_be_full_before_help_is_there_wants_it_now():
    calm = told(kv_occupancy(view_of([0.5] * 4, kv_growth_per_s=0.0005)))
    rising = told(kv_occupancy(view_of([0.5] * 4, kv_growth_per_s=0.003)))
    assert calm.why == "mean"
    assert rising.why == "exhaustion_s"
    assert 4.0 < rising.replicas <= 8.0


def test_kv_of_less_than_half_of_the_replicas_says_nothing():
    assert kv_occupancy(view_of([0.9, None, None, None])) is None


@pytest.mark.parametrize(
    ("ratios", "why"),
    [({"ttft_worst_ratio": 1.8}, "ttft"), ({"tpot_worst_ratio": 1.3}, "tpot")],
)
def test_late_answers_want_more_where_tokens_do_not_explain_them(ratios, why):
    late = told(slo_latency(view_of(report=ratios)))
    assert (late.why, 4.0 < late.replicas <= 6.0) == (why, True)
    explained = told(slo_latency(view_of(report=ratios, fits_s=0.0)))
    assert explained.replicas == 0.0
    assert "explained" in explained.why


def test_late_answers_of_idle_replicas_want_no_more_of_them_unless_requests_wait():
    late = {"tpot_worst_ratio": 1.4}
    idle = told(slo_latency(view_of(report=late, load=0.2, replica={"running": 1.0})))
    assert (idle.replicas, "would not help" in idle.why) == (0.0, True)
    # Idle since a shortage is over, of which the last latencies still tell.
    before = view_of(report=late, load=0.2, replica={"running": 1.0}, fits_s=30.0)
    assert told(slo_latency(before)).why == "tpot explained"
    for busy in ({"queue_depth": 2.0}, {"running": 200.0}):
        assert told(slo_latency(view_of(report=late, load=0.2, replica=busy))).replicas > 4.0
    assert told(slo_latency(view_of(report=late, load=0.2, held_requests=1.0))).replicas > 4.0


def test_met_targets_wish_nothing():
    assert told(slo_latency(view_of(report={"ttft_worst_ratio": 0.4}))).replicas == 0.0


def test_the_burn_rate_fires_only_with_both_windows_and_lifts_by_half_at_most():
    late = {"ttft_worst_ratio": 1.2}
    fast = {3600.0: 20.0, 300.0: 40.0}
    latency = told(slo_latency(view_of(report=late))).replicas
    lifted = told(burn_rate(view_of(report=late, burn_rates=fast)))
    assert latency < lifted.replicas <= 1.5 * 4
    assert lifted.kind == "raises"
    slow = {21600.0: 7.0, 1800.0: 6.5, 3600.0: 7.0, 300.0: 7.0}
    assert told(burn_rate(view_of(report=late, burn_rates=slow))).replicas > latency
    for half in ({3600.0: 20.0, 300.0: 1.0}, {3600.0: 1.0, 300.0: 40.0}, {21600.0: 9.0}):
        assert burn_rate(view_of(report=late, burn_rates=half)) is None
    assert burn_rate(view_of(report={"ttft_worst_ratio": 0.5}, burn_rates=fast)) is None


def test_memory_bandwidth_only_raises_and_only_where_replicas_are_busy():
    high = {"memory_bandwidth_ratio": 0.97}
    raised = told(memory_bandwidth(view_of(load=3.0, replica=high)))
    assert (raised.kind, raised.why) == ("raises", "measured")
    assert 4.0 < raised.replicas < 5.0
    assert memory_bandwidth(view_of(load=0.2, replica=high)) is None
    assert memory_bandwidth(view_of(load=3.0, replica={"memory_bandwidth_ratio": 0.5})) is None


def test_memory_bandwidth_is_modelled_where_nobody_measures_it():
    figures = replace(
        FIGURES,
        memory_bytes_per_s=3.35e12,
        weight_bytes_per_step=2.3e10,
        kv_bytes_per_token=131_072.0,
    )
    raised = told(memory_bandwidth(view_of(load=2.0, figures=figures)))
    assert raised.why == "modelled"
    assert memory_bandwidth(view_of(load=2.0)) is None


def test_the_calendar_holds_from_one_cold_start_before():
    floors = (ScheduledFloor(10_200.0, 12_000.0, 9, "opening"), ScheduledFloor(0.0, 5_000.0, 20))
    settings = replace(SETTINGS, schedule=floors)
    due = told(schedule(view_of(settings=settings)))
    assert (due.replicas, due.why, due.kind) == (9, "opening", "floor")
    assert schedule(view_of(settings=settings, now=9_000.0)) is None
    assert schedule(view_of(settings=settings, now=12_001.0)) is None
