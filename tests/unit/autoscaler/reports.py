"""Reports of gateways, made by hand."""

from __future__ import annotations

from dataclasses import replace

from headrace.core.latency import LatencyProfile
from headrace.core.length_counter import sketch_of
from headrace.core.scaling.observation import GatewayReport, Phase, ReplicaObservation
from headrace.core.scaling.report import PoolReport, ScalingReport

PROFILE = LatencyProfile("test", "profile test", 0.006, 2e-5, 1e-9, 2e-5, 3e-8)


def replica(name: str, phase: Phase = Phase.READY, **facts) -> ReplicaObservation:
    known = {"ready_at_s": 10.0} if phase is Phase.READY else {}
    return ReplicaObservation(name, phase, **(known | facts))


def pool_report(
    *replicas: ReplicaObservation, pool: str = "llama", requests: float = 0.0, **facts
) -> PoolReport:
    """A pool whose requests all had 500 prompt tokens and 100 of answer."""
    demand = GatewayReport(
        "itself",
        started_at_s=1.0,
        requests=requests,
        input_tokens=500 * requests,
        uncached_tokens=500 * requests,
        output_tokens=100 * requests,
        lengths=sketch_of([(500, 0, 100)] * int(requests)),
        judged=requests,
    )
    demand = replace(demand, **facts)
    return PoolReport(pool, "model", demand, replicas, latency=PROFILE)


def report(*pools: PoolReport) -> ScalingReport:
    return ScalingReport("itself", 0.0, pools)
