"""The search finds the rate where a virtual engine stops meeting its targets, and what it cannot
decide it says."""

import json
from dataclasses import replace

import pytest

from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.report.sweep_table import STEP_HEADS, lines_of, look_line, step_cells, step_line
from headrace.bench.sweep.search import SweepSettings, requests_per_run, sweep
from headrace.bench.sweep.step import (
    INVALID,
    MET,
    NOT_MET,
    UNDECIDED,
    is_growing,
    step_of,
    trial_of,
)
from tests.unit.bench.virtual_engine import Run, VirtualEngine

SLOS = Slos(Slo(ttft_s=1.0, tpot_s=0.05, share=0.95))
ENGINE = VirtualEngine(requests=500)


def true_highest() -> tuple[float, float]:
    """Rates at which long runs surely meet the targets, and surely do not."""
    low, high = 7.0, 9.5
    engine = replace(ENGINE, requests=8000)
    for rate, meets in ((low, True), (high, False)):
        records = engine.run(rate, 99).records
        share = sum(SLOS.of("").outcome(each) == "met" for each in records) / len(records)
        assert (share > 0.95) == meets
    return low, high


@pytest.mark.parametrize("seed", [0, 50])
def test_it_finds_the_highest_rate(seed):
    low, high = true_highest()
    found = sweep(ENGINE.run, SweepSettings(seed=seed), SLOS)
    assert found.finished
    assert found.exit_code == 0
    assert found.highest_met_rps is not None
    assert low * 0.95 <= found.highest_met_rps <= high
    assert found.lowest_not_met_rps is None or found.lowest_not_met_rps >= low
    rates = [step.rate_rps for step in found.steps]
    assert rates == sorted(rates)
    assert found.best is not None


def test_neighbours_of_the_answer_are_near_and_confirmed():
    found = sweep(ENGINE.run, SweepSettings(precision=0.05), SLOS)
    rates = [step.rate_rps for step in found.steps]
    assert found.highest_met_rps is not None
    place = rates.index(found.highest_met_rps)
    assert rates[place + 1] / rates[place] <= 1.051
    assert len(found.steps[place].trials) >= 2


def test_it_goes_down_where_the_first_rate_is_too_high():
    found = sweep(ENGINE.run, SweepSettings(start_rps=64.0), SLOS)
    assert found.highest_met_rps is not None
    assert 6.5 <= found.highest_met_rps <= 9.5


def test_it_climbs_by_short_looks_to_where_a_run_is_short():
    sent, told = [], []

    def run_requests(rate: float, seed: int, requests: int) -> Run:
        sent.append((rate, requests, seed))
        return replace(ENGINE, requests=requests).run(rate, seed)

    def run(rate: float, seed: int) -> Run:
        sent.append((rate, 500, seed))
        return ENGINE.run(rate, seed)

    settings = SweepSettings(start_rps=0.5, look_s=5.0, proof_s=0.0)
    found = sweep(run, settings, SLOS, run_requests=run_requests, on_look=told.append)
    low, high = true_highest()
    assert found.highest_met_rps is not None
    assert low * 0.95 <= found.highest_met_rps <= high
    looks = [look.rate_rps for look in told]
    assert looks == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0][: len(looks)]
    assert not told[-1].is_met
    assert "no further up" in look_line(told[-1])
    assert [requests for _, requests, _ in sent[: len(looks)]] == [20, 20, 20, 20, 40, 80][
        : len(looks)
    ]
    assert sent[len(looks)][:2] == (looks[-2], 500)  # where it was met last, a whole run
    assert [seed for *_, seed in sent] == list(range(len(sent)))
    assert all(step.rate_rps >= looks[-2] for step in found.steps)


