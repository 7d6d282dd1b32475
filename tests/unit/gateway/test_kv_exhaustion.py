"""`llm_kv_exhaustion_seconds`: fed by scrapes, gone with them."""

from math import inf

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.core.kv_growth import WINDOW
from headrace.engines.reading import EngineReading
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.fleet_parts import make_fleet, remove_replica

NOW = 1000.0


def make(*, engine_gauges: bool = True) -> Telemetry:
    settings = TelemetrySettings(engine_gauges=engine_gauges)
    return Telemetry(settings, lambda: NOW, make_fleet(p=("m", 2)))


def scrape(telemetry: Telemetry, replica: str, *usage: float | None) -> None:
    """One scrape a second, the last one at `NOW`."""
    for index, ratio in enumerate(usage):
        at_s = NOW - len(usage) + 1 + index
        telemetry.read(replica, EngineReading(kv_usage_ratio=ratio), at_s)


def exported(telemetry: Telemetry, now: float = NOW) -> dict[str, float]:
    body, _ = render(take_snapshot(telemetry, now), "")
    return {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == "llm_kv_exhaustion_seconds"
    }


def test_each_replica_is_told_how_long_its_cache_lasts():
    telemetry = make()
    scrape(telemetry, "p-0", 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
    scrape(telemetry, "p-1", 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert exported(telemetry) == {"p-0": pytest.approx(5.0), "p-1": inf}


def test_old_scrapes_are_forgotten():
    telemetry = make()
    scrape(telemetry, "p-0", *(0.9,) * 100, *(0.1 + 0.01 * index for index in range(WINDOW)))
    assert exported(telemetry)["p-0"] == pytest.approx(0.71 / 0.01)


def test_an_engine_that_tells_no_usage_has_no_forecast():
    telemetry = make()
    scrape(telemetry, "p-0", None, None, None, None, None, None)
    assert exported(telemetry) == {}


def test_a_stale_scrape_has_no_forecast():
    telemetry = make()
    scrape(telemetry, "p-0", 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
    assert "p-0" in exported(telemetry, NOW + 4)
    assert exported(telemetry, NOW + 6) == {}


def test_only_the_process_that_exports_engine_gauges_exports_it():
    telemetry = make(engine_gauges=False)
    scrape(telemetry, "p-0", 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
    assert exported(telemetry) == {}


def test_a_departed_replica_leaves_nothing_for_one_that_takes_its_name():
    telemetry = make()
    scrape(telemetry, "p-0", 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
    telemetry.forget("p-0")
    assert exported(telemetry) == {}
    scrape(telemetry, "p-0", 0.75)
    assert exported(telemetry) == {"p-0": inf}
    remove_replica(telemetry.fleet, "p-0")
    telemetry.forget("p-0")
    scrape(telemetry, "p-0", 0.5, 0.6, 0.7, 0.8, 0.9)
    assert exported(telemetry) == {}
