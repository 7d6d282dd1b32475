"""The fluid behind a gateway that holds: what exceeds capacity is late, and nothing else."""

import pytest

from headrace.engine_model.profiles import profile
from headrace.simulator.scaling import event_run, fluid_run
from headrace.simulator.scaling.actuation import DIRECT
from headrace.simulator.scaling.demand import Demand, demand_of_trace
from headrace.simulator.scaling.event_run import run_events
from headrace.simulator.scaling.fluid import FluidPool
from headrace.simulator.scaling.fluid_run import run_fluid
from headrace.simulator.scaling.held import HeldPool
from headrace.simulator.scaling.held_load import LongestFirst
from headrace.simulator.scaling.mix import RequestMix
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.scalers import make_scaler
from headrace.simulator.scaling.scalers.headrace import Headrace
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import arrivals_of
from tests.unit.simulator.scaling.parts import ENGINE, demand, mix, rates, reading, settings

WORK_S = 500 * 5e-5 + 100 * (1e-4 + 1e-7 * 550)
"""Of a request of 500 in and 100 out."""


def played(kind: type[FluidPool], arriving: Demand, replicas: int) -> FluidPool:
    pool = kind(settings(), arriving)
    pool.advance(0, arriving.ticks, replicas)
    return pool


def met(kind: type[FluidPool], arriving: Demand, replicas: int) -> float:
    pool = played(kind, arriving, replicas)
    pool.finish(replicas)
    return pool.met / sum(arriving.requests)


def test_in_an_overload_that_lasts_the_numbers_are_those_of_the_formula():
    arriving = demand(60.0, gap_cv=0.0)
    pool = HeldPool(settings(), arriving)
    pool.advance(0, 300, 2)
    waited, judged, late = pool.waiting, pool.totals.judged, pool.totals.ttft_misses
    pool.advance(300, 600, 2)
    # At 50 ms four fifths of a step are for requests, of which prefills take 0.025 of WORK_S.
    tpot_s = 0.05 * (0.61 + 0.7 * (1 - 0.8 * 0.025 / WORK_S))
    let_in = 2 * (1 - 0.01 / tpot_s) / WORK_S
    assert pool.tpot_s == pytest.approx(tpot_s, rel=1e-3)
    assert pool.running == pytest.approx(let_in * 100 * tpot_s, rel=1e-3)
    assert pool.waiting - waited == pytest.approx(300 * (60 - let_in), rel=0.01)
    assert pool.totals.judged - judged == pytest.approx(300 * let_in, rel=0.01)
    # A fifth of what is let in are those that starve, who are late.
    assert pool.totals.ttft_misses - late == pytest.approx(300 * let_in / 5, rel=0.01)


def test_all_that_comes_ends_runs_or_waits():
    arriving = demand(30.0, 90.0, 10.0, cv=1.0, gap_cv=2.0)
    pool = HeldPool(settings(), arriving)
    for first, last, replicas in ((0, 700, 2), (700, 900, 0), (900, arriving.ticks, 3)):
        pool.advance(first, last, replicas)
        there = pool.totals.judged + pool.running + pool.waiting
        assert there == pytest.approx(sum(arriving.requests[:last]))
    pool.finish(3)
    assert pool.totals.judged == pytest.approx(sum(arriving.requests), rel=1e-3)
    assert pool.tokens == pytest.approx(sum(arriving.requests) * 600, rel=1e-3)


def test_with_room_for_all_it_is_as_without_a_gateway_that_holds():
    arriving = demand(10.0, 20.0, cv=1.0, gap_cv=1.0)
    plain, held = (played(kind, arriving, 3) for kind in (FluidPool, HeldPool))
    assert held.held() == (0.0, 0.0)
    for name in ("running", "tpot_s", "met", "met_tokens", "tokens", "output_tokens", "ttft_p90_s"):
        assert getattr(held, name) == pytest.approx(getattr(plain, name), rel=1e-3)


def test_more_is_in_time_than_without_and_the_less_the_more_comes():
    shares = []
    for rate in (40.0, 55.0, 70.0, 100.0):
        arriving = demand(rate, cv=1.0, gap_cv=1.0)
        shares.append(met(HeldPool, arriving, 2))
        assert shares[-1] > met(FluidPool, arriving, 2)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.5


def test_long_prompts_are_late_so_that_fewer_requests_than_tokens_are():
    varied = played(HeldPool, demand(60.0, cv=1.0, gap_cv=0.0), 2)
    alike = played(HeldPool, demand(60.0, cv=0.0, gap_cv=0.0), 2)
    assert varied.met / varied.totals.judged > varied.met_tokens / varied.tokens + 0.05
    assert alike.met / alike.totals.judged == pytest.approx(alike.met_tokens / alike.tokens)


