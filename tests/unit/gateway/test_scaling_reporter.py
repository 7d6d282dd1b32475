"""What a scaler is told by a gateway."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from headrace.core.events import ConfigChanged, ReplicaChanged
from headrace.core.scaling.observation import Phase
from headrace.core.scaling.report import ScalingReport
from headrace.gateway.scaling_reporter import ScalingReporter
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.unit.core.driver import POOL, Driver

EPOCH_S = 1_700_000_000.0
SCALED = replace(POOL, wait_for_replica_s=300.0)


class Gateway:
    """The core, driven by hand, with the view of it."""

    def __init__(self) -> None:
        self.core = Driver(SCALED)
        self.telemetry = Telemetry(
            TelemetrySettings(), lambda: self.core.now, self.core.dispatcher.fleet
        )
        self.reporter = ScalingReporter(
            self.core.dispatcher, self.telemetry, gateway="here", epoch_s=EPOCH_S
        )

    def add(self, name: str, *, ready: bool = True, draining: bool = False) -> None:
        self.core.add(name, ready=ready, draining=draining)
        self.reporter.note()

    def pool(self):
        [pool] = self.reporter.report().pools
        return pool

    def replica(self, name: str):
        return next(each for each in self.pool().replicas if each.name == name)


def test_it_says_the_same_after_a_way_through_json():
    here = Gateway()
    here.add("r1")
    here.core.serve()
    report = here.reporter.report()
    assert msgspec.json.decode(msgspec.json.encode(report), type=ScalingReport) == report
    assert report.reported_at_s == here.core.now + EPOCH_S


def test_totals_outlive_the_replicas_they_were_made_with():
    here = Gateway()
    here.add("r1")
    here.core.serve()
    here.core.gone("r1")
    told = here.pool().demand
    assert (told.requests, told.output_tokens, told.judged) == (1, 100, 1)
    assert told.lengths.requests == 1
    assert here.pool().replicas == ()


def test_output_tokens_count_while_they_stream_and_end_at_the_engines_count():
    here = Gateway()
    here.add("r1")
    attempt = here.core.dispatched().attempt
    here.core.first_token(attempt)
    here.core.progress(attempt, 30)
    assert here.pool().demand.output_tokens == 30
    here.core.complete(attempt, output_tokens=75)
    assert here.pool().demand.output_tokens == 75


def test_what_is_held_is_told_at_zero_replicas():
    here = Gateway()
    here.core.arrive(prompt_tokens=700)
    told = here.pool().demand
    assert (told.held_requests, told.held_input_tokens, told.requests) == (1, 700, 1)
    here.add("r1")
    assert here.pool().demand.held_requests == 0


def test_a_replicas_life():
    here = Gateway()
    here.add("r1", ready=False)
    ordered = EPOCH_S + here.core.now
    told = here.replica("r1")
    assert (told.phase, told.ordered_at_s) == (Phase.STARTING, ordered)
    here.core.wait(12.0)
    here.add("r1")
    told = here.replica("r1")
    assert told.phase is Phase.READY
    # It may have been ordered long before it was seen: 12 s are no cold start.
    assert (told.ordered_at_s, told.ready_at_s) == (0.0, ordered + 12.0)
    assert told.idle_since_s == ordered  # nothing was ever sent there

    attempt = here.core.dispatched().attempt
    assert here.replica("r1").idle_since_s is None
    here.core.wait(1.0)
    here.core.complete(attempt)
    assert here.replica("r1").idle_since_s == EPOCH_S + here.core.now
    here.core.wait(30.0)
    assert here.replica("r1").idle_since_s == EPOCH_S + here.core.now - 30.0
    here.core.serve()  # between two looks
    assert here.replica("r1").idle_since_s == EPOCH_S + here.core.now

    here.add("r1", ready=False)
    assert here.replica("r1").phase is Phase.FAILING
    here.add("r1", draining=True)
    assert here.replica("r1").phase is Phase.DRAINING


def test_a_replica_that_moved_starts_anew():
    here = Gateway()
    here.add("r1")
    here.core.wait(100.0)
    here.core.send(ReplicaChanged("r1", "pool", "http://elsewhere", ready=False))
    here.reporter.note()
    told = here.replica("r1")
    assert (told.phase, told.ordered_at_s) == (Phase.STARTING, EPOCH_S + here.core.now)


def test_latency_is_the_profile_as_corrected():
    here = Gateway()
    here.add("r1")
    assert here.pool().latency == SCALED.profile
    for _ in range(60):
        here.core.serve(prefill_s=0.2)  # slower than the profile says
    corrected = here.pool().latency
    assert SCALED.profile is not None
    assert corrected is not None
    assert corrected.per_prefill_token_s > 1.5 * SCALED.profile.per_prefill_token_s


def test_engines_limits_are_told_where_any_replica_told_them():
    here = Gateway()
    here.add("r1")
    assert here.pool().max_sequences is None
    here.core.scrape("r1", kv_capacity_tokens=40_000.0, max_sequences=8.0)
    assert (here.pool().kv_capacity_tokens, here.pool().max_sequences) == (40_000.0, 8.0)
    assert here.replica("r1").measured_age_s == pytest.approx(0.0)
    # As is what was learned of one that does not tell.
    here.add("r2")
    here.core.replica("r2").max_sequences = 16.0
    assert here.pool().max_sequences == 16.0


def test_external_pools_are_not_told():
    here = Gateway()
    here.core.send(ConfigChanged((SCALED, replace(SCALED, name="external")), ()))
    here.telemetry.configure(TelemetrySettings(external_pools=frozenset({"external"})))
    assert [pool.pool for pool in here.reporter.report().pools] == ["pool"]
