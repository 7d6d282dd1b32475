"""Exposition: a copy of the figures is taken on the event loop, text is made of it anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from headrace.gateway.metrics.catalogue import METRICS, Distribution, Metric, Row

if TYPE_CHECKING:
    from headrace.gateway.telemetry import Telemetry

TEXT_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Snapshot = list[tuple[Metric, list[Row]]]


def take_snapshot(telemetry: Telemetry, now: float) -> Snapshot:
    """Copy every figure, with running streams counted up to now.

    Takes some 10 µs per series, where making the text takes milliseconds: that part may run in a
    thread while the gateway goes on relaying.
    """
    telemetry.flush(now)
    telemetry.seed()
    return [(metric, list(metric.read(telemetry, now))) for metric in METRICS]


def render(snapshot: Snapshot, accept: str, more: Sequence[Collector] = ()) -> tuple[bytes, str]:
    """The text and its content type, in the format an Accept header asks for; `more` is what
    programs in the same process export.

    OpenMetrics where it is asked for, else the text format 0.0.4; also for a header that cannot
    be read.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(snapshot))
    for collector in more:
        registry.register(collector)
    ProcessCollector(registry=registry)
    if _prefers_openmetrics(accept):
        return openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), TEXT_CONTENT_TYPE


def _prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics 1.0.0 is asked for, and the text format not more so.

    Of our own, because prometheus_client's choice fails on versions it cannot read.
    """
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in accept.split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        given = dict(part.split("=", 1) for part in parameters if "=" in part)
        if given.get("version", "1.0.0") not in {"1.0.0", "0.0.4"} or media_type not in quality:
            continue
        try:
            weight = float(given.get("q", "1"))
        except ValueError:
            continue
        quality[media_type] = max(quality[media_type], weight)
    asked = quality["application/openmetrics-text"]
    return asked > 0 and asked >= quality["text/plain"]


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Family]:
        """Names are unique by the table; without this the registry would collect twice."""
        return []

    def collect(self) -> Iterator[Family]:
        for metric, rows in self._snapshot:
            yield _family(metric, rows)


def _family(metric: Metric, rows: list[Row]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for labels, value in rows:
            assert isinstance(value, Distribution)
            histogram.add_metric(labels, buckets=_cumulative(value), sum_value=value.total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in rows:
        assert not isinstance(value, Distribution)
        family.add_metric(labels, value)
    return family


def _cumulative(value: Distribution) -> list[tuple[str, float]]:
    names = [*map(floatToGoString, value.bounds), "+Inf"]
    buckets: list[tuple[str, float]] = []
    below = 0
    for name, count in zip(names, value.counts, strict=True):
        below += count
        buckets.append((name, below))
    return buckets