def test_where_looks_are_as_long_as_runs_there_are_none():
    calls = []

    def run_requests(rate: float, seed: int, requests: int) -> Run:
        calls.append(rate)
        return replace(ENGINE, requests=requests).run(rate, seed)

    for look_s, rates in ((100.0, []), (0.0, []), (30.0, [1.0, 2.0])):
        calls.clear()
        settings = SweepSettings(look_s=look_s, proof_s=0.0)
        found = sweep(ENGINE.run, settings, SLOS, run_requests=run_requests)
        assert calls == rates
        assert found.steps[0].rate_rps == (2 * rates[-1] if rates else 1.0)


def test_where_the_first_look_misses_requests_alone_tell_whether_any_rate_can_meet():
    rates = []

    def run(rate: float, seed: int) -> Run:
        rates.append(rate)
        return ENGINE.run(rate, seed)

    def run_requests(rate: float, seed: int, requests: int) -> Run:
        return replace(ENGINE, requests=requests).run(rate, seed)

    settings = SweepSettings(look_s=5.0, proof_s=0.0)
    for ttft_s, reachable in ((0.01, False), (0.12, True)):
        rates.clear()
        found = sweep(
            run,
            settings,
            Slos(Slo(ttft_s=ttft_s, share=0.95)),
            run_requests=run_requests,
            run_alone=ENGINE.run_alone,
        )
        assert found.alone is not None
        assert found.is_out_of_reach != reachable
        assert bool(rates) == reachable
        assert found.finished or reachable


def test_a_look_at_which_the_generator_was_late_is_made_again_and_then_ends_the_climb():
    limited, told = replace(ENGINE, generator_limit_rps=3.0), []

    def run_requests(rate: float, seed: int, requests: int) -> Run:
        return replace(limited, requests=requests).run(rate, seed)

    settings = SweepSettings(look_s=5.0, proof_s=0.0)
    found = sweep(limited.run, settings, SLOS, run_requests=run_requests, on_look=told.append)
    assert [look.rate_rps for look in told] == [1.0, 2.0, 4.0, 4.0]
    assert "the generator was late" in look_line(told[-1])
    assert found.highest_met_rps == pytest.approx(3.0, rel=0.06)
    assert found.limited_by_generator


def test_no_two_runs_have_the_same_seed():
    seeds = []

    def run(rate: float, seed: int) -> Run:
        seeds.append(seed)
        return ENGINE.run(rate, seed)

    sweep(run, SweepSettings(seed=7), SLOS)
    assert seeds == list(range(7, 7 + len(seeds)))


def test_the_same_seed_finds_the_same():
    first, second = (sweep(ENGINE.run, SweepSettings(seed=3), SLOS) for _ in range(2))
    assert json.dumps(first.document()) == json.dumps(second.document())


def test_too_few_requests_show_nothing_and_the_reason_says_how_many_would():
    short = replace(ENGINE, requests=20)
    found = sweep(short.run, SweepSettings(), Slos(Slo(ttft_s=1.0, share=0.99)))
    assert found.highest_met_rps is None
    assert found.exit_code == 1
    assert "NO RATE FOUND" in found.headline
    assert "381 requests are needed" in found.steps[0].reason
    assert len(found.steps) == 1  # no use in trying lower rates


def test_requests_per_run_are_enough():
    needed = requests_per_run(Slos(Slo(share=0.99)))
    assert needed > 381
    found = sweep(
        replace(ENGINE, requests=needed).run, SweepSettings(), Slos(Slo(ttft_s=1.0, share=0.99))
    )
    assert found.highest_met_rps is not None


def test_the_limit_of_the_generator_is_told_apart():
    limited = replace(ENGINE, generator_limit_rps=5.0)
    found = sweep(limited.run, SweepSettings(), SLOS)
    assert found.limited_by_generator
    assert found.highest_met_rps == pytest.approx(5.0, rel=0.06)
    assert "its limit" in found.headline
    assert any(step.state == INVALID for step in found.steps)
    assert found.lowest_not_met_rps is None


