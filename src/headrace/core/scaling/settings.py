"""What the scaler of a pool may be tuned in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from headrace.core.latency import LatencyProfile


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What one replica can do: its latency profile and its engine's limits.

    The same numbers as `engine_model.EngineSpec`, which the core cannot import.
    """

    latency: LatencyProfile
    kv_capacity_tokens: float
    max_sequences: int = 256
    max_batched_tokens: int = 8192
    gpus: int = 1
    memory_bytes_per_s: float = 0.0
    """Peak memory bandwidth of all its GPUs; 0: not known, so bandwidth is no signal."""
    weight_bytes_per_step: float = 0.0
    """Bytes of weights that a step reads."""
    kv_bytes_per_token: float = 0.0
    """Bytes of KV cache behind one token."""

    def priced_by(self, latency: LatencyProfile) -> EngineFigures:
        """The same engine by another profile, which tells of its memory too or does not."""
        return replace(
            self,
            latency=latency,
            memory_bytes_per_s=latency.memory_bytes_per_s,
            weight_bytes_per_step=latency.weight_bytes_per_step,
            kv_bytes_per_token=latency.kv_bytes_per_token,
        )


@dataclass(frozen=True, slots=True)
class ScalingTarget:
    """What requests are promised, and for how many of them it must hold."""

    ttft_s: float = field(default=2.0, metadata={"above": 0})
    """Time to first token."""
    tpot_s: float = field(default=0.05, metadata={"above": 0})
    """Time per output token."""
    attainment: float = field(default=0.99, metadata={"above": 0, "below": 1})
    """Share of requests that must meet both."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """How long a replica takes from ordered to ready before any was measured.

    (image_bytes + weight_bytes) / storage_bytes_per_s + initialisation_s
    """

    image_bytes: float = 12e9
    weight_bytes: float = 16e9
    storage_bytes_per_s: float = 0.5e9
    initialisation_s: float = 60.0

    @property
    def expected_s(self) -> float:
        """Seconds by these figures."""
        read_s = (self.image_bytes + self.weight_bytes) / self.storage_bytes_per_s
        return read_s + self.initialisation_s


@dataclass(frozen=True, slots=True)
class ScheduledFloor:
    """At least so many replicas from one moment to another: a line of a calendar, expanded."""

    begins_s: float
    ends_s: float
    replicas: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """How one pool is scaled."""

    min_replicas: int = 1
    """Never fewer, whatever is known or not; 0 allows scaling to zero."""
    max_replicas: int = 64
    """Never more."""
    warm_replicas: int = 2
    """Never fewer while there was demand within `idle_to_zero_s`."""
    standby_replicas: int = 0
    """Replicas kept beside them, loaded and out of the way: they join as soon as they are wanted.
    They take GPUs of a shared budget too, those that are left."""
    target: ScalingTarget = field(default_factory=ScalingTarget)
    """What must be met."""
    kv_target: float = field(default=0.75, metadata={"above": 0, "maximum": 1})
    """KV occupancy aimed at: above it engines begin to preempt."""
    tick_s: float = field(default=15.0, metadata={"above": 0, "maximum": 120})
    """How often it is decided: rates are over half a minute to five."""
    cold_start: ColdStart = field(default_factory=ColdStart)
    """Ordered to ready, before any was measured."""
    drain_s: float = 60.0
    """Ready to gone, before any was measured."""
    idle_to_zero_s: float = 900.0
    """Without any request for so long, a pool whose `min_replicas` is 0 goes to zero; its last
    replica stays until then. It counts from when rates are 0, half a minute after the last one."""
    stale_s: float = field(default=60.0, metadata={"above": 0})
    """Figures older than this are taken for missing."""
    scale_down_window_s: float = 60.0
    """The number goes down to the highest wish of so long, at the earliest."""
    group_replicas: int = field(default=1, metadata={"minimum": 1})
    """Replicas are ordered and removed in whole groups of so many."""
    schedule: tuple[ScheduledFloor, ...] = ()
    """Floors known in advance."""
