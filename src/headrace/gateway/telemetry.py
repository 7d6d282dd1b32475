"""Tokens and latencies of what this gateway relays, and what it knows of its replicas.

One fact, one source, one exporter. Tokens and latencies are counted by the gateway that relayed
the request. An engine's gauges are exported by one process only (`engine_gauges`). Held requests
are exported by each gateway with an empty `replica`. So sums over gateways are true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client.registry import Collector

from headrace.core import kv_growth
from headrace.core.admission import DEFAULT_TIER
from headrace.core.events import Progress
from headrace.core.model import Endpoint, Fleet, Replica
from headrace.edges.gpu_metrics import BELIEVED_S
from headrace.engines.latencies import Latencies
from headrace.engines.reading import EngineReading
from headrace.gateway.metrics.external import EngineTotals, LatencyTotals, PushedReport
from headrace.gateway.metrics.gauges import (
    EngineGauges,
    PushedGauges,
    WasTold,
    engine_gauges,
    was_told,
)
from headrace.gateway.metrics.held import HeldKey, HeldResult, HeldTimes
from headrace.gateway.metrics.meter import Meter
from headrace.gateway.metrics.series import Series, SeriesKey, SeriesTable
from headrace.gateway.metrics.tokens import ChunkRatio
from headrace.gateway.troubles import Troubles


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is exported and how much memory it may take."""

    engine_gauges: bool = True
    """Export queue depth, running requests and KV usage of the engines. True in exactly one of
    several gateways before the same replicas, or sums would count each engine once per gateway."""
    max_series: int = 1000
    """Combinations of model, pool and replica; what comes above is counted as "other"."""
    stale_after_s: float = 5.0
    """An engine's gauges older than this, five scrapes by default, are replaced by the gateway's
    own estimate."""
    external_pools: frozenset[str] = frozenset()
    """Pools declared `traffic: external`: their requests do not pass this gateway, so their tokens
    and latencies come from scrapes and from what is pushed to `/telemetry`."""