def test_one_late_run_is_made_again():
    calls = []

    def run(rate: float, seed: int) -> Run:
        calls.append(rate)
        late = replace(ENGINE, generator_limit_rps=0.0)
        return late.run(rate, seed) if len(calls) == 1 else ENGINE.run(rate, seed)

    found = sweep(run, SweepSettings(), SLOS)
    assert calls[:2] == [1.0, 1.0]
    assert found.steps[0].state == MET


def test_a_search_that_may_not_go_on_says_so():
    found = sweep(ENGINE.run, SweepSettings(most_runs=4), SLOS)
    assert not found.finished
    assert "not finished" in found.headline
    assert found.highest_met_rps is not None


def test_a_run_that_somebody_ended_counts_for_nothing():
    def run(rate: float, seed: int) -> Run:
        made = ENGINE.run(rate, seed)
        return Run(made.records, replace(made.info, interrupted=rate >= 4))

    found = sweep(run, SweepSettings(), SLOS)
    assert [step.rate_rps for step in found.steps] == [1.0, 2.0]
    assert not found.finished


@pytest.mark.parametrize("phase", ["search", "proof"])
def test_somebody_who_ends_it_between_two_runs_gets_what_is_known(phase):
    made = {"search": 0, "proof": 0}

    def run(rate: float, seed: int, requests: int = 0) -> Run:
        now = "proof" if requests else "search"
        if now == phase and made[now] == 6:
            raise KeyboardInterrupt
        made[now] += 1
        return replace(ENGINE, requests=requests or ENGINE.requests).run(rate, seed)

    found = sweep(run, SweepSettings(), SLOS, run_requests=run)
    assert made[phase] == 6
    assert not found.finished
    assert found.highest_met_rps is not None
    assert any(step.chance is not None for step in found.steps) == (phase == "proof")
    assert "the search was not finished" in found.headline


def test_an_engine_that_never_meets_is_told_so():
    found = sweep(ENGINE.run, SweepSettings(least_rps=0.25), Slos(Slo(ttft_s=0.001, share=0.95)))
    assert found.highest_met_rps is None
    assert found.lowest_not_met_rps == 0.25
    assert found.finished


def test_targets_that_are_missed_without_load_are_out_of_reach():
    rates: list[float] = []

    def run(rate: float, seed: int) -> Run:
        rates.append(rate)
        return ENGINE.run(rate, seed)

    slos = Slos(Slo(ttft_s=0.01, share=0.8))  # TTFT is 102 ms alone
    lines: list[str] = []
    found = sweep(
        run,
        SweepSettings(start_rps=20.0),
        slos,
        on_step=lambda step: lines.append(step_line(step)),
        run_alone=ENGINE.run_alone,
    )
    assert rates == [20.0]
    assert found.exit_code == 1
    assert found.finished
    assert found.headline == (
        "NO RATE CAN MEET the targets: requests sent one at a time miss them (0 of 20 met, 0.0 to "
        "16.1 % against 80 %), and a lower rate takes away nothing but waiting"
    )
    assert lines[1].startswith("one request at a time: not met (0 of 20 met, 0.0 to 16.1 % ")
    assert ", TTFT p50 102 ms, TPOT p50 10" in lines[1]
    assert lines[1] in list(lines_of(found))
    assert found.document()["alone"] is not None


def test_what_waits_for_the_run_before_shows_nothing_of_an_engine_without_load():
    def run_alone(requests: int, seed: int) -> Run:
        run = ENGINE.run_alone(requests, seed)
        for place, record in enumerate(run.records[:7]):  # an engine that works off its backlog
            assert record.first_token_s is not None
            record.first_token_s += 10.0 - place
        return run

    found = sweep(ENGINE.run, SweepSettings(start_rps=1000.0), SLOS, run_alone=run_alone)
    assert found.exit_code == 0


