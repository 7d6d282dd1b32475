"""What a scaler is told at a tick: what each gateway counted and how each replica is.

Counts are totals since a gateway's start, never rates: who misses a tick has lost nothing, two
scalers that look at different moments agree, and a restart shows. Whoever measures says when;
nobody's clock is trusted over the scaler's own (`at_s` of the observation).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from headrace.core.length_sketch import LengthSketch


class Phase(StrEnum):
    """Where a replica is in its life. All but draining and standby ones count as ordered."""

    STARTING = "starting"
    """Ordered, not ready: scheduling, pulling, loading."""
    UNSCHEDULABLE = "unschedulable"
    """Ordered, and the platform says it has no place for it."""
    READY = "ready"
    """Takes requests."""
    FAILING = "failing"
    """Was ready and answers no more."""
    DRAINING = "draining"
    """Takes nothing new; goes when its last stream has ended."""
    STANDBY = "standby"
    """Started, and kept out of the way: a process that is loaded, or an engine that sleeps. Ready
    as soon as it is woken."""


@dataclass(frozen=True, slots=True)
class ReplicaObservation:
    """One replica. What its engine does not tell is None.

    `ordered_at_s` and `ready_at_s` are on the observation's clock; their difference is a cold
    start. Ordered at 0: nobody knows when. `measured_age_s` is how old the engine's figures are,
    None if there are none.
    """

    name: str
    phase: Phase
    ordered_at_s: float = 0.0
    ready_at_s: float | None = None
    idle_since_s: float | None = None
    """Since when it has nothing to do; None while it has."""
    measured_age_s: float | None = None
    queue_depth: float | None = None
    """Requests that wait in the engine."""
    waiting_prefill_tokens: float | None = None
    """Uncached prompt tokens that were sent there and have no first token yet."""
    running: float | None = None
    kv_usage_ratio: float | None = None
    """Share of its KV cache that running requests hold, 0 to 1."""
    memory_bandwidth_ratio: float | None = None
    """DCGM's `DCGM_FI_PROF_DRAM_ACTIVE`, where it is scraped."""
    decode_step_s: float | None = None
    """Seconds from token to token of the streams that decode there, in the last minute or so."""
    decoding_context_tokens: float | None = None
    """KV tokens that its decoding sequences attended to meanwhile, in the mean over time."""
    cache_value_s: float | None = None
    """Seconds of prefill that its prefix cache is expected to save: what removing it would cost."""


@dataclass(slots=True)
class StandbyWakes:
    """What became of standby replicas that were woken, since the start."""

    joined: int = 0
    failed: int = 0
    """Ended instead, for they did not wake."""
    last_s: float = 0.0
    """How long the last one that joined took."""


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """Totals of one gateway since `started_at_s`, of one pool. All of them only grow.

    `age_s` is how long ago they were true, by the scaler's clock; `reported_at_s` is the gateway's
    own word for it, of use only to see that its clock is off. Requests count when they arrive,
    lengths when they end.
    """

    gateway: str
    started_at_s: float
    age_s: float = 0.0
    reported_at_s: float | None = None
    requests: float = 0.0
    """Arrived, without those shed. In it are those that engines refused later."""
    input_tokens: float = 0.0
    """Prompt tokens of these, as estimated on arrival."""
    uncached_tokens: float = 0.0
    """Of them, not expected in any cache."""
    output_tokens: float = 0.0
    """Generated so far, counted while they stream."""
    lengths: LengthSketch = field(default_factory=LengthSketch)
    """Of requests that have ended."""
    judged: float = 0.0
    """Requests that were judged by their targets."""
    ttft_misses: float = 0.0
    """Of them, whose first token was late because of load."""
    tpot_misses: float = 0.0
    """Of them, whose tokens were slow because of load."""
    other_misses: float = 0.0
    """Missed for another reason: a dead replica, a broken stream. No scaler can help these."""
    ttft_worst_ratio: float = 0.0
    """p90 of TTFT over its target in the last minute; 0 if nothing ended. No total."""
    tpot_worst_ratio: float = 0.0
    """p90 of TPOT over its target in the last minute; 0 if nothing ended. No total."""
    held_requests: float = 0.0
    """Waiting at the gateway now. No total."""
    held_input_tokens: float = 0.0
    """Prompt tokens of these. No total."""
    shed_requests: float = 0.0
    """Refused because there was no capacity (429, 503): demand too."""
    refused_requests: float = 0.0
    """Of `requests`, those that engines refused for faults of their own (4xx): no demand, for an
    engine does not work on them."""
    refused_input_tokens: float = 0.0
    """Of `input_tokens`, those of these."""

    @property
    def served_requests(self) -> float:
        """What engines had to work on, or will have: that much of `requests` is demand."""
        return max(self.requests - self.refused_requests, 0.0)

    @property
    def served_input_tokens(self) -> float:
        """Prompt tokens of these, as estimated on arrival."""
        return max(self.input_tokens - self.refused_input_tokens, 0.0)


@dataclass(frozen=True, slots=True)
class PoolObservation:
    """A pool at `at_s`, the scaler's clock.

    `expected_gateways` names all that should report; one that is missing from `gateways`, or whose
    report is old, leaves its part of the demand unknown. Empty: whoever reports is all.
    `replicas_known` is false when the list of replicas could not be read.
    """

    at_s: float
    pool: str
    replicas: tuple[ReplicaObservation, ...] = ()
    gateways: tuple[GatewayReport, ...] = ()
    expected_gateways: tuple[str, ...] = ()
    replicas_known: bool = True
    refused_order: str = ""
    """What the platform said to the last order, if it refused it."""
    gpus_available: float | None = None
    """GPUs this pool may use in all, by the shared budget; None: no limit."""
