"""TTFT and TPOT of engines whose requests others send them."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.model import Fleet
from headrace.engines.latencies import Buckets, Latencies
from headrace.gateway.metrics.external import LatencyTotals, PushedReport
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.fleet_parts import make_fleet

NOW = 1000.0
BOUNDS = (0.1, 0.5, 1.0, inf)
NONE = Buckets(BOUNDS, (0, 0, 0, 0), 0.0)


def observed(*values: float, bounds: tuple[float, ...] = BOUNDS) -> Buckets:
    """The histogram of an engine that has seen these."""
    spans = list(pairwise((0.0, *bounds)))
    counts = tuple(sum(low < value <= high for value in values) for low, high in spans)
    return Buckets(bounds, counts, sum(values))


def since(*readings: Buckets | None) -> list[tuple[float, int]]:
    """What the last of these readings adds."""
    totals = LatencyTotals()
    for reading in readings[:-1]:
        totals.advance(reading)
    return totals.advance(readings[-1])


def test_what_was_before_the_first_look_counts_nothing():
    assert since(observed(0.2, 0.3)) == []


def test_one_request_between_two_looks_is_known_exactly():
    assert since(observed(0.05), observed(0.05, 0.37)) == [(pytest.approx(0.37), 1)]
    assert since(NONE, observed(42.0)) == [(pytest.approx(42.0), 1)]


def test_requests_stay_in_their_buckets_and_keep_their_sum():
    found = since(NONE, observed(0.02, 0.3, 0.4, 0.9))
    assert [(count, high) for (_, count), high in zip(found, BOUNDS, strict=False)] == [
        (1, 0.1),
        (2, 0.5),
        (1, 1.0),
    ]
    assert all(
        low < value <= high
        for (value, _), (low, high) in zip(found, pairwise((0.0, *BOUNDS)), strict=False)
    )
    assert sum(value * count for value, count in found) == pytest.approx(1.62)


@pytest.mark.parametrize("after", [observed(0.2), observed(0.2, 0.2, 0.2, bounds=(0.3, inf))])
def test_after_a_restart_all_is_new(after: Buckets):
    """Counts fall with the engine, and a newer version may have other bounds."""
    before = observed(0.05, 0.3, 0.3)
    found = since(before, after)
    assert sum(count for _, count in found) == sum(after.counts)
    assert sum(value * count for value, count in found) == pytest.approx(after.total_s)


def test_a_sum_that_is_rounded_otherwise_is_no_restart():
    """As where ranks are listed in another order."""
    before = observed(0.1, 0.2, 0.3)
    assert since(before, before._replace(total_s=before.total_s - 1e-12)) == []


def test_a_look_that_tells_nothing_is_passed_over():
    assert since(observed(0.05), None, observed(0.05, 0.2)) == [(pytest.approx(0.2), 1)]


@given(st.lists(st.floats(1e-6, 1e4), max_size=30), st.lists(st.floats(1e-6, 1e4), max_size=30))
def test_counts_and_sums_are_the_engines(before: list[float], later: list[float]):
    found = since(observed(*before), observed(*before, *later))
    by_bucket = {
        high: sum(count for value, count in found if low - 1e-9 <= value <= high + 1e-9)
        for low, high in pairwise((0.0, *BOUNDS))
    }
    assert sum(count for _, count in found) == len(later)
    assert all(
        by_bucket[high] >= count
        for high, count in zip(BOUNDS, observed(*later).counts, strict=True)
    )
    total_s = sum(value * count for value, count in found)
    assert total_s == pytest.approx(sum(later), rel=1e-6, abs=1e-6)


# ---------------------------------------------------------------- what is exported


def external() -> tuple[Telemetry, Fleet]:
    fleet = make_fleet(p=("m", 1))
    return Telemetry(TelemetrySettings(external_pools=frozenset({"p"})), lambda: NOW, fleet), fleet


def test_latencies_of_external_replicas_come_from_their_engines_histograms():
    telemetry, _ = external()
    for at_s, ttft, tpot in ((0, NONE, NONE), (1, observed(0.3), observed(0.05, 0.07))):
        telemetry.read_latencies("p-0", Latencies(ttft, tpot), NOW + at_s)
    series = telemetry.series.known["m", "p", "p-0"]
    assert (series.ttft.count, series.tpot.count) == (1, 2)
    assert series.ttft.total == pytest.approx(0.3)
    assert series.tpot.total == pytest.approx(0.12)
    assert series.ttft_recent.quantile(0.95, NOW + 1) == pytest.approx(0.3, rel=0.01)


def test_those_of_relayed_replicas_do_not():
    telemetry = Telemetry(TelemetrySettings(), lambda: NOW, make_fleet(p=("m", 1)))
    for reading in (NONE, observed(0.3)):
        telemetry.read_latencies("p-0", Latencies(reading, reading), NOW)
    assert not any(series.ttft.count or series.tpot.count for series in telemetry.series)


def test_a_push_is_used_for_what_the_engine_does_not_tell():
    telemetry, fleet = external()
    pushed = PushedReport("m", ttft_s=0.2, tpot_s=0.01)
    replica = fleet.replicas["p-0"]
    assert telemetry.push(pushed, replica, NOW) == []
    telemetry.read_latencies("p-0", Latencies(tpot=NONE), NOW)
    assert telemetry.push(pushed, replica, NOW) == ["tpotMs"]
    series = telemetry.series.known["m", "p", "p-0"]
    assert (series.ttft.count, series.tpot.count) == (2, 1)


def test_an_engine_that_left_is_forgotten():
    telemetry, fleet = external()
    telemetry.read_latencies("p-0", Latencies(observed(0.2), None), NOW)
    replica = fleet.replicas["p-0"]
    assert telemetry.push(PushedReport("m", ttft_s=0.2), replica, NOW) == ["ttftMs"]
    telemetry.forget("p-0")
    assert telemetry.push(PushedReport("m", ttft_s=0.2), replica, NOW) == []