def test_an_overload_is_no_such_target():
    found = sweep(ENGINE.run, SweepSettings(start_rps=1000.0), SLOS, run_alone=ENGINE.run_alone)
    assert found.alone is not None
    assert step_line(found.alone).startswith(
        "one request at a time: 20 of 20 met, not out of reach, TTFT p50 102 ms"
    )
    assert found.highest_met_rps is not None
    assert 6.5 <= found.highest_met_rps <= 9.5


def test_nobody_asks_without_load_where_the_first_rate_is_met():
    found = sweep(ENGINE.run, SweepSettings(), SLOS, run_alone=ENGINE.run_alone)
    assert found.alone is None
    assert found.document()["alone"] is None


def test_a_look_without_load_that_somebody_ended_ends_the_search():
    def alone(requests: int, seed: int) -> Run:
        made = ENGINE.run_alone(requests, seed)
        return Run(made.records, replace(made.info, interrupted=True))

    found = sweep(ENGINE.run, SweepSettings(start_rps=64.0), SLOS, run_alone=alone)
    assert (found.alone, found.finished, len(found.steps)) == (None, False, 1)


def test_a_generator_that_is_late_from_the_first_rate_on_is_told_of():
    found = sweep(replace(ENGINE, generator_limit_rps=0.5).run, SweepSettings(), SLOS)
    assert found.headline == (
        "NO RATE FOUND that shows the targets met; the generator itself was late at 1 requests/s"
    )
    (step,) = found.steps
    assert step_line(step) == "1 requests/s: invalid (the generator sent late)"


def test_of_two_runs_the_worse_is_shown():
    runs = [ENGINE.run(8.5, seed) for seed in range(2)]
    trials = [trial_of(seed, run, SLOS) for seed, run in enumerate(runs)]
    shares = [trial.summary.all.goodput_share for trial in trials]
    assert shares[0] != shares[1]
    for each in (trials, trials[::-1]):
        assert step_of(8.5, each, SLOS, 0.95).scores.goodput_share == min(shares)


def test_every_tier_must_meet_its_own():
    engine = replace(ENGINE, tiers=("gold", "batch"))
    slos = Slos(Slo(ttft_s=2.0, share=0.9), {"gold": Slo(ttft_s=0.3, share=0.9)})
    settings = SweepSettings(precision=0.2, start_rps=4.0)
    found = sweep(engine.run, settings, slos)
    lenient = sweep(engine.run, settings, Slos(Slo(ttft_s=2.0, share=0.9)))
    assert found.highest_met_rps is not None
    assert lenient.highest_met_rps is not None
    assert found.highest_met_rps < lenient.highest_met_rps


def test_a_queue_that_builds_up_is_seen():
    slos = Slos(Slo(ttft_s=2.0))
    assert is_growing(replace(ENGINE, requests=200).run(14.0).records, slos)
    assert not is_growing(replace(ENGINE, requests=200).run(4.0).records, slos)
    assert not is_growing(ENGINE.run(14.0).records[:20], slos)


def test_a_rate_that_meets_only_because_the_run_is_short_is_undecided():
    # Twice the capacity, but over before the queue is as long as the target.
    slos = Slos(Slo(ttft_s=6.0, share=0.95))
    found = sweep(
        replace(ENGINE, requests=100).run, SweepSettings(start_rps=19.5, most_runs=3), slos
    )
    assert found.steps[0].state == UNDECIDED
    assert "still growing" in found.steps[0].reason


def test_a_step_has_a_cell_for_each_head_and_a_line():
    found = sweep(ENGINE.run, SweepSettings(most_runs=6), SLOS)
    assert found.steps
    for step in found.steps:
        assert len(step_cells(step)) == len(STEP_HEADS)
        assert step.state in step_line(step)
        assert step.state in {MET, NOT_MET, UNDECIDED}


@pytest.mark.parametrize(
    "given",
    [{"start_rps": 0.001}, {"precision": 0.0}, {"repeats": 0}, {"confidence": 1.0}],
)
def test_settings_that_make_no_sense_are_refused(given):
    with pytest.raises(ValueError, match="give"):
        SweepSettings(**given)