class Telemetry:
    """Everything `/metrics` shows. One per gateway, used from its event loop only.

    `clock` is the monotonic clock, in seconds, that every `now` comes from.
    """

    def __init__(
        self, settings: TelemetrySettings, clock: Callable[[], float], fleet: Fleet | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.fleet = Fleet() if fleet is None else fleet
        self.held: Callable[[], Mapping[str, int]] = dict
        """Requests held at this gateway by model id, asked for when `/metrics` is read."""
        self.held_times = HeldTimes()
        self.connections: Callable[[], Mapping[str, int]] = dict
        """Open connections by kind (`client`, `client_handshake`, `upstream_busy`, `upstream_idle`,
        `control`, `control_handshake`), asked for when `/metrics` is read."""
        self.collectors: list[Collector] = []
        """What programs in the same process export on `/metrics` too."""
        self.series = SeriesTable(settings.max_series)
        self.ratios: dict[str, ChunkRatio] = {}
        self.rejects: dict[tuple[str, str], int] = {}
        self.scrape_failures: dict[str, int] = {}
        self.troubles = Troubles()
        self.pushes = dict.fromkeys(("accepted", "duplicate", "invalid"), 0)
        self.config_reloads = dict.fromkeys(("applied", "partial", "refused"), 0)
        self.certificate_reloads = dict.fromkeys(("applied", "refused"), 0)
        self._leaving: set[str] = set()
        self._streams: dict[Meter, None] = {}
        self.readings: dict[str, EngineReading] = {}
        """What each engine told last."""
        self._totals: dict[str, EngineTotals] = {}
        self._ttft_totals: dict[str, LatencyTotals] = {}
        self._tpot_totals: dict[str, LatencyTotals] = {}
        self._pushed: dict[str, PushedGauges] = {}
        self._kv_usage: dict[str, deque[kv_growth.KvSample]] = {}
        self._memory_bandwidth: dict[str, tuple[float, float]] = {}

    # ------------------------------------------------------------ requests

    def begin(  # noqa: PLR0917 - each request comes by here, and keywords cost
        self,
        model_id: str,
        pool: str,
        replica: str,
        attempt: int,
        received_s: float,
        streamed: bool,
        endpoint: Endpoint,
        input_tokens_estimate: int = 0,
        sequences: int = 1,
    ) -> Meter:
        """Start measuring an attempt that was dispatched.

        `model_id` is the target's id: the pool's model or an adapter, never an alias.
        `received_s` is when the client's request was received, also on a retry: TTFT is what
        the client waits. `input_tokens_estimate` counts as the input of a stream that ends
        early, without its engine's usage; `sequences` are generated side by side.
        """
        series = self.series.known.get((model_id, pool, replica))
        if series is None:
            series = self.series.get(SeriesKey(model_id, pool, replica))
        series.dispatched += 1
        series.in_flight += 1
        ratio = self.ratios.get(pool)
        if ratio is None:
            ratio = self.ratios[pool] = ChunkRatio()
        estimate = input_tokens_estimate
        meter = Meter(series, ratio, attempt, received_s, streamed, endpoint, estimate, sequences)
        if streamed:
            meter.streams = self._streams
            self._streams[meter] = None
        return meter

    def stream_begun(self, meter: Meter) -> None:
        """An answer turned out to be a stream, though its request had not asked for one."""
        meter.begin_stream()
        meter.streams = self._streams
        self._streams[meter] = None

    def reject(self, reason: str, model_id: str = "") -> None:
        """A request was answered by the gateway itself with an error.

        `reason` is one of a fixed set (`RejectReason`, or the code of a gateway limit). A
        `model_id` that no pool serves is counted under "", since clients can make names up.
        """
        known = model_id if self._serves(model_id) else ""
        self.rejects[reason, known] = self.rejects.get((reason, known), 0) + 1

    def was_held(self, model_id: str, tier: str, result: HeldResult, held_s: float) -> None:
        """A request waited here for a replica with room; "" is the default tier.

        `model_id` is counted as in `reject`.
        """
        known = model_id if self._serves(model_id) else ""
        key = HeldKey(known, tier or DEFAULT_TIER, result)
        self.held_times.observe(key, held_s, self.settings.max_series)

    def tick(self, now: float) -> list[Progress]:
        """Count what streams relayed since the last tick; return the core's progress events.

        Meant to be called four times a second.
        """
        self.flush(now)
        progress = (meter.take_progress() for meter in self._streams)
        return [event for event in progress if event is not None]

    def flush(self, now: float) -> None:
        """Bring the counters of running streams up to date, as each read of `/metrics` does."""
        for meter in self._streams:
            meter.flush(now)
        if self._leaving:
            self._forget_finished()

    # ------------------------------------------------------------ replicas

    def read(self, replica: str, reading: EngineReading, now: float) -> None:
        """Take in a scrape. Of relayed replicas the tokens are known better; of external ones the
        engine's own counters are the source.
        """
        known = self.fleet.replicas.get(replica)
        if known is None:
            return
        self.readings[replica] = reading
        if reading.kv_usage_ratio is not None:
            samples = self._kv_usage.setdefault(replica, deque(maxlen=kv_growth.WINDOW))
            samples.append(kv_growth.KvSample(now, reading.kv_usage_ratio))
        if not self.is_external(known):
            return
        used = self._totals.setdefault(replica, EngineTotals()).advance(reading)
        series = self._series_of(known.pool.spec.model, known)
        series.input_tokens += used.input_tokens
        series.cached_tokens += used.cached_tokens
        series.count_output(used.output_tokens, now)

    def read_latencies(self, replica: str, latencies: Latencies, now: float) -> None:
        """Take in how an external replica's latencies are distributed."""
        known = self.fleet.replicas.get(replica)
        if known is None or not self.is_external(known):
            return
        series = self._series_of(known.pool.spec.model, known)
        ttft = self._ttft_totals.setdefault(replica, LatencyTotals())
        for ttft_s, times in ttft.advance(latencies.ttft):
            series.observe_ttft(ttft_s, now, times)
        tpot = self._tpot_totals.setdefault(replica, LatencyTotals())
        for tpot_s, times in tpot.advance(latencies.tpot):
            series.observe_tpot(tpot_s, now, times)

    def gpus_read(self, replica: str, ratio: float, now: float) -> None:
        """Take in how busy the memory of a replica's GPUs is."""
        if replica in self.fleet.replicas:
            self._memory_bandwidth[replica] = (ratio, now)

    def memory_bandwidth_of(self, replica: str, now: float) -> float | None:
        """The share of time in which it is busy; None where nobody told lately."""
        ratio, at_s = self._memory_bandwidth.get(replica, (None, now))
        return ratio if now - at_s <= BELIEVED_S else None

    def attempt_failed(self, replica: str, reason: str, now: float) -> None:
        """A request failed there: shown as its last error, since that may be why it was ejected."""
        if replica in self.fleet.replicas:
            self.troubles.note(replica, f"a request failed: {reason}", now)

    def scrape_failed(self, replica: str) -> None:
        """A scrape brought nothing."""
        self.scrape_failures[replica] = self.scrape_failures.get(replica, 0) + 1

    def push(self, report: PushedReport, replica: Replica, now: float) -> list[str]:
        """Take in what an exporter pushed; return the names of the facts that were not used.

        Tokens and latencies count only for external replicas, and only while the engine's own
        counters and histograms of them are not scraped. Gauges are used while no scrape is fresh.
        """
        gauges = self._pushed.get(replica.name, PushedGauges())
        self._pushed[replica.name] = gauges.updated(report, now)
        if not self.is_external(replica):
            return report.traffic_facts()
        series = self._series_of(report.model_id, replica)
        unused: list[str] = []
        if report.ttft_s is not None:
            if self._is_told(self._ttft_totals, replica):
                unused.append("ttftMs")
            else:
                series.observe_ttft(report.ttft_s, now)
        if report.tpot_s is not None:
            if self._is_told(self._tpot_totals, replica):
                unused.append("tpotMs")
            else:
                series.observe_tpot(report.tpot_s, now)
        if self._is_told(self._totals, replica):
            return [*report.token_facts(), *unused]
        series.input_tokens += report.input_tokens or 0
        series.count_output(report.output_tokens or 0, now)
        return unused

    @staticmethod
    def _is_told(
        totals: Mapping[str, EngineTotals] | Mapping[str, LatencyTotals], replica: Replica
    ) -> bool:
        """Whether the engine itself tells this fact to our scrapes."""
        followed = totals.get(replica.name)
        return followed is not None and followed.seen

    def is_external(self, replica: Replica) -> bool:
        """Whether this replica's traffic does not pass the gateway."""
        return replica.pool.spec.name in self.settings.external_pools

    def gauges_of(self, replica: Replica, now: float) -> EngineGauges:
        """Queue, running requests and KV usage of a replica, from the best source there is."""
        pushed = self._pushed.get(replica.name)
        return engine_gauges(
            replica,
            pushed,
            now,
            self.settings.stale_after_s,
            external=self.is_external(replica),
        )

    def was_told(self, replica: Replica) -> WasTold:
        """Whether a replica's queue and running requests are known at all."""
        pushed = self._pushed.get(replica.name)
        return was_told(replica, pushed, external=self.is_external(replica))

    def kv_exhaustion_s(self, replica: str, now: float) -> float | None:
        """Seconds until a replica's KV cache is full if it goes on growing as it does, infinite if
        it does not grow; `None` if no fresh scrape told its usage.
        """
        samples = self._kv_usage.get(replica)
        if samples is None or now - samples[-1].at_s > self.settings.stale_after_s:
            return None
        return kv_growth.exhaustion_s(tuple(samples), now)

    def seed(self) -> None:
        """Make the series of every replica, so that its counters are seen at 0 before they rise:
        `rate()` cannot count an increase from nothing.
        """
        for replica in self.fleet.replicas.values():
            self._series_of(replica.pool.spec.model, replica)

    def forget(self, replica: str) -> None:
        """A replica left the fleet: its series vanish as soon as its last request has ended.

        A replica that only restarts keeps its name and its counters. One that comes back under
        the same name later starts at 0, which Prometheus reads as a counter's restart.
        """
        self._leaving.add(replica)
        for by_replica in (
            self.scrape_failures,
            self.readings,
            self._totals,
            self._ttft_totals,
            self._tpot_totals,
            self._pushed,
            self._kv_usage,
        ):
            by_replica.pop(replica, None)
        self._memory_bandwidth.pop(replica, None)
        self.troubles.forget(replica)
        self._forget_finished()

    def _forget_finished(self) -> None:
        for replica in tuple(self._leaving):
            if replica in self.fleet.replicas:  # it came back meanwhile
                self._leaving.discard(replica)
            elif not self.series.in_flight(replica):
                self._leaving.discard(replica)
                self.series.forget_replica(replica)

    def configure(self, settings: TelemetrySettings) -> None:
        """Export by these settings from now on."""
        self.settings = settings
        self.series.limit = settings.max_series

    def _series_of(self, model_id: str, replica: Replica) -> Series:
        return self.series.get(SeriesKey(model_id, replica.pool.spec.name, replica.name))

    def _serves(self, model_id: str) -> bool:
        return any(serves(replica, model_id) for replica in self.fleet.replicas.values()) or any(
            model_id == pool.spec.model for pool in self.fleet.pools.values()
        )


def serves(replica: Replica, model_id: str) -> bool:
    """Whether a replica answers for this model or adapter."""
    return model_id == replica.pool.spec.model or model_id in replica.adapters
