"""The fluid: nothing is lost, more replicas are better, and events agree with it."""

import pytest

from headrace.simulator.scaling.demand import demand_of_trace
from headrace.simulator.scaling.event_run import run_events
from headrace.simulator.scaling.fluid import FluidPool
from headrace.simulator.scaling.fluid_run import run_fluid, run_pieces
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import arrivals_of
from tests.unit.simulator.scaling.parts import ENGINE, demand, rates, settings


def served(arriving, replicas):
    pool = FluidPool(settings(), arriving)
    pool.advance(0, arriving.ticks, replicas)
    pool.finish(replicas)
    return pool


def test_a_steady_load_settles_where_the_formula_says():
    arriving = demand(30.0, gap_cv=0.0)
    pool = FluidPool(settings(), arriving)
    pool.advance(0, arriving.ticks, 2)
    # 15 requests/s each, work 0.0405 s: TPOT 0.01 / (1 - 0.6075), batch 15 * 100 * TPOT
    assert pool.tpot_s == pytest.approx(0.01 / (1 - 15 * 0.0405), rel=0.01)
    assert pool.running / 2 == pytest.approx(15 * 100 * pool.tpot_s, rel=0.01)
    assert pool.waiting == 0.0


def test_every_request_is_judged_once():
    arriving = demand(30.0, 45.0, 10.0, cv=1.0, gap_cv=2.0)
    pool = served(arriving, 2)
    assert pool.totals.requests == pytest.approx(sum(arriving.requests))
    assert pool.totals.judged == pytest.approx(pool.totals.requests, rel=1e-3)
    assert 0.0 < pool.met < pool.totals.requests


def test_in_an_overload_requests_wait_and_throughput_holds():
    arriving = demand(60.0, gap_cv=0.0)
    pool = FluidPool(settings(), arriving)
    pool.advance(0, arriving.ticks, 2)
    # Batches are full at 256: 1 / (0.01 + 256 * 1.55e-4 + 2.56 * 0.025) steps/s
    capacity = 2 * 2.56 / (0.01 + 256 * 1.55e-4 + 2.56 * 0.025)
    assert pool.running == pytest.approx(512, rel=0.01)
    assert pool.waiting == pytest.approx(600 * (60 - capacity) - 512, rel=0.05)
    assert pool.met / pool.totals.requests < 0.1


def test_more_replicas_meet_more():
    arriving = demand(60.0, cv=1.0, gap_cv=2.0)
    shares = [served(arriving, n).met / sum(arriving.requests) for n in (2, 3, 4, 5, 6)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] > 0.99


def test_a_drain_takes_its_streams_along_and_the_rest_go_on():
    arriving = demand(30.0, gap_cv=0.0)
    pool = FluidPool(settings(), arriving)
    pool.advance(0, 300, 4)
    running = pool.running
    drain_s = pool.drain(1, 4, arriving.mix(0))
    assert pool.running == pytest.approx(running * 3 / 4)
    assert drain_s == pytest.approx(100 * pool.tpot_s, rel=0.05)


@pytest.mark.parametrize("scaler", ["llmd_token:kv=0.2", "hpa_rps:share=0.6"])
def test_events_agree_where_both_run(scaler):
    made = rates(12.0, 24.0, 36.0, 20.0, step_s=200.0)
    requests = list(arrivals_of(made, LognormalSpread(1.0), 1, gap_cv=1.0))
    arriving = demand_of_trace("made", requests, ENGINE, seed=0)
    same = settings(cold_start_s=60.0)
    fluid = run_fluid(same, arriving, scaler).scores
    events = run_events(same, arriving, requests, scaler).scores
    assert fluid.attainment == pytest.approx(events.attainment, abs=0.06)
    assert fluid.token_attainment == pytest.approx(events.token_attainment, abs=0.06)
    assert fluid.replica_hours == pytest.approx(events.replica_hours, rel=0.12)


def test_both_modes_say_the_same_again():
    made = rates(12.0, 24.0, step_s=120.0)
    requests = list(arrivals_of(made, LognormalSpread(1.0), 1))
    arriving = demand_of_trace("made", requests, ENGINE, seed=0)
    for run in (
        lambda: run_fluid(settings(), arriving, "headrace").scores,
        lambda: run_events(settings(), arriving, requests, "headrace").scores,
    ):
        assert run() == run()


def test_pieces_of_a_run_are_judged_by_themselves_and_add_up_to_it():
    arriving = demand(60.0, 140.0, 100.0, 110.0, 100.0, cv=1.0, gap_cv=2.0)
    whole = run_fluid(settings(), arriving, "hpa_rps:share=0.6").scores
    pieces = run_pieces(settings(), arriving, "hpa_rps:share=0.6", 1200.0)
    assert len(pieces) == 3
    assert sum(each.replica_hours for each in pieces) == pytest.approx(whole.replica_hours)
    assert sum(each.changes for each in pieces) == whole.changes
    came = [sum(arriving.requests[at : at + 1200]) for at in (0, 1200, 2400)]
    met = sum(each.attainment * count for each, count in zip(pieces, came, strict=True))
    assert met / sum(came) == pytest.approx(whole.attainment, abs=2e-3)
    # The jump is in the first; what comes later has replicas.
    assert pieces[0].attainment < 0.9 < pieces[1].attainment <= 1.0
