"""The interval that a sweep states holds the rate that is known; what it cannot show it says."""

import json
from dataclasses import replace
from itertools import count
from statistics import median

import pytest

from benchmarks.sweep_coverage import one_sweep, study
from benchmarks.virtual_servers import SERVERS, Batching, Queue, Run, exponential
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.report.sweep_plots import on_the_line
from headrace.bench.report.sweep_table import step_cells, step_line
from headrace.bench.sweep.proof import (
    RESOLUTION,
    RUNS,
    SPENT,
    Bounds,
    Proof,
    _curve_of,
    _nearest,
    _Seen,
)
from headrace.bench.sweep.search import SweepSettings, sweep
from headrace.bench.sweep.step import INVALID, MET, NOT_MET, UNDECIDED, Step

SLOS = Slos(Slo(ttft_s=1.0, share=0.95))
QUEUES = [each for each in SERVERS if isinstance(each, Queue)]
MD1, DETERMINISTIC = (each for each in QUEUES if each.name[:3] in {"M/D", "D/D"})
MD1_RPS = 8.378
"""Computed by `truth_rps`."""


def proof_of(server: Queue, attempt_s: float = 360.0, **given) -> Proof:
    return Proof(
        server.run,
        given.get("slos", server.slos),
        attempt_s=attempt_s,
        confidence=0.95,
        precision=0.05,
        seeds=given.get("seeds", count(1)),
        on_step=given.get("on_step", lambda _: None),
    )


def test_the_interval_holds_the_true_rate_where_the_search_alone_does_not():
    shown, searched = study(MD1, MD1_RPS, sweeps=12, proof_s=360.0)
    assert shown.held >= 11
    assert searched.held <= 9
    assert all(low > 0.0 for low in shown.lows)
    assert sorted(shown.highs)[6] < 1.25


def test_a_server_without_randomness_is_found_nearly_exactly():
    result, _ = one_sweep(DETERMINISTIC, 5, 360.0)
    capacity_rps = 1 / DETERMINISTIC.service_s
    assert result.bounds is not None
    low, high = result.bounds.low_rps, result.bounds.high_rps
    assert low is not None
    assert high is not None
    assert low <= capacity_rps <= high
    assert high / low < 1.06


def test_the_engine_model_is_bracketed():
    server = SERVERS[6]
    assert isinstance(server, Batching)
    result, _ = one_sweep(server, 2, 120.0)
    assert result.bounds is not None
    low, high = result.bounds.low_rps, result.bounds.high_rps
    assert (low or 0.0) <= 6.13 <= (high or 99.0)


def test_the_chances_of_all_attempts_add_up_to_what_is_stated():
    assert sum(SPENT) == pytest.approx(1.0)
    steps: list[Step] = []
    # Short attempts before a queue show nothing, so all of them are made.
    proof_of(MD1, 5.0, on_step=steps.append).prove(8.4, 8.5)
    assert len(steps) == len(SPENT)
    assert sum(step.chance or 0.0 for step in steps) <= 0.05
    assert len({step.rate_rps for step in steps}) == len(steps)


def test_what_is_not_shown_is_no_bound_and_said_to_be_none():
    proof = proof_of(MD1, 5.0)
    proof.prove(8.3, None)
    assert proof.bounds == Bounds(None, None, 0.95) or proof.bounds.high_rps is None
    assert Bounds(None, None, 0.95).in_words == "nothing of this is shown with confidence"
    assert Bounds(2.0, None, 0.95).in_words == "with 95 % confidence the highest rate is 2 or more"
    assert Bounds(None, 3.0, 0.9).in_words == "with 90 % confidence the highest rate is below 3"


def test_the_best_guess_is_near_the_true_rate():
    guesses: list[float] = []
    for seed in range(8):
        proof = proof_of(MD1, seeds=count(1000 * seed))
        proof.prove(8.4, 9.3)
        assert proof.bounds.estimate_rps is not None
        guesses.append(proof.bounds.estimate_rps)
    assert median(guesses) == pytest.approx(MD1_RPS, rel=0.03)


def test_of_one_rate_nothing_is_guessed():
    proof = proof_of(MD1, 5.0)
    assert proof.bounds.estimate_rps is None
    assert "likely" not in Bounds(2.0, 4.0, 0.95).in_words


