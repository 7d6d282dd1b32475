"""What a scaler is told of a pool: every request once, and only load's misses as load's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.events import Dispatch
from headrace.core.model import Outcome
from headrace.core.pool_demand import PoolDemand, recent_ratios, worst
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Target
from tests.unit.core.driver import POOL, Driver, chain


def demand(core: Driver) -> PoolDemand:
    return core.dispatcher.fleet.pools["pool"].demand


def fleet(*names: str) -> Driver:
    core = Driver()
    core.add(*names)
    return core


def test_a_request_counts_when_it_is_sent_with_what_is_not_cached():
    core = fleet("r1")
    prompt = {"blocks": chain("system"), "prompt_tokens": 512}
    core.serve(**prompt)
    core.dispatched(**prompt)
    told = demand(core)
    assert (told.requests, told.input_tokens) == (2, 1024)
    assert 512 < told.uncached_tokens < 1024


def test_a_request_that_is_held_counts_once():
    settings = DispatcherSettings(tiers=(Tier(),), admission=AdmissionSettings())
    core = Driver(replace(POOL, wait_for_replica_s=60.0), settings=settings)
    core.arrive(prompt_tokens=100)
    assert demand(core).requests == 1
    core.add("r1")
    assert (demand(core).requests, demand(core).input_tokens) == (1, 100)


def test_a_retry_is_no_second_request_and_what_it_missed_is_not_loads():
    core = fleet("r1", "r2")
    first = core.dispatched()
    core.wait(3.0)
    core.fail(first.attempt)
    second = next(iter(core.dispatcher._attempts))
    core.wait(0.1)
    core.first_token(second)
    core.wait(0.1)
    core.complete(second)
    told = demand(core)
    assert (told.requests, told.judged, told.ttft_misses, told.other_misses) == (1, 1, 0, 1)


def test_lengths_are_the_engines_own_count():
    core = fleet("r1")
    attempt = core.dispatched().attempt
    core.first_token(attempt)
    core.complete(attempt, input_tokens=800, output_tokens=64, cached=200)
    assert demand(core).lengths.sketch().means() == (800.0, 200.0, 64.0)


def test_a_late_first_token_and_slow_tokens_are_misses():
    core = fleet("r1")
    for ttft_s, decode_s in ((0.1, 1.0), (2.5, 1.0), (0.1, 9.9)):
        core.serve(prefill_s=ttft_s, decode_s=decode_s)  # 100 tokens
    told = demand(core)
    assert (told.judged, told.ttft_misses, told.tpot_misses, told.other_misses) == (3, 1, 1, 0)
    assert worst(told.ttft_recent, core.now) == pytest.approx(1.25)
    assert worst(told.tpot_recent, core.now) == pytest.approx(2.0)


def test_a_prompt_that_takes_longer_than_the_target_alone_is_not_loads_miss():
    core = fleet("r1")
    attempt = core.dispatched(prompt_tokens=150_000).attempt
    core.wait(5.0)
    core.first_token(attempt)
    core.complete(attempt, input_tokens=150_000)
    told = demand(core)
    assert (told.ttft_misses, told.other_misses) == (0, 1)


def test_a_broken_stream_is_another_miss_and_a_wrong_request_none():
    core = fleet("r1")
    for outcome in (Outcome.BROKEN, Outcome.REFUSED, Outcome.CUT):
        core.fail(core.dispatched().attempt, outcome)
    told = demand(core)
    assert (told.requests, told.judged, told.other_misses) == (3, 1, 1)


def test_what_an_engine_refuses_is_told_apart():
    core = fleet("r1")
    core.complete(core.dispatched(prompt_tokens=300).attempt)
    core.fail(core.dispatched(prompt_tokens=900_000).attempt, Outcome.REFUSED)
    told = demand(core)
    assert (told.requests, told.input_tokens) == (2, 900_300)
    assert (told.refused_requests, told.refused_input_tokens) == (1, 900_000)


def test_a_refusal_is_taken_from_the_pool_that_counted_the_request():
    other = PoolSpec("other-pool", "other")
    alias = Alias("chat", (Target("model"),), fallbacks=("other",))
    core = Driver(POOL, other, aliases=(alias,))
    core.add("r1")
    core.add("r2", pool="other-pool")
    first = core.dispatched("chat", prompt_tokens=300)
    assert first.replica == "r1"
    retried = [each for each in core.fail(first.attempt) if isinstance(each, Dispatch)]
    assert [each.replica for each in retried] == ["r2"]
    core.fail(retried[0].attempt, Outcome.REFUSED)
    counted, served = (core.dispatcher.fleet.pools[name].demand for name in ("pool", "other-pool"))
    assert (counted.requests, counted.refused_requests, counted.refused_input_tokens) == (1, 1, 300)
    assert (served.requests, served.refused_requests) == (0, 0)


def test_old_ratios_are_forgotten():
    ratios = recent_ratios()
    for second in range(10):
        ratios.append((float(second), float(second)))
    assert worst(ratios, 9.0) == 8.0
    assert worst(ratios, 65.5) == 9.0
    assert worst(ratios, 100.0) == 0.0
