"""What the benchmarks of scaling play."""

import argparse
from pathlib import Path

import pytest

from benchmarks import scaling_compare
from benchmarks.scaling_compare import (
    DayByDay,
    _arguments,
    baselines_of,
    compare,
    counted,
    demands,
    summary,
)
from benchmarks.scaling_llmd_ramp import published_ramp
from benchmarks.scaling_reaction import Course, reaction
from benchmarks.scaling_shapes import DAY_S, SHAPES, jittered, paced
from headrace.engine_model.profiles import profile
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.scores import ScalingScores
from headrace.simulator.scaling.settings import ScalingSimulation


def test_baselines_are_chosen_by_name():
    assert baselines_of("hpa_rps, static") == ["hpa_rps", "static"]
    for none in ("oracle", "headrace", "hpa"):
        with pytest.raises(argparse.ArgumentTypeError, match=none):
            baselines_of(f"static,{none}")


def test_the_published_ramp_is_that_of_the_guide():
    # scored-config.yml: rate 2 for 330 s, then 360 s each of 4, 6, 8, 10 and 4, and 1 for 300 s.
    ramp = published_ramp()
    assert ramp.end_s == 2430.0
    assert [step.start_s for step in ramp.steps] == [0, 330, 690, 1050, 1410, 1770, 2130]
    assert [step.requests_per_s for step in ramp.steps] == [2, 4, 6, 8, 10, 4, 1]
    assert {(step.mean_input_tokens, step.mean_output_tokens) for step in ramp.steps} == {
        (4000.0, 1000.0)
    }


def test_a_pace_of_three_takes_a_third_of_the_time_at_the_same_rates():
    plain = SHAPES["ramp"](0)
    fast = paced(plain, 3.0)
    assert fast.end_s == pytest.approx(plain.end_s / 3)
    assert [each.start_s for each in fast.steps[:3]] == pytest.approx([0.0, 200.0, 400.0])
    assert [e.requests_per_s for e in fast.steps] == [e.requests_per_s for e in plain.steps]


@pytest.mark.parametrize("pace", [1.0, 3.0])
def test_jitter_keeps_the_order_of_changes_however_close_they_are(pace: float):
    moved = jittered(paced(SHAPES["spikes"](0), pace), seed=1)
    starts = [step.start_s for step in moved.steps]
    assert starts == sorted(starts)
    assert starts != [step.start_s for step in paced(SHAPES["spikes"](0), pace).steps]


def scored(scaler: str, attainment: float, hours: float) -> ScalingScores:
    return ScalingScores(scaler, attainment, attainment, hours, 10, 1)


def test_demands_are_counted_as_headrace_comes_and_with_its_target_fitted():
    oracle, dear = scored("oracle", 0.99, 100.0), scored("llmd_slo:up=0.5", 0.995, 160.0)
    short = [scored("headrace", 0.98, 120.0), scored("headrace:attainment=0.995", 0.99, 130.0)]
    beaten = [scored("headrace", 0.98, 150.0), scored("hpa_rps", 0.985, 140.0)]
    met = [scored("headrace", 0.991, 145.0), scored("headrace:attainment=0.98", 0.99, 141.0)]
    said = counted([[*each, oracle, dear] for each in (short, beaten, met)], 0.99)
    assert said == (
        "demands: 3, a baseline better in both: 1, headrace at the goal: 1, "
        "a third closed: 0, a third closed, target fitted: 1"
    )
    row = summary("short", [*short, oracle, dear], 0.99)
    assert (row["gap"], row["gap, fitted"]) == ("–", "50%")


def test_who_does_not_know_of_a_rise_misses_what_comes_within_a_cold_start():
    # Load 1 for 8 cold starts, then 4, then 1 again: 16 ticks of 4 are late.
    course = Course(
        [1.0] * 128 + [4.0] * 64 + [1.0] * 64, [1.0] * 128 + [4.0] * 64 + [1.0] * 64, 16
    )
    at_once = reaction(course, hold_s=0.0)
    every = 128 + 4 * 64 + 64
    assert at_once.met(1.0, holding=False) == pytest.approx(1 - 4 * 16 / every)
    assert at_once.met(2.0, holding=False) == pytest.approx(1 - 4 * 16 / every)
    assert at_once.met(1.0, holding=True) == pytest.approx(1 - 3 * 16 / every)
    assert at_once.met(2.0, holding=True) == pytest.approx(1 - 2 * 16 / every)
    assert at_once.met(4.0, holding=False) == 1.0
    assert at_once.margin_for(0.99, holding=False) == pytest.approx(4.0, abs=1e-3)
    # 1 % may miss: 4.48 of the 64 that come meanwhile.
    assert at_once.margin_for(0.99, holding=True) == pytest.approx(4 * (1 - 4.48 / 64), abs=1e-3)
    assert course.known == 128 - 16 + 4 * (64 + 16) + 64


def test_what_was_held_through_a_dip_is_there_after_it():
    dip = [2.0] * 64 + [1.0] * 8 + [2.0] * 64
    course = Course(dip, dip, 16)
    assert reaction(course, hold_s=0.0).met(1.0, holding=False) < 1.0
    held = reaction(course, hold_s=8 * 15.0)
    assert held.met(1.0, holding=False) == 1.0
    assert sum(held.paid) == 2.0 * len(dip)


def three_days(tmp_path: Path, *more: str) -> argparse.Namespace:
    file = tmp_path / "days.csv"
    lines = [f"{3600 * hour},{2 + hour // 24},500,100" for hour in range(72)]
    head = "start_s,requests_per_s,mean_input_tokens,mean_output_tokens"
    file.write_text("\n".join([head, *lines]))
    return _arguments(["--rates", str(file), *more])


def test_a_day_with_history_has_the_days_before_it(tmp_path: Path):
    settings = ScalingSimulation(profile("h100-llama-3.1-8b"))
    options = three_days(tmp_path, "--days", "3", "--history", "learned")
    first, second, third = demands(options, settings)
    assert first.past is None
    assert [(case.past.end_s, case.day) for case in (second, third) if case.past] == [
        (DAY_S, 1),
        (2 * DAY_S, 2),
    ]
    assert {step.requests_per_s for step in third.rates.steps} == {4.0}
    none = demands(three_days(tmp_path, "--days", "3"), settings)
    assert [case.past for case in none] == [None] * 3
    with pytest.raises(SystemExit):
        three_days(tmp_path, "--history", "run")


def test_a_pool_that_goes_on_is_played_once_and_judged_by_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    played: list[tuple[float, str]] = []

    def pieces(settings: object, demand: Demand, written: str, piece_s: float):
        played.append((demand.end_s, written))
        assert piece_s == DAY_S
        return [scored(written, 0.99, 10.0 * day) for day in range(3)]

    monkeypatch.setattr(scaling_compare, "run_pieces", pieces)
    settings = ScalingSimulation(profile("h100-llama-3.1-8b"))
    options = three_days(
        tmp_path, "--day", "1", "2", "--history", "run", "--own-targets", "0.995",
        "--scalers", "static", "--jobs", "1",
    )  # fmt: skip
    days = DayByDay(settings, options)
    every = [compare(settings, case, options, days) for case in demands(options, settings)]
    assert played == [(3 * DAY_S, "headrace"), (3 * DAY_S, "headrace:attainment=0.995")]
    own = [[each.replica_hours for each in scores[:2]] for scores in every]
    assert own == [[10.0, 10.0], [20.0, 20.0]]
    assert [each.scaler for each in every[0]][2:4] == ["oracle", "static"]