def test_where_all_attempts_are_on_one_side_nothing_is_guessed():
    proof = proof_of(DETERMINISTIC)
    proof.prove(1.0, 1.1)  # both are met, and so is what follows
    low, high = proof.ends
    assert low is not None
    assert low > 1.1
    assert high is None
    assert proof.bounds.estimate_rps is None


def test_the_next_attempt_is_at_twice_the_rate_at_most():
    rates: list[float] = []
    proof = proof_of(DETERMINISTIC, on_step=lambda step: rates.append(step.rate_rps))
    proof.prove(1.0, 1.1)
    assert len(rates) == len(SPENT)
    tried = max(rates[:2])
    for rate in rates[2:]:
        assert rate <= 2.0 * tried * 1.001
        tried = max(tried, rate)


def test_a_tier_is_near_its_targets_by_its_own_share():
    # One tier is exactly what it should be there, the other exactly where it should be there.
    seen = [
        _Seen(9.0, 2000, 0.99, alone=500.0, wanted=0.99),
        _Seen(12.0, 2000, 0.8, alone=500.0, wanted=0.8),
    ]
    curve = _curve_of(seen)
    assert curve is not None
    assert 9.0 <= curve.estimate_rps <= 12.0
    assert curve.share_at(curve.estimate_rps) == pytest.approx(0.99)


def test_rates_near_to_each_other_and_far_apart_in_what_they_met_are_no_overflow():
    seen = [
        _Seen(10.0, 2000, 1.0, alone=5.0, wanted=0.99),
        _Seen(10.01, 2000, 0.0, alone=5.0, wanted=0.99),
    ]
    assert _nearest(seen, 0.015, +1) is None


def test_ends_are_stated_to_what_a_run_can_tell():
    proof = proof_of(DETERMINISTIC)
    proof.prove(9.0, 10.5)
    low, high = proof.ends
    assert low is not None
    assert proof.bounds.low_rps == pytest.approx(low * (1 - RESOLUTION), rel=1e-3)
    assert high is not None
    assert proof.bounds.high_rps == pytest.approx(high * (1 + RESOLUTION), rel=1e-3)


def test_a_rate_that_the_search_met_by_luck_becomes_the_upper_end():
    proof = proof_of(MD1)
    proof.prove(11.0, None)
    low, high = proof.ends
    assert high is not None
    assert high <= 10.0
    assert low is None or low < 8.4


def test_runs_that_the_generator_spoilt_are_made_again_and_show_nothing():
    runs: list[int] = []

    def late(rate: float, seed: int, requests: int) -> Run:
        runs.append(seed)
        made = DETERMINISTIC.run(rate, seed, requests)
        return Run(made.records, replace(made.info, valid=len(runs) == 1, invalid_reason="late"))

    proof = proof_of(DETERMINISTIC)
    proof._run_requests = late
    steps: list[Step] = []
    proof._on_step = steps.append
    proof.prove(5.0, None)
    assert steps[0].state in {MET, UNDECIDED, INVALID}
    assert len(runs) <= 2 * RUNS * len(SPENT)
    assert runs == list(range(1, len(runs) + 1))


def test_beyond_where_the_generator_was_late_nothing_is_sent():
    sent: list[float] = []

    def run(rate: float, seed: int, requests: int) -> Run:
        sent.append(rate)
        made = DETERMINISTIC.run(rate, seed, requests)
        return Run(made.records, replace(made.info, valid=rate < 6.0, invalid_reason="late"))

    proof = proof_of(DETERMINISTIC)
    proof._run_requests = run
    proof.prove(5.0, 6.5)
    assert proof.ends[1] is None
    assert proof.steps[6.5].state == INVALID
    assert max(sent) == 6.5


def test_who_stops_it_ends_it():
    def stopped(rate: float, seed: int, requests: int) -> Run:
        made = DETERMINISTIC.run(rate, seed, requests)
        return Run(made.records, replace(made.info, interrupted=True))

    result = sweep(
        DETERMINISTIC.run, SweepSettings(start_rps=8.0), DETERMINISTIC.slos, run_requests=stopped
    )
    assert not result.finished
    assert result.bounds == Bounds(None, None, 0.95)


