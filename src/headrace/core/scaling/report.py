"""What one gateway tells a scaler, of all its pools: the message behind `/api/v1/scaling`."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core.latency import LatencyProfile
from headrace.core.scaling.observation import GatewayReport, ReplicaObservation


@dataclass(frozen=True, slots=True)
class PoolReport:
    """One pool as a gateway sees it. Times are Unix seconds by the gateway's clock.

    `latency` is the profile that its router believes now, corrected by what it measured; None
    before one is learned. The largest figures that any replica told are `kv_capacity_tokens` and
    `max_sequences`.
    """

    pool: str
    model: str
    demand: GatewayReport
    replicas: tuple[ReplicaObservation, ...] = ()
    latency: LatencyProfile | None = None
    kv_capacity_tokens: float | None = None
    max_sequences: float | None = None
    replicas_known: bool = True
    """False while there may be replicas that the gateway has not found, as before its first answer
    from DNS."""


@dataclass(frozen=True, slots=True)
class ScalingReport:
    """All pools of one gateway, at `reported_at_s` of its clock."""

    gateway: str
    reported_at_s: float
    pools: tuple[PoolReport, ...] = ()
