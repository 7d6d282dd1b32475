"""The page on metrics is the one that the table makes, and the table is what is served."""

from prometheus_client.parser import text_string_to_metric_families

from headrace.gateway.metrics.catalogue import METRICS
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.fleet_parts import make_fleet
from tools.metrics_reference import PAGE, render_page


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == render_page(), "run: python -m tools.metrics_reference"


def test_what_is_served_is_what_the_page_lists():
    telemetry = Telemetry(TelemetrySettings(), lambda: 0.0, make_fleet(p=("m", 1)))
    body, _ = render(take_snapshot(telemetry, 0.0), "")
    served = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(body.decode())
        if not family.name.startswith("process_")
    }
    assert served == {metric.name for metric in METRICS}