def test_who_stops_the_last_run_of_the_search_is_asked_for_no_proof():
    longer: list[float] = []

    def run(rate: float, seed: int) -> Run:
        made = DETERMINISTIC.run(rate, seed, 100)
        missing = {4.0: 0, 8.0: 50}.get(rate, 7)  # in between nothing is decided by one run
        for record in made.records[:missing]:
            record.error = "reset"
        return Run(made.records, replace(made.info, interrupted=seed == 3))

    def proof(rate: float, seed: int, requests: int) -> Run:
        longer.append(rate)
        return DETERMINISTIC.run(rate, seed, requests)

    settings = SweepSettings(start_rps=4.0, precision=0.5)
    result = sweep(run, settings, Slos(Slo(ttft_s=9.0, share=0.95)), run_requests=proof)
    assert not longer
    assert not result.finished
    assert result.bounds == Bounds(None, None, 0.95)


def test_the_limit_of_the_generator_is_told_apart_below_what_is_shown_as_well():
    def run(rate: float, seed: int, requests: int = 500) -> Run:
        made = DETERMINISTIC.run(rate, seed, requests)
        late = {} if rate < 7.0 else {"valid": False, "invalid_reason": "late"}
        return Run(made.records, replace(made.info, **late))

    settings = SweepSettings(start_rps=4.0)
    result = sweep(run, settings, DETERMINISTIC.slos, run_requests=run)
    assert result.bounds is not None
    assert result.bounds.low_rps is not None
    assert result.bounds.high_rps is None
    assert result.limited_by_generator
    assert "its limit" in result.headline


def test_a_search_that_ended_before_the_proof_says_that_nothing_is_shown():
    settings = SweepSettings(start_rps=8.0, most_runs=1)
    result = sweep(DETERMINISTIC.run, settings, DETERMINISTIC.slos, run_requests=DETERMINISTIC.run)
    assert result.bounds == Bounds(None, None, 0.95)
    assert result.headline.endswith("nothing of this is shown with confidence")


def test_without_a_proof_nothing_is_stated():
    result, _ = one_sweep(DETERMINISTIC, 1, 0.0)
    assert result.bounds is None
    assert "confidence" not in result.headline
    assert json.loads(json.dumps(result.document()))["bounds"] is None


def test_the_answer_is_what_is_shown_and_rows_say_so():
    result, _ = one_sweep(DETERMINISTIC, 1, 360.0)
    assert result.bounds is not None
    assert result.headline.endswith(result.bounds.in_words)
    answer = next(step for step in result.steps if step.rate_rps == result.highest_met_rps)
    assert answer.is_shown
    assert step_cells(answer)[1] == "met, shown"
    assert ": met, shown with a chance of " in step_line(answer)
    looks = [step for step in result.steps if not step.is_shown]
    assert looks
    assert all(step_cells(step)[1] in {MET, NOT_MET, UNDECIDED} for step in looks)
    assert result.best is not None


def test_every_tier_must_be_shown_and_one_that_misses_is_enough():
    server = Queue("two tiers", SLOS, 0.05, gaps=exponential)

    def run(rate: float, seed: int, requests: int) -> Run:
        made = server.run(rate, seed, requests)
        for record in made.records[::2]:
            record.tier = "gold"
        return made

    slos = Slos(Slo(ttft_s=5.0, share=0.9), {"gold": Slo(ttft_s=0.021, share=0.9)})
    proof = proof_of(server, slos=slos)
    proof._run_requests = run
    proof.prove(1.0, 10.0)  # at 10/s half of the requests wait, and gold must not
    assert proof.steps[10.0].state == NOT_MET
    assert "gold: " in proof.steps[10.0].reason


def test_a_line_in_a_plot_does_not_jump_between_long_runs_and_first_looks():
    result, _ = one_sweep(MD1, 3, 360.0)
    long = {step.rate_rps for step in result.steps if step.chance is not None}
    drawn = on_the_line(result.steps)
    assert long <= {step.rate_rps for step in drawn}
    assert len(drawn) < len(result.steps)
    for step in drawn:
        beside = min(long) < step.rate_rps < max(long)
        assert step.rate_rps in long or not beside
    alone, _ = one_sweep(MD1, 3, 0.0)
    assert on_the_line(alone.steps) == list(alone.steps)


def test_no_line_goes_through_a_run_that_says_nothing_of_the_engine():
    result, _ = one_sweep(MD1, 3, 360.0)
    drawn = on_the_line(result.steps)
    late = replace(drawn[-1], state=INVALID)
    steps = [late if step is drawn[-1] else step for step in result.steps]
    assert late not in on_the_line(steps)
    assert on_the_line(steps)[:2] == drawn[:2]
