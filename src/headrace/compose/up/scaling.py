"""The scaler of `headrace up --scale`: a small machine's pace instead of a cluster's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.autoscaler.app import scaler_routes
from headrace.autoscaler.metrics import ScalingCollector
from headrace.autoscaler.ports import Actuator
from headrace.autoscaler.settings import PoolScaling, ScalingSection
from headrace.autoscaler.sources import OwnSource
from headrace.compose.process.terminal import Terminal
from headrace.compose.serving.scaler import ScalerHost
from headrace.compose.serving.wiring import Gateway
from headrace.core.latency import LatencyProfile
from headrace.core.scaling.settings import ScalingTarget

TICK_S = 1.0
COLD_START_S = 3.0
"""Of a small model, as long as none was measured."""
SCALE_DOWN_WINDOW_S = 45.0
IDLE_TO_ZERO_S = 90.0
WAIT_FOR_REPLICA_S = 120.0
"""A request at zero replicas is held for so long."""
_TPOT_STEPS = 3.0
_TPOT_S = 0.05


@dataclass(frozen=True, slots=True)
class ScaleRange:
    """`--scale LEAST:MOST` and `--standby`."""

    least: int
    most: int
    standby: int = 0


def up_scaler(
    scale: ScaleRange,
    pool: str,
    fleet: Actuator,
    gateway: Gateway,
    terminal: Terminal,
) -> ScalerHost:
    """The scaler, shown on the gateway's control plane. Made before the gateway starts."""
    section = ScalingSection(
        pools={
            pool: PoolScaling(
                min_replicas=scale.least,
                max_replicas=scale.most,
                warm_replicas=max(1, scale.least),
                standby_replicas=scale.standby,
                tick_s=TICK_S,
                cold_start_s=COLD_START_S,
                scale_down_window_s=SCALE_DOWN_WINDOW_S,
                idle_to_zero_s=IDLE_TO_ZERO_S,
            )
        }
    )
    source = OwnSource(gateway.scaling_report)
    host = ScalerHost(section, Path(), [source], {pool: fleet}, terminal)
    gateway.shown_too.extend(scaler_routes(host.autoscaler))
    gateway.telemetry.collectors.append(ScalingCollector(host.autoscaler))
    return host


def attainable(profile: LatencyProfile | None) -> ScalingTarget:
    """The default targets, with a TPOT that this machine can keep at all."""
    if profile is None:
        return ScalingTarget()
    return ScalingTarget(tpot_s=max(_TPOT_S, _TPOT_STEPS * profile.step_s(1, 500)))
