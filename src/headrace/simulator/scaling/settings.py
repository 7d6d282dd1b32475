"""What all scalers of a comparison have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.core.quantities import format_duration
from headrace.engine_model.spec import EngineSpec
from headrace.simulator.settings import Slo

PLAIN_POLICY = "least_requests"
"""Plain on purpose: what scalers are compared on is not the router."""
HOLDING_POLICY = "seconds"
"""Headrace's own, which holds what cannot be served in time."""


@dataclass(frozen=True, slots=True)
class ScalingSimulation:
    """The engine, the promises, and what an order takes.

    Raises:
        ValueError: a number makes no fleet.
    """

    engine: EngineSpec
    """Every replica."""
    slo: Slo = field(default_factory=Slo)
    """What a request must meet."""
    cold_start_s: float = 240.0
    """From ordered to ready, the same for each replica."""
    min_replicas: int = 1
    max_replicas: int = 256
    seed: int = 0
    """Of arrivals and lengths; all scalers see the same ones."""
    sync_s: float = 15.0
    """The HPA's period, and KEDA's polling interval: so often a wish becomes an order."""
    goal: float = 0.99
    """Share of requests that must meet their targets: what the oracle and headrace aim at."""
    policy: str = PLAIN_POLICY
    """How requests are dealt out; as a fluid, one of `fluid_run.POOLS_BEHIND`."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.cold_start_s <= 86_400.0:
            raise ValueError(f"cold-start is {self.cold_start_s:g} s; give 0 to 86400")
        if self.min_replicas < 0:
            raise ValueError(f"min is {self.min_replicas}; give 0 or more")
        if self.max_replicas < 1:
            raise ValueError(f"max is {self.max_replicas}; give 1 or more")
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min {self.min_replicas} is more than --max {self.max_replicas}")
        latency = self.engine.latency
        # What a replica bears at its target, the yardstick of all loads here, would be nothing.
        for name, target_s in (("tpot", self.slo.tpot_s), ("ttft", self.slo.ttft_s)):
            if latency.per_step_s >= target_s:
                step = f"{latency.per_step_s * 1000:.1f} ms"
                raise ValueError(
                    f"slo {name}={format_duration(target_s)}: a step of {latency.name} takes at "
                    f"least {step}, so that no number of replicas meets it; give a higher {name} "
                    "or another --profile"
                )
