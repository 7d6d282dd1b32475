"""What a simulation may be tuned in."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.engine_model.spec import EngineSpec


@dataclass(frozen=True, slots=True)
class Slo:
    """What a request must meet to count as goodput; both, where it has both."""

    ttft_s: float = 2.0
    """Arrival to first token, in seconds."""
    tpot_s: float = 0.05
    """Mean seconds per output token after the first; answers of one token have none to meet."""


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """The fleet, what the gateway sees of it, and how results are judged."""

    engine: EngineSpec
    """Every replica, and what the policy believes of it."""
    replicas: int = 8
    """How many there are."""
    slo: Slo = field(default_factory=Slo)
    """What goodput means."""
    scrape_lag_s: float = 1.0
    """A scraped metric, when it is told, is how the engine was this long ago; it stands until the
    next one, so that what a policy sees is up to `scrape_period_s` older."""
    scrape_period_s: float = 1.0
    """Each replica is scraped once in so many seconds, all of them evenly spread over it."""
    progress_period_s: float = 1.0
    """How often running streams report their tokens to the core. The gateway does so every 0.25 s;
    a longer period changes little and saves much time."""
    network_s: float = 0.0
    """One way between gateway and engine."""
    mismatch: float = 0.0
    """Each coefficient of each engine is off by a factor within 1 ± this; the policy believes the
    plain profile."""
    kv_events: bool = False
    """The prefix index follows KV events of the engines instead of the gateway's own dispatches."""
    hold_above_s: float = 0.35
    """See `AdmissionSettings`."""
    seed: int = 0
    """Of everything random: mismatch, and the choices of policies."""
    drain_limit_s: float = 3600.0
    """So long after the last arrival the run ends; what is still open then is unfinished."""

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas is {self.replicas}; give 1 or more")
        if not 0.0 <= self.mismatch < 1.0:
            raise ValueError(f"mismatch is {self.mismatch:g}; give 0 or more, below 1")
        for name in ("scrape_lag_s", "network_s", "drain_limit_s"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} is {getattr(self, name):g}; give 0 or more seconds")
        for name in ("scrape_period_s", "progress_period_s"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} is {getattr(self, name):g}; give more than 0 seconds")
