"""What this gateway tells a scaler: demand in totals, its replicas, and what their seconds are.

Nothing here is a rate and nothing is averaged: a scaler that asks twice takes the difference, so
that several scalers, or one that missed a beat, see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import exp

from headrace.core import routing
from headrace.core.decode_pace import DecodePace
from headrace.core.dispatcher import Dispatcher
from headrace.core.latency import LatencyProfile, PoolLatency
from headrace.core.model import Pool, Replica, ReplicaState
from headrace.core.pool_demand import worst
from headrace.core.scaling.observation import GatewayReport, Phase, ReplicaObservation
from headrace.core.scaling.report import PoolReport, ScalingReport
from headrace.gateway.telemetry import Telemetry


@dataclass(slots=True)
class _Life:
    """When a replica came, was ready first and began to idle, by the monotonic clock."""

    url: str
    seen_s: float
    ready_s: float | None = None
    idle_since_s: float | None = None
    last_attempt: int = 0
    pace: DecodePace = field(default_factory=DecodePace)


class ReplicaLives:
    """Remembers of each replica what its state alone does not tell.

    `note` is called when the fleet changes and whenever somebody asks, so idle times are as exact
    as the asking.
    """

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}

    def note(self, replicas: Mapping[str, Replica], now: float) -> None:
        """Look at the fleet; who is not in it is forgotten, who has moved starts anew."""
        for name in [name for name in self._lives if name not in replicas]:
            del self._lives[name]
        for name, replica in replicas.items():
            life = self._lives.get(name)
            if life is None or life.url != replica.url:
                life = self._lives[name] = _Life(replica.url, now)
            if life.ready_s is None and replica.state is ReplicaState.READY:
                life.ready_s = now
            busy = replica.in_flight or replica.last_attempt != life.last_attempt
            life.last_attempt = replica.last_attempt
            if busy:
                life.idle_since_s = None if replica.in_flight else now
            elif life.idle_since_s is None:
                life.idle_since_s = now
            life.pace.note(replica, now)

    def of(self, name: str) -> _Life:
        """What is remembered of a replica that was in the fleet at the last `note`."""
        return self._lives[name]


def _none_is(_pool: str) -> bool:
    return False


class ScalingReporter:
    """Makes the report. `epoch_s` is what turns the monotonic clock into Unix time."""

    def __init__(
        self, dispatcher: Dispatcher, telemetry: Telemetry, *, gateway: str, epoch_s: float
    ) -> None:
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._gateway = gateway
        self._epoch_s = epoch_s
        self._started_s = telemetry.clock() + epoch_s
        self._lives = ReplicaLives()
        self.unlisted: Callable[[str], bool] = _none_is
        """Whether a pool, by its name, may have replicas that nobody has found yet."""

    def note(self) -> None:
        """The fleet has changed."""
        self._lives.note(self._dispatcher.fleet.replicas, self._telemetry.clock())

    def report(self) -> ScalingReport:
        """Everything as of now."""
        self.note()
        now = self._telemetry.clock()
        self._telemetry.flush(now)
        pools = self._dispatcher.fleet.pools.values()
        return ScalingReport(
            self._gateway,
            now + self._epoch_s,
            tuple(self._pool(pool, now) for pool in pools if not self._is_external(pool)),
        )

    def _is_external(self, pool: Pool) -> bool:
        return pool.spec.name in self._telemetry.settings.external_pools

    def _pool(self, pool: Pool, now: float) -> PoolReport:
        reports = [replica.report for replica in pool.replicas.values()]
        capacities = [each.kv_capacity_tokens for each in reports if each.kv_capacity_tokens]
        limits = [each.max_sequences for each in pool.replicas.values() if each.max_sequences]
        return PoolReport(
            pool.spec.name,
            pool.spec.model,
            self._demand(pool, now),
            tuple(self._replica(each, now) for each in pool.replicas.values()),
            latency=_corrected(pool.latency),
            kv_capacity_tokens=max(capacities, default=None),
            max_sequences=max(limits, default=None),
            replicas_known=not self.unlisted(pool.spec.name),
        )

    def _demand(self, pool: Pool, now: float) -> GatewayReport:
        told, held = pool.demand, []
        if self._dispatcher.first_pool(pool.spec.model) is pool:  # what is held is in no pool yet
            held = self._dispatcher.held_requests(pool.spec.model)
        return GatewayReport(
            gateway=self._gateway,
            started_at_s=self._started_s,
            reported_at_s=now + self._epoch_s,
            requests=told.requests,
            input_tokens=told.input_tokens,
            uncached_tokens=told.uncached_tokens,
            output_tokens=told.output_tokens,
            lengths=told.lengths.sketch(),
            judged=told.judged,
            ttft_misses=told.ttft_misses,
            tpot_misses=told.tpot_misses,
            other_misses=told.other_misses,
            ttft_worst_ratio=worst(told.ttft_recent, now),
            tpot_worst_ratio=worst(told.tpot_recent, now),
            held_requests=len(held),
            held_input_tokens=sum(routing.ask_of(each, pool, "").prompt_tokens for each in held),
            shed_requests=told.shed_requests,
            refused_requests=told.refused_requests,
            refused_input_tokens=told.refused_input_tokens,
        )

    def _replica(self, replica: Replica, now: float) -> ReplicaObservation:
        life, report = self._lives.of(replica.name), replica.report
        idle_s, ready_s = life.idle_since_s, life.ready_s
        phase = _phase(replica, life)
        return ReplicaObservation(
            replica.name,
            phase,
            # We saw it come, and do not know who ordered it when: it may have run for days. Until
            # it is ready, that is how long it has been starting at least.
            ordered_at_s=life.seen_s + self._epoch_s if phase is Phase.STARTING else 0.0,
            ready_at_s=None if ready_s is None else ready_s + self._epoch_s,
            idle_since_s=None if idle_s is None else idle_s + self._epoch_s,
            measured_age_s=None if replica.scraped_s is None else now - replica.scraped_s,
            queue_depth=report.queue_depth,
            waiting_prefill_tokens=replica.backlog_tokens,
            running=report.running,
            kv_usage_ratio=self._telemetry.gauges_of(replica, now).kv_usage_ratio,
            memory_bandwidth_ratio=self._telemetry.memory_bandwidth_of(replica.name, now),
            decode_step_s=life.pace.step_s,
            decoding_context_tokens=life.pace.context_tokens,
        )


def _phase(replica: Replica, life: _Life) -> Phase:
    if replica.state is ReplicaState.DRAINING:
        return Phase.DRAINING
    if replica.state is ReplicaState.READY:
        return Phase.READY
    return Phase.STARTING if life.ready_s is None else Phase.FAILING


def _corrected(latency: PoolLatency) -> LatencyProfile | None:
    """The prior with what all replicas of the pool have in common: decoding by one factor, the
    terms of prefill alone by the other.
    """
    profile = latency.profile
    if profile is None:
        return None
    prefill, decode = exp(latency.prefill.log_ratio), exp(latency.decode.log_ratio)
    return replace(
        profile,
        per_step_s=profile.per_step_s * decode,
        per_sequence_s=profile.per_sequence_s * decode,
        per_kv_token_s=profile.per_kv_token_s * decode,
        per_prefill_token_s=profile.per_prefill_token_s * prefill,
        per_attended_token_s=profile.per_attended_token_s * prefill,
    )
