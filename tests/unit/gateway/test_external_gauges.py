"""Gauges of engines whose requests others send them: what they told, not what we did not see."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.core.model import Fleet
from headrace.gateway.fleet_view import view_fleet
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.metrics.external import PushedReport
from headrace.gateway.metrics.gauges import EngineGauges
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.fleet_parts import make_fleet, report

NOW = 1000.0
LATER = NOW + 60


@pytest.fixture
def fleet() -> Fleet:
    return make_fleet(p=("m", 1))


def gauges(fleet: Fleet, now: float, *, external: bool = True) -> EngineGauges:
    pools = frozenset({"p"} if external else ())
    telemetry = Telemetry(TelemetrySettings(external_pools=pools), lambda: now, fleet)
    return telemetry.gauges_of(fleet.replicas["p-0"], now)


def test_kv_usage_that_an_engine_does_not_tell_is_unknown(fleet: Fleet):
    """TGI's: its size is told, and that none of our requests is there says nothing."""
    report(fleet.replicas["p-0"], NOW, queue_depth=5, running=12, kv_capacity_tokens=131_072)
    assert gauges(fleet, NOW) == EngineGauges(5, 12, None, False)
    assert gauges(fleet, NOW, external=False).kv_usage_ratio == 0


def test_an_engine_that_cannot_be_scraped_is_not_taken_for_idle(fleet: Fleet):
    figures = {"queue_depth": 40, "running": 256, "kv_usage_ratio": 0.97}
    report(fleet.replicas["p-0"], NOW, **figures, kv_capacity_tokens=400_000)
    assert gauges(fleet, NOW) == EngineGauges(40, 256, 0.97, False)
    assert gauges(fleet, LATER) == EngineGauges(40, 256, 0.97, True)
    assert gauges(fleet, LATER, external=False) == EngineGauges(0, 0, 0, True)


def test_a_fresh_push_is_newer_than_what_was_told_last(fleet: Fleet):
    replica = fleet.replicas["p-0"]
    report(replica, NOW, queue_depth=40, running=256, kv_usage_ratio=0.97)
    settings = TelemetrySettings(external_pools=frozenset({"p"}))
    telemetry = Telemetry(settings, lambda: LATER, fleet)
    telemetry.push(PushedReport("m", queue_depth=3, kv_usage_ratio=0.5), replica, LATER)
    assert telemetry.gauges_of(replica, LATER) == EngineGauges(3, 256, 0.5, True)


def test_of_an_engine_that_never_told_nothing_is_known(fleet: Fleet):
    assert gauges(fleet, NOW) == EngineGauges(0, 0, None, True)


@pytest.mark.parametrize("told_s", [None, NOW - 60, NOW + 30])
def test_an_engine_whose_exporter_fell_silent_is_not_taken_for_idle(
    fleet: Fleet, told_s: float | None
):
    replica = fleet.replicas["p-0"]
    settings = TelemetrySettings(external_pools=frozenset({"p"}))
    telemetry = Telemetry(settings, lambda: LATER, fleet)
    telemetry.push(PushedReport("m", queue_depth=40, kv_usage_ratio=0.97), replica, NOW)
    if told_s is not None:
        report(replica, told_s, queue_depth=3, running=256, kv_usage_ratio=0.5)
    expected = {None: (40, 0, 0.97), NOW - 60: (40, 256, 0.97), NOW + 30: (3, 256, 0.5)}[told_s]
    assert telemetry.gauges_of(replica, LATER) == EngineGauges(*expected, True)


def test_a_scrape_that_does_not_tell_all_leaves_what_was_pushed(fleet: Fleet):
    replica = fleet.replicas["p-0"]
    settings = TelemetrySettings(external_pools=frozenset({"p"}))
    telemetry = Telemetry(settings, lambda: LATER, fleet)
    telemetry.push(PushedReport("m", kv_usage_ratio=0.97), replica, NOW)
    report(replica, LATER, queue_depth=3, running=256)
    assert telemetry.gauges_of(replica, LATER) == EngineGauges(3, 256, 0.97, False)


def exported(telemetry: Telemetry, now: float) -> dict[str, float]:
    """The gauges of the replica as Prometheus reads them."""
    page, _ = render(take_snapshot(telemetry, now), "")
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.labels.get("replica") == "p-0"
        and sample.name in {"llm_queue_depth", "llm_requests_running", "llm_kv_cache_usage_ratio"}
    }


def test_what_was_never_told_is_absent_and_not_nothing(fleet: Fleet):
    """Nor is an engine whose queue nobody knows idle: a sum of queues must not count it as 0."""
    replica = fleet.replicas["p-0"]
    settings = TelemetrySettings(external_pools=frozenset({"p"}))
    telemetry = Telemetry(settings, lambda: NOW, fleet)
    assert exported(telemetry, NOW) == {}
    pools: Any = view_fleet(telemetry, NOW)["pools"]
    view = pools[0]["replicas"][0]
    assert (view["queue_depth"], view["running"]) == (None, None)
    telemetry.push(PushedReport("m", queue_depth=3), replica, NOW)
    assert exported(telemetry, NOW) == {"llm_queue_depth": 3}
    report(replica, NOW, queue_depth=0, running=0)
    assert exported(telemetry, LATER) == {"llm_queue_depth": 0, "llm_requests_running": 0}


def test_of_replicas_whose_requests_pass_here_nothing_is_absent(fleet: Fleet):
    telemetry = Telemetry(TelemetrySettings(), lambda: NOW, fleet)
    assert exported(telemetry, NOW) == {"llm_queue_depth": 0, "llm_requests_running": 0}
