"""The autoscaler's metrics: names, kinds, labels, meanings, and where their values come from.

The reference in the docs is made from this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from headrace.autoscaler.pool import ScaledPool
from headrace.autoscaler.program import Autoscaler
from headrace.core.scaling.observation import Phase
from headrace.edges.keda.ports import DEFAULT_TOLERANCE

Rows = Iterator[tuple[tuple[str, ...], float]]
"""Label values after the pool's, and the value."""


@dataclass(frozen=True, slots=True)
class PoolMetric:
    """One metric of each pool, as of a time; `labels` come after `pool`."""

    name: str
    meaning: str
    read: Callable[[ScaledPool, float], Rows]
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"


def _wanted(pool: ScaledPool, _now: float) -> Rows:
    # A guess would be what Prometheus tells the next scaler.
    if pool.plan is not None and not pool.is_guess:
        yield (), pool.plan.replicas


def _published(pool: ScaledPool, now: float) -> Rows:
    known = pool.published(DEFAULT_TOLERANCE, now)
    if known is not None:
        yield (), known[1].value


def _known(pool: ScaledPool, now: float) -> Rows:
    yield (), float(pool.is_known(now))


def _active(pool: ScaledPool, _now: float) -> Rows:
    if pool.plan is not None:
        yield (), float(pool.plan.active)


def _signals(pool: ScaledPool, _now: float) -> Rows:
    if pool.plan is not None:
        for signal in pool.plan.signals:
            yield (signal.name, signal.kind), signal.replicas


def _decided_by(pool: ScaledPool, _now: float) -> Rows:
    if pool.plan is not None:
        yield (pool.plan.decided_by,), 1.0


def _replicas(pool: ScaledPool, _now: float) -> Rows:
    if pool.observation is not None:
        for phase in Phase:
            there = sum(each.phase is phase for each in pool.observation.replicas)
            yield (phase.value,), float(there)


def _demand(pool: ScaledPool, _now: float) -> Rows:
    outlook = None if pool.plan is None else pool.plan.outlook
    if outlook is not None:
        yield ("now",), outlook.now
        yield ("expected",), outlook.expected
        yield ("provided_for",), outlook.high


def _horizon(pool: ScaledPool, _now: float) -> Rows:
    if pool.plan is not None and pool.plan.outlook is not None:
        yield (), pool.plan.outlook.horizon_s


def _forecast_error(pool: ScaledPool, _now: float) -> Rows:
    if pool.plan is not None and pool.plan.outlook is not None:
        yield (), pool.plan.outlook.error


def _memory(pool: ScaledPool, _now: float) -> Rows:
    memory = None if pool.plan is None else pool.plan.memory
    if memory is not None and memory.ratio is not None:
        yield (memory.source,), memory.ratio


def _wakes(pool: ScaledPool, _now: float) -> Rows:
    if pool.actuator is not None:
        yield ("joined",), float(pool.actuator.wakes.joined)
        yield ("failed",), float(pool.actuator.wakes.failed)


def _wake_s(pool: ScaledPool, _now: float) -> Rows:
    if pool.actuator is not None and pool.actuator.wakes.joined:
        yield (), pool.actuator.wakes.last_s


METRICS = (
    PoolMetric(
        "headrace_scaling_wanted_replicas",
        "Replicas wanted of a pool: ready and starting, not draining. Absent while it is asked "
        "what was wanted before.",
        _wanted,
    ),
    PoolMetric(
        "headrace_scaling_published_replicas",
        "The same as an HPA with the default tolerance must be told it; absent while demand is "
        "not known.",
        _published,
    ),
    PoolMetric(
        "headrace_scaling_known",
        "1 while everything needed for a decision is known, else 0.",
        _known,
    ),
    PoolMetric(
        "headrace_scaling_active",
        "0 if the pool needs no replica at all, else 1.",
        _active,
    ),
    PoolMetric(
        "headrace_scaling_signal_replicas",
        "Replicas that one signal asks for; kind says whether it wants, may only raise, or bounds.",
        _signals,
        ("signal", "kind"),
    ),
    PoolMetric(
        "headrace_scaling_decided_by",
        "1 for what decided the number.",
        _decided_by,
        ("signal",),
    ),
    PoolMetric(
        "headrace_scaling_replicas",
        "Replicas by phase, those that were ordered and are not seen yet among `starting`.",
        _replicas,
        ("phase",),
    ),
    PoolMetric(
        "headrace_scaling_demand_replicas",
        "Demand in replicas fully used: now, expected within the horizon, and provided for.",
        _demand,
        ("when",),
    ),
    PoolMetric(
        "headrace_scaling_horizon_seconds",
        "How far is looked ahead: a cold start and the time to the next decision.",
        _horizon,
    ),
    PoolMetric(
        "headrace_scaling_forecast_error",
        "Measured error of the forecast: mean |log(seen / forecast)|.",
        _forecast_error,
    ),
    PoolMetric(
        "headrace_scaling_memory_bandwidth_ratio",
        "Memory bandwidth of the ready replicas, of the peak: measured by DCGM, or modelled by the "
        "profile's bytes and the steps that streams show; absent while it is not known.",
        _memory,
        ("source",),
    ),
    PoolMetric(
        "headrace_scaling_wakes_total",
        "Standby replicas that were woken, by outcome; only where this process starts them.",
        _wakes,
        ("outcome",),
        kind="counter",
    ),
    PoolMetric(
        "headrace_scaling_wake_seconds",
        "How long the last standby that joined took to wake; 0 for one that was not asleep.",
        _wake_s,
    ),
    PoolMetric(
        "headrace_scaling_decisions_total",
        "Decisions that changed what is wanted, or why.",
        lambda pool, _now: iter([((), float(pool.changes))]),
        kind="counter",
    ),
)

GATEWAY_UP = (
    "headrace_scaling_gateway_up",
    "1 if a gateway answered when it was last asked, else 0.",
)


class ScalingCollector(Collector):
    """All metrics of an autoscaler. Reads plans, which nobody changes once they are made."""

    def __init__(self, autoscaler: Autoscaler) -> None:
        self._autoscaler = autoscaler

    def describe(self) -> list[Family]:
        """Names are unique by the table."""
        return []

    def collect(self) -> Iterator[Family]:
        """Every family."""
        pools, now = list(self._autoscaler.scaled.values()), self._autoscaler.clock()
        for metric in METRICS:
            kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            family = kind(metric.name, metric.meaning, labels=("pool", *metric.labels))
            for pool in pools:
                for labels, value in metric.read(pool, now):
                    family.add_metric((pool.name, *labels), value)
            yield family
        gathering = self._autoscaler.gathering
        name, meaning = GATEWAY_UP
        up = GaugeMetricFamily(name, meaning, labels=("gateway",))
        for gateway in gathering.expected:
            up.add_metric((gateway,), float(gateway not in gathering.failures))
        yield up
