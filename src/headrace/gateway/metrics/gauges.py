"""An engine's gauges from the best source: a fresh scrape, else a fresh push, else our own.

Of an external replica we have none of our own: its requests do not pass here. What it told last,
or had pushed, stands in for it, since nothing at all would look like an idle engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from headrace.core.model import EngineReport, Replica
from headrace.gateway.metrics.external import PushedReport


@dataclass(frozen=True, slots=True)
class PushedGauges:
    """The latest pushed gauges of a replica and when each came, in seconds of `now`."""

    kv_usage_ratio: float = 0.0
    kv_pushed_s: float | None = None
    queue_depth: float = 0.0
    queue_pushed_s: float | None = None

    def updated(self, report: PushedReport, now: float) -> PushedGauges:
        """With what this report brings."""
        new = self
        if report.kv_usage_ratio is not None:
            new = replace(new, kv_usage_ratio=report.kv_usage_ratio, kv_pushed_s=now)
        if report.queue_depth is not None:
            new = replace(new, queue_depth=report.queue_depth, queue_pushed_s=now)
        return new


class EngineGauges(NamedTuple):
    """What is exported for a replica.

    0 of an external replica may stand for nothing at all, see `was_told`.
    `kv_usage_ratio` is None only where the size of the KV cache was never known, or where the
    usage of an external replica was not. `estimated` says that the scrape is stale, missing or
    told none of these, so that the figures are not the engine's own, or not those of now.
    """

    queue_depth: float
    running: float
    kv_usage_ratio: float | None
    estimated: bool


class WasTold(NamedTuple):
    """Whether there is anything to export, not 0 for a queue that nobody has ever told."""

    queue_depth: bool
    running: bool


def was_told(replica: Replica, pushed: PushedGauges | None, *, external: bool) -> WasTold:
    """Of a replica whose requests pass here the gateway knows both by itself."""
    last = replica.report
    queue_pushed = pushed is not None and pushed.queue_pushed_s is not None
    return WasTold(
        queue_depth=not external or last.queue_depth is not None or queue_pushed,
        running=not external or last.running is not None,
    )


def engine_gauges(
    replica: Replica,
    pushed: PushedGauges | None,
    now: float,
    stale_after_s: float,
    *,
    external: bool = False,
) -> EngineGauges:
    """The gauges of a replica; each fact from the first source that has it."""
    fresh = _is_fresh(replica.scraped_s, now, stale_after_s)
    report = replica.report if fresh else EngineReport()
    queue, running, kv = report.queue_depth, report.running, report.kv_usage_ratio
    told = queue is not None or running is not None or kv is not None
    if pushed is not None:
        if queue is None and _is_fresh(pushed.queue_pushed_s, now, stale_after_s):
            queue = pushed.queue_depth
        if kv is None and _is_fresh(pushed.kv_pushed_s, now, stale_after_s):
            kv = pushed.kv_usage_ratio
    if external:
        return _as_told(replica, pushed or PushedGauges(), queue, running, kv, estimated=not told)
    most = replica.max_sequences
    running_here = replica.in_flight if most is None else min(replica.in_flight, most)
    return EngineGauges(
        queue_depth=replica.in_flight - running_here if queue is None else queue,
        running=running_here if running is None else running,
        kv_usage_ratio=_estimate_kv(replica) if kv is None else kv,
        estimated=not told,
    )


def _as_told(
    replica: Replica,
    pushed: PushedGauges,
    queue: float | None,
    running: float | None,
    kv: float | None,
    *,
    estimated: bool,
) -> EngineGauges:
    """What is known now, else what was told or pushed last."""
    last, at_s = replica.report, replica.scraped_s
    if queue is None:
        queue = _later(last.queue_depth, at_s, pushed.queue_depth, pushed.queue_pushed_s)
    if kv is None:
        kv = _later(last.kv_usage_ratio, at_s, pushed.kv_usage_ratio, pushed.kv_pushed_s)
    return EngineGauges(
        queue_depth=queue or 0.0,
        running=(last.running or 0.0) if running is None else running,
        kv_usage_ratio=kv,
        estimated=estimated,
    )


def _later(
    told: float | None, told_s: float | None, pushed: float, pushed_s: float | None
) -> float | None:
    """The one that came later, of those that came."""
    if pushed_s is not None and (told is None or told_s is None or pushed_s > told_s):
        return pushed
    return told


def _is_fresh(seen_s: float | None, now: float, stale_after_s: float) -> bool:
    return seen_s is not None and now - seen_s <= stale_after_s


def _estimate_kv(replica: Replica) -> float | None:
    """Our requests' tokens there over the capacity last told; else the last ratio told."""
    capacity = replica.report.kv_capacity_tokens
    if not capacity:
        return replica.report.kv_usage_ratio
    return min(replica.context_tokens / capacity, 1.0)
