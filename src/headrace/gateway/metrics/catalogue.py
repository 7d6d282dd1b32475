"""Every exported metric: name, kind, labels, meaning and where its values come from.

The reference in the docs is made from this table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from headrace.core.model import Replica, ReplicaState
from headrace.gateway.metrics.histogram import Histogram
from headrace.gateway.metrics.series import Series

if TYPE_CHECKING:
    from headrace.engines.reading import EngineReading
    from headrace.gateway.telemetry import Telemetry


class Distribution(NamedTuple):
    """A copy of a histogram: counts per bucket, the last one above every bound."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


Row = tuple[tuple[str, ...], "float | Distribution"]
"""Label values in the metric's order, and the value."""

Read = Callable[["Telemetry", float], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `read` gives its rows as of `now`; `name` is the exported one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    read: Read


# ---------------------------------------------------------------- readers


def _per_series(value: Callable[[Series], float]) -> Read:
    return lambda telemetry, _now: (
        (tuple(series.key), value(series)) for series in telemetry.series
    )


def _distribution(pick: Callable[[Series], Histogram]) -> Read:
    def read(telemetry: Telemetry, _now: float) -> Iterator[Row]:
        for series in telemetry.series:
            histogram = pick(series)
            yield (
                tuple(series.key),
                Distribution(histogram.bounds, tuple(histogram.counts), histogram.total),
            )

    return read


def _ttft_p95(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for series in telemetry.series:
        p95 = series.ttft_recent.quantile(0.95, now)
        if p95 is not None:
            yield tuple(series.key), p95


def _tpot_p95(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for series in telemetry.series:
        p95 = series.tpot_recent.quantile(0.95, now)
        if p95 is not None:
            yield tuple(series.key), p95


def _tokens_per_second(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for series in telemetry.series:
        yield tuple(series.key), series.output_rate.per_second(now)


def _tokens_processed(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for series in telemetry.series:
        yield (*series.key, "input"), series.input_tokens
        yield (*series.key, "output"), series.output_tokens.value


def _requests(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for series in telemetry.series:
        for (endpoint, outcome), count in series.requests.items():
            yield (*series.key, endpoint.value, outcome.value), count


def _retries(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for series in telemetry.series:
        for outcome, count in series.retries.items():
            yield (*series.key, outcome.value), count


def _usage_missing(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for series in telemetry.series:
        for endpoint, count in series.usage_missing.items():
            yield (*series.key, endpoint.value), count


def _rejects(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for (reason, model_id), count in telemetry.rejects.items():
        yield (model_id, reason), count


def _replica_labels(replica: Replica) -> tuple[str, str, str]:
    return replica.pool.spec.model, replica.pool.spec.name, replica.name


def _own_replicas(telemetry: Telemetry) -> Iterator[Replica]:
    """Replicas whose gauges this process exports."""
    if telemetry.settings.engine_gauges:
        yield from telemetry.fleet.replicas.values()


def _queue_depth(telemetry: Telemetry, now: float) -> Iterator[Row]:
    held = {pool.spec.model: 0 for pool in telemetry.fleet.pools.values()} | dict(telemetry.held())
    for model_id, count in held.items():
        yield (model_id, "", ""), count
    for replica in _own_replicas(telemetry):
        if telemetry.was_told(replica).queue_depth:
            yield _replica_labels(replica), telemetry.gauges_of(replica, now).queue_depth


def _held_times(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for key, histogram in telemetry.held_times:
        yield (
            (key.model_id, key.tier, key.result.value),
            Distribution(histogram.bounds, tuple(histogram.counts), histogram.total),
        )


def _running(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for replica in _own_replicas(telemetry):
        if telemetry.was_told(replica).running:
            yield _replica_labels(replica), telemetry.gauges_of(replica, now).running


def _kv_usage(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for replica in _own_replicas(telemetry):
        ratio = telemetry.gauges_of(replica, now).kv_usage_ratio
        if ratio is not None:
            yield _replica_labels(replica), ratio


def _kv_exhaustion(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for replica in _own_replicas(telemetry):
        exhaustion_s = telemetry.kv_exhaustion_s(replica.name, now)
        if exhaustion_s is not None:
            yield _replica_labels(replica), exhaustion_s


def _preemptions(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for replica, reading in _told(telemetry):
        if reading.preemptions_total is not None:
            yield _replica_labels(replica), reading.preemptions_total


def _prefix_tokens(place: int) -> Read:
    def read(telemetry: Telemetry, _now: float) -> Iterator[Row]:
        for replica, reading in _told(telemetry):
            totals = reading.prefix_tokens_total
            if totals is not None:
                yield _replica_labels(replica), totals[place]

    return read


def _told(telemetry: Telemetry) -> Iterator[tuple[Replica, EngineReading]]:
    for replica in _own_replicas(telemetry):
        reading = telemetry.readings.get(replica.name)
        if reading is not None:
            yield replica, reading


def _estimated(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for replica in _own_replicas(telemetry):
        estimated = telemetry.gauges_of(replica, now).estimated
        yield (replica.pool.spec.name, replica.name), float(estimated)


def _scrape_age(telemetry: Telemetry, now: float) -> Iterator[Row]:
    for replica in telemetry.fleet.replicas.values():
        if replica.scraped_s is not None:
            yield (replica.pool.spec.name, replica.name), now - replica.scraped_s


def _scrape_failures(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for replica in telemetry.fleet.replicas.values():
        failures = telemetry.scrape_failures.get(replica.name, 0)
        yield (replica.pool.spec.name, replica.name), failures


def _replicas(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for pool in telemetry.fleet.pools.values():
        by_state = Counter(replica.state for replica in pool.replicas.values())
        for state in ReplicaState:
            yield (pool.spec.name, state.value), by_state[state]


def _tokens_per_chunk(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for pool, ratio in telemetry.ratios.items():
        yield (pool,), ratio.value


def _connections(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for kind, count in telemetry.connections().items():
        yield (kind,), count


def _pushes(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for result, count in telemetry.pushes.items():
        yield (result,), count


def _config_reloads(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for result, count in telemetry.config_reloads.items():
        yield (result,), count


def _certificate_reloads(telemetry: Telemetry, _now: float) -> Iterator[Row]:
    for result, count in telemetry.certificate_reloads.items():
        yield (result,), count


# ---------------------------------------------------------------- the table

_SERIES = ("model_id", "pool", "replica")
_REPLICA = ("pool", "replica")

METRICS: tuple[Metric, ...] = (
    Metric(
        "llm_ttft_seconds",
        "histogram",
        _SERIES,
        "Request received to first non-empty content, reasoning or tool-call delta sent on; "
        "streamed requests only, and no transcriptions, whose prompts are seconds of audio.",
        _distribution(lambda series: series.ttft),
    ),
    Metric(
        "llm_tpot_seconds",
        "histogram",
        _SERIES,
        "(last - first content) / (output tokens - 1) of a completed stream, the tokens as its "
        "engine counted them; of several choices (n) side by side, those of one. Not of "
        "transcriptions, as in llm_ttft_seconds.",
        _distribution(lambda series: series.tpot),
    ),
    Metric(
        "llm_itl_seconds",
        "histogram",
        _SERIES,
        "Gap between two content chunks of a stream as sent on. Per chunk, not per token: a chunk "
        "may hold several tokens. Not of several choices (n), whose chunks come in turns.",
        _distribution(lambda series: series.itl),
    ),
    Metric(
        "llm_ttft_p95_seconds",
        "gauge",
        _SERIES,
        "95th percentile of TTFT in the last minute, within 1 %, of external pools within their "
        "engines' buckets. Absent without a sample.",
        _ttft_p95,
    ),
    Metric(
        "llm_tpot_p95_seconds",
        "gauge",
        _SERIES,
        "95th percentile of TPOT in the last minute, within 1 %, of external pools within their "
        "engines' buckets. Absent without a sample.",
        _tpot_p95,
    ),
    Metric(
        "llm_kv_cache_usage_ratio",
        "gauge",
        _SERIES,
        "KV cache that running requests hold, 0 to 1.",
        _kv_usage,
    ),
    Metric(
        "llm_kv_exhaustion_seconds",
        "gauge",
        _SERIES,
        "Time until the KV cache is full if usage goes on growing as in the last 20 scrapes, +Inf "
        "if it does not grow. Absent without a fresh scrape that tells usage.",
        _kv_exhaustion,
    ),
    Metric(
        "llm_queue_depth",
        "gauge",
        _SERIES,
        "Requests waiting in the engine, and, with an empty replica, held at this gateway.",
        _queue_depth,
    ),
    Metric("llm_requests_running", "gauge", _SERIES, "Requests in the engine's batch.", _running),
    Metric(
        "llm_tokens_per_second",
        "gauge",
        _SERIES,
        "Output tokens per second, mean of the last ten seconds.",
        _tokens_per_second,
    ),
    Metric(
        "llm_tokens_processed_total",
        "counter",
        (*_SERIES, "token_type"),
        "Tokens by token_type: output while it streams, input when the request ends; both settled "
        "by the engine's usage. Input includes cached tokens.",
        _tokens_processed,
    ),
    Metric(
        "llm_cached_input_tokens_total",
        "counter",
        _SERIES,
        "Input tokens that the engine took from its prefix cache, where it tells.",
        _per_series(lambda series: series.cached_tokens),
    ),
    Metric(
        "llm_prefix_query_tokens_total",
        "counter",
        _SERIES,
        "Prompt tokens that the engine looked for in its prefix cache, as it counts them, whoever "
        "sent them; it begins at 0 with the engine. Absent where it tells none.",
        _prefix_tokens(0),
    ),
    Metric(
        "llm_prefix_hit_tokens_total",
        "counter",
        _SERIES,
        "Those of them that it found there: the rate of this over that of "
        "llm_prefix_query_tokens_total is its hit rate.",
        _prefix_tokens(1),
    ),
    Metric(
        "llm_preemptions_total",
        "counter",
        _SERIES,
        "Running requests that the engine threw back into its queue for want of KV cache, since it "
        "started. Absent where it tells none.",
        _preemptions,
    ),
    Metric(
        "headrace_requests_total",
        "counter",
        (*_SERIES, "endpoint", "outcome"),
        "Dispatched requests by how they ended; each request once.",
        _requests,
    ),
    Metric(
        "headrace_retries_total",
        "counter",
        (*_SERIES, "outcome"),
        "Attempts that were followed by another one, by how they ended.",
        _retries,
    ),
    Metric(
        "headrace_rejects_total",
        "counter",
        ("model_id", "reason"),
        "Requests that the gateway itself answered with an error. model_id is the model that they "
        "were sent to last, or would have been; empty where nothing serves what was asked for.",
        _rejects,
    ),
    Metric(
        "headrace_held_seconds",
        "histogram",
        ("model_id", "tier", "result"),
        "How long requests waited at this gateway for a replica with room, by what came of it: "
        "dispatched, rejected or left by the client. Requests that did not wait are not in it. "
        "model_id as in headrace_rejects_total.",
        _held_times,
    ),
    Metric(
        "headrace_decisions_total",
        "counter",
        _SERIES,
        "Attempts that routing sent here.",
        _per_series(lambda series: series.dispatched),
    ),
    Metric(
        "headrace_requests_in_flight",
        "gauge",
        _SERIES,
        "Attempts running now, of this gateway.",
        _per_series(lambda series: series.in_flight),
    ),
    Metric(
        "headrace_aborted_output_tokens_total",
        "counter",
        _SERIES,
        "Output tokens of requests that did not complete; part of llm_tokens_processed_total.",
        _per_series(lambda series: series.aborted_output_tokens),
    ),
    Metric(
        "headrace_usage_missing_total",
        "counter",
        (*_SERIES, "endpoint"),
        "Completed requests whose engine told no usage, or one that cannot be true; their tokens"
        " are estimates. With the endpoint `other`: transcriptions that told none, or seconds of"
        " audio; they count as no tokens.",
        _usage_missing,
    ),
    Metric(
        "headrace_token_debt_tokens",
        "gauge",
        _SERIES,
        "Output tokens counted too early, to be taken off the next ones.",
        _per_series(lambda series: series.output_tokens.debt),
    ),
    Metric(
        "headrace_tokens_per_chunk_ratio",
        "gauge",
        ("pool",),
        "Output tokens per content chunk, learned from completed streams.",
        _tokens_per_chunk,
    ),
    Metric(
        "headrace_connections",
        "gauge",
        ("kind",),
        "Open connections of the gateway: of clients, to engines (busy or idle), of the control"
        " plane; with TLS also those whose handshake is under way.",
        _connections,
    ),
    Metric("headrace_replicas", "gauge", ("pool", "state"), "Replicas by state.", _replicas),
    Metric(
        "headrace_scrape_age_seconds",
        "gauge",
        _REPLICA,
        "Time since the engine's metrics were last read. Absent before the first time.",
        _scrape_age,
    ),
    Metric(
        "headrace_scrape_failures_total",
        "counter",
        _REPLICA,
        "Reads of the engine's metrics that failed.",
        _scrape_failures,
    ),
    Metric(
        "headrace_engine_gauges_estimated",
        "gauge",
        _REPLICA,
        "1 while the engine's gauges are stale, or told none of queue, running and KV usage, and "
        "are replaced by a push or by the gateway's own estimate.",
        _estimated,
    ),
    Metric(
        "headrace_pushes_total",
        "counter",
        ("result",),
        "Reports pushed to /telemetry, by result.",
        _pushes,
    ),
    Metric(
        "headrace_config_reloads_total",
        "counter",
        ("result",),
        "Reloads of the configuration: applied; partial, when something waits for a restart; "
        "refused, when the file is wrong and the old configuration stays.",
        _config_reloads,
    ),
    Metric(
        "headrace_certificate_reloads_total",
        "counter",
        ("result",),
        "Changes of certificate files taken up: applied, or refused and the old ones kept.",
        _certificate_reloads,
    ),
    Metric(
        "headrace_series",
        "gauge",
        (),
        "Combinations of model, pool and replica in memory.",
        lambda telemetry, _now: iter([((), float(len(telemetry.series)))]),
    ),
    Metric(
        "headrace_series_overflow_total",
        "counter",
        (),
        'Times that a combination above the limit was counted under "other".',
        lambda telemetry, _now: iter([((), float(telemetry.series.overflows))]),
    ),
)
