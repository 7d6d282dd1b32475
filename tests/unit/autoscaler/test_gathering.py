"""From what several gateways told to one observation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.autoscaler.gathering import Gathering
from headrace.autoscaler.orders import GIVEN_UP_S, Orders
from headrace.core.scaling.observation import Phase, ReplicaObservation
from tests.unit.autoscaler.reports import pool_report, replica, report


def told(*reports, now: float = 100.0) -> Gathering:
    names = [f"gw-{number}" for number in range(len(reports))]
    gathering = Gathering(names)
    for name, each in zip(names, reports, strict=True):
        gathering.take(name, replace(each, reported_at_s=now), now)
    return gathering


def test_totals_stay_apart_by_the_name_that_is_expected_with_their_age():
    gathering = told(report(pool_report(requests=5)), report(pool_report(requests=7)))
    gathering.take("gw-1", report(pool_report(requests=8)), 103.0)
    seen = gathering.observation("llama", 104.0)
    assert seen.expected_gateways == ("gw-0", "gw-1")
    assert [(g.gateway, g.requests, g.age_s) for g in seen.gateways] == [
        ("gw-0", 5, 4.0),
        ("gw-1", 8, 1.0),
    ]


def test_a_gateway_that_is_silent_is_expected_still():
    gathering = told(report(pool_report()))
    gathering.expected = ("gw-0", "gw-1")
    seen = gathering.observation("llama", 100.0)
    assert seen.expected_gateways == ("gw-0", "gw-1")
    assert len(seen.gateways) == 1
    assert seen.replicas_known


def test_nothing_told_is_nothing_known():
    assert not Gathering(["gw-0"]).observation("llama", 1.0).replicas_known


def test_a_replica_that_several_see_is_one_with_everybodys_load():
    one = replica(
        *("r1", Phase.READY),
        idle_since_s=50.0,
        measured_age_s=0.5,
        waiting_prefill_tokens=100.0,
        kv_usage_ratio=0.4,
    )
    other = replica(
        *("r1", Phase.STARTING),
        idle_since_s=70.0,
        measured_age_s=3.0,
        waiting_prefill_tokens=20.0,
        kv_usage_ratio=0.9,
    )
    [both] = (
        told(report(pool_report(one)), report(pool_report(other)))
        .observation("llama", 101.0)
        .replicas
    )
    assert both.phase is Phase.READY
    assert both.waiting_prefill_tokens == 120.0
    assert both.kv_usage_ratio == 0.4
    assert both.idle_since_s == 70.0
    assert both.measured_age_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ((0.02, 300.0), (0.04, 100.0), (0.025, 400.0)),
        ((None, 0.0), (0.04, 100.0), (0.04, 100.0)),
        ((0.02, None), (0.04, None), (0.03, 0.0)),
        ((None, None), (None, None), (None, 0.0)),
    ],
)
def test_gateways_share_an_engines_steps_and_each_has_its_own_streams_in_them(one, other, both):
    seen = [
        report(pool_report(replica("r1", decode_step_s=step_s, decoding_context_tokens=tokens)))
        for step_s, tokens in (one, other)
    ]
    [found] = told(*seen).observation("llama", 100.0).replicas
    assert found.decode_step_s == pytest.approx(both[0])
    assert found.decoding_context_tokens == both[1]


def test_a_replica_that_is_busy_for_one_is_not_idle():
    busy, idle = replica("r1", idle_since_s=None), replica("r1", idle_since_s=5.0)
    seen = told(report(pool_report(busy)), report(pool_report(idle))).observation("llama", 100.0)
    assert seen.replicas[0].idle_since_s is None


def test_our_own_replicas_are_as_we_know_them_with_the_gateways_figures():
    own = [
        ReplicaObservation("r1", Phase.DRAINING, ordered_at_s=1.0, ready_at_s=4.0),
        ReplicaObservation("r2", Phase.STARTING, ordered_at_s=9.0),
    ]
    seen = told(report(pool_report(replica("r1", kv_usage_ratio=0.3), replica("r9")))).observation(
        "llama", 100.0, own=own, refused="no room"
    )
    assert [(each.name, each.phase, each.ordered_at_s) for each in seen.replicas] == [
        ("r1", Phase.DRAINING, 1.0),
        ("r2", Phase.STARTING, 9.0),
    ]
    assert seen.replicas[0].kv_usage_ratio == 0.3
    assert seen.refused_order == "no room"


# ---------------------------------------------------------------- orders nobody else tells of


def test_what_was_ordered_starts_until_it_is_seen_and_then_has_its_cold_start():
    orders = Orders()
    first = replica("r1", ready_at_s=5.0)
    assert orders.observed([first], 10.0) == (first,)
    orders.want(3, 1, 10.0)
    seen = orders.observed([first], 40.0)
    assert [(each.phase, each.ordered_at_s) for each in seen[1:]] == [(Phase.STARTING, 10.0)] * 2
    second = replica("r2", ordered_at_s=130.0, ready_at_s=130.0)
    seen = orders.observed([first, second], 131.0)
    assert (seen[1].name, seen[1].ordered_at_s, seen[1].ready_at_s) == ("r2", 10.0, 130.0)
    assert len(seen) == 3


def test_what_is_wanted_no_more_is_not_waited_for():
    orders = Orders()
    orders.observed([], 10.0)
    orders.want(4, 0, 10.0)
    orders.want(1, 0, 20.0)
    [left] = orders.observed([], 21.0)
    assert left.ordered_at_s == 10.0


def test_replicas_that_were_there_before_are_no_answer_to_an_order():
    orders = Orders()
    orders.observed([replica("r1"), replica("r2")], 10.0)
    orders.want(3, 2, 10.0)
    assert len(orders.observed([replica("r1"), replica("r2")], 11.0)) == 3


def test_an_order_that_brings_nothing_is_given_up():
    orders = Orders()
    orders.observed([], 10.0)
    orders.want(1, 0, 10.0)
    assert len(orders.observed([], 9.0 + GIVEN_UP_S)) == 1
    assert orders.observed([], 10.0 + GIVEN_UP_S) == ()


def test_times_of_a_gateway_whose_clock_is_off_are_told_by_ours():
    told = report(pool_report(replica("r1", ready_at_s=5000.0, idle_since_s=5400.0)))
    gathering = Gathering(["a"])
    gathering.take("a", replace(told, reported_at_s=5600.0), 2000.0)
    [seen] = gathering.observation("llama", 2000.0).replicas
    assert (seen.ready_at_s, seen.idle_since_s) == (1400.0, 1800.0)
    gathering.take("a", replace(told, reported_at_s=5600.0), 5601.0)
    [seen] = gathering.observation("llama", 5601.0).replicas
    assert (seen.ready_at_s, seen.idle_since_s) == (5000.0, 5400.0)


def test_of_an_order_whose_time_one_gateway_does_not_know_the_others_time_counts():
    """It has been ready for one of them, and is starting for the other."""
    failing = replica("r", Phase.FAILING, ordered_at_s=0.0)
    starting = replica("r", Phase.STARTING, ordered_at_s=50.0)
    seen = told(report(pool_report(failing)), report(pool_report(starting)))
    [together] = seen.observation("llama", 100.0).replicas
    assert (together.phase, together.ordered_at_s) == (Phase.STARTING, 50.0)
