"""The fleet as the control plane shows it: plain values for JSON."""

from __future__ import annotations

from headrace.core.model import Pool, Replica
from headrace.gateway.telemetry import Telemetry

View = dict[str, object]


def view_fleet(telemetry: Telemetry, now: float) -> View:
    """Pools with their replicas, and aliases. Seconds and tokens; `scrape_age_s` is null before
    the first scrape, `last_error` and its age while nothing went wrong, `max_sequences` while
    nobody knows it.
    """
    fleet = telemetry.fleet
    return {
        "pools": [_view_pool(pool, telemetry, now) for pool in fleet.pools.values()],
        "aliases": [
            {
                "name": alias.name,
                "targets": [
                    {"model": target.model, "weight": target.weight} for target in alias.targets
                ],
                "fallbacks": list(alias.fallbacks),
            }
            for alias in fleet.aliases.values()
        ],
    }


def _view_pool(pool: Pool, telemetry: Telemetry, now: float) -> View:
    return {
        "name": pool.spec.name,
        "model": pool.spec.model,
        "role": pool.spec.role.value,
        "policy": pool.spec.policy,
        "latency_source": pool.latency.source,
        "bytes_per_token": pool.bytes_per_token,
        "output_tokens_mean": pool.output_tokens_mean,
        "replicas": [_view_replica(each, telemetry, now) for each in pool.replicas.values()],
    }


def _view_replica(replica: Replica, telemetry: Telemetry, now: float) -> View:
    gauges, told = telemetry.gauges_of(replica, now), telemetry.was_told(replica)
    trouble = telemetry.troubles.last(replica.name)
    return {
        "name": replica.name,
        "url": replica.url,
        "state": replica.state.value,
        "traffic": "external" if telemetry.is_external(replica) else "relayed",
        "in_flight": replica.in_flight,
        "decoding": replica.decoding,
        "backlog_tokens": replica.backlog_tokens,
        "context_tokens": replica.context_tokens,
        "queue_depth": gauges.queue_depth if told.queue_depth else None,
        "running": gauges.running if told.running else None,
        "kv_usage_ratio": gauges.kv_usage_ratio,
        "kv_capacity_tokens": replica.report.kv_capacity_tokens,
        "max_sequences": replica.max_sequences,
        "max_sequences_learned": _is_learned(replica),
        "gauges_estimated": gauges.estimated,
        "scrape_age_s": None if replica.scraped_s is None else now - replica.scraped_s,
        "adapters": sorted(replica.adapters),
        "max_context_tokens": replica.max_context_tokens,
        "ejections": replica.ejections,
        "last_error": None if trouble is None else trouble.reason,
        "last_error_age_s": None if trouble is None else now - trouble.at_s,
    }


def _is_learned(replica: Replica) -> bool:
    """Whether its engine does not tell how many sequences it runs side by side, yet it is known."""
    return replica.max_sequences is not None and replica.report.max_sequences is None