def test_where_streams_are_short_long_prompts_are_late_no_more_than_others():
    # 256 streams, all that a batch may have, do not come to the TPOT target here.
    arriving = demand(120.0, cv=1.0, gap_cv=0.0, prompt=50.0, answer=300.0)
    pool = played(HeldPool, arriving, 4)
    assert pool.tpot_s < 0.05
    requests, tokens = pool.held()
    assert requests > 5000
    assert tokens / requests == pytest.approx(50.0, rel=0.02)


def test_the_longest_of_a_mix_by_hand():
    points = ((0.75, 1.0, 1.0), (0.25, 5.0, 1.0))
    ranked = LongestFirst(RequestMix(ENGINE, points, 100.0, 10.0), ENGINE)
    long_s = 500 * 5e-5 + 10 * (1e-4 + 1e-7 * 505)
    short_s = 100 * 5e-5 + 10 * (1e-4 + 1e-7 * 105)
    assert ranked.one.work_s == pytest.approx(0.75 * short_s + 0.25 * long_s)
    assert ranked.longest(0.1 * long_s).requests == pytest.approx(0.1)
    both = ranked.longest(0.25 * long_s + 0.5 * short_s)
    assert both.requests == pytest.approx(0.75)
    assert both.input_tokens == pytest.approx(0.25 * 500 + 0.5 * 100)
    assert ranked.longest(9.0).requests == pytest.approx(1.0)


def test_what_waits_at_the_gateway_is_told_as_held_and_in_no_engine():
    pool = played(HeldPool, demand(60.0, gap_cv=0.0), 2)
    requests, tokens = pool.held()
    assert requests == pool.waiting > 1000
    assert tokens == pytest.approx(requests * 500)
    assert pool.waiting_input_tokens(mix(), 60.0) < 20_000
    # A fifth of the first tokens are late ones: the 90th percentile is how long these waited.
    assert pool.ttft_p90_s > 60.0


def test_who_waits_for_the_first_replica_is_late_only_if_it_takes_too_long():
    arriving = demand(5.0, gap_cv=0.0)
    pool = HeldPool(settings(), arriving)
    pool.advance(0, 10, 0)
    pool.advance(10, 100, 2)
    assert pool.waiting == 0.0
    # Of ten seconds' requests those of the last one are in time with a TTFT target of 2 s.
    assert pool.totals.ttft_misses == pytest.approx(5.0 * 9, abs=5.1)


@pytest.mark.parametrize(
    ("prompt", "answer", "level"), [(1500.0, 140.0, 80.0), (360.0, 290.0, 150.0)]
)
def test_events_agree_where_both_run(prompt, answer, level):
    # What is short is the TPOT with the long prompts, streams with the short ones.
    engine = profile("h100-llama-3.1-8b")
    made = rates(40.0, level, 40.0, step_s=45.0, prompt=prompt, answer=answer)
    requests = list(arrivals_of(made, LognormalSpread(1.0), 1))
    arriving = demand_of_trace("made", requests, engine, seed=0)
    same = settings(engine=engine, min_replicas=4, max_replicas=4, policy="seconds")
    fluid = run_fluid(same, arriving, "static").scores
    events = run_events(same, arriving, requests, "static").scores
    assert events.attainment < 0.95
    assert fluid.attainment == pytest.approx(events.attainment, abs=0.06)
    assert fluid.token_attainment == pytest.approx(events.token_attainment, abs=0.06)


class _Watcher:
    """Wishes for what there is, and keeps what it is told."""

    behaviour = DIRECT
    period_s = 15.0

    def __init__(self) -> None:
        self.seen: list[Reading] = []

    def wish(self, told: Reading) -> int:
        self.seen.append(told)
        return told.number


@pytest.mark.parametrize("module", [event_run, fluid_run])
def test_scalers_are_told_what_the_gateway_holds(monkeypatch, module):
    made = rates(80.0, step_s=90.0)
    requests = list(arrivals_of(made, LognormalSpread(0.0), 1, gap_cv=1.0))
    arriving = demand_of_trace("made", requests, ENGINE, seed=0)
    same = settings(min_replicas=2, max_replicas=2, policy="seconds")
    watcher = _Watcher()
    monkeypatch.setattr(module, "make_scaler", lambda *_: watcher)
    if module is event_run:
        run_events(same, arriving, requests, "watcher")
    else:
        run_fluid(same, arriving, "watcher")
    told = watcher.seen[4]
    assert told.held_requests > 500
    assert told.held_input_tokens == pytest.approx(told.held_requests * 500)
    assert told.queue_depth >= told.held_requests


def test_headrace_counts_what_is_held_at_the_gateway_and_not_in_engines():
    scaler = make_scaler("headrace", settings(), demand(10.0))
    scaler.wish(reading(queue_depth=3008.0, held_requests=3000.0, held_input_tokens=1.5e6))
    assert isinstance(scaler, Headrace)
    assert "('held_requests', 3000.0)" in str(scaler.plan)
