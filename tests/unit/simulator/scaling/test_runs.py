"""Comparisons: the oracle's search, the sweep, and the page."""

import re
from array import array
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from headrace.simulator.scaling import plots
from headrace.simulator.scaling.demand import demand_of_trace
from headrace.simulator.scaling.report import scaling_report
from headrace.simulator.scaling.runs import ScalingWorkload, run_scaler, run_scalers
from headrace.simulator.scaling.scalers import make_scaler
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores, Timeline
from headrace.simulator.scaling.sweep import (
    best_at,
    better_in_both,
    combinations,
    defaults_and_best,
    gap_closed,
)
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import arrivals_of
from headrace.traffic.trace import TraceRequest
from tests.pages import misplaced_tags
from tests.unit.simulator.scaling.parts import ENGINE, demand, demand_of, rates, reading, settings

WORKLOAD = ScalingWorkload("made", demand(40.0, 80.0, 120.0, 60.0, 40.0, cv=1.0, gap_cv=2.0))


def scores(scaler, attainment, hours):
    return ScalingScores(scaler, attainment, attainment, hours, 1, 0)


def run_of(scaler, attainment, hours):
    return ScalingRun(scores(scaler, attainment, hours), Timeline(), 0.0)


def test_the_oracle_reaches_the_goal_with_the_least_margin():
    oracle = run_scaler(settings(), WORKLOAD, "oracle").scores
    assert oracle.scaler == "oracle"
    assert 0.99 <= oracle.attainment < 0.999
    for name in ("llmd_slo", "hpa_rps:share=0.5", "static"):
        other = run_scaler(settings(), WORKLOAD, name).scores
        assert not other.beats(oracle)


@pytest.mark.parametrize("events", [False, True])
def test_the_oracle_goes_to_zero_where_nothing_comes_and_nothing_is_promised(events):
    # Nothing, a quarter of an hour of work, nothing, work again, and a long end without any.
    made = rates(0.0, 2.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, step_s=900.0)
    workload = ScalingWorkload("made", demand_of(made))
    if events:
        requests = list(arrivals_of(made, LognormalSpread(1.0), 1))
        workload = ScalingWorkload(
            "made", demand_of_trace("made", requests, ENGINE, seed=1), requests
        )
    patient = settings(cold_start_s=100.0)
    kept = run_scaler(patient, workload, "oracle").scores
    freed = run_scaler(replace(patient, min_replicas=0), workload, "oracle").scores
    assert kept.replica_hours >= 1.25  # all of the time, in events up to the last request
    assert freed.attainment >= 0.99
    # Two quarters of work, each with its cold start, a sync and the last streams.
    assert 0.5 <= freed.replica_hours <= 2 * (900 + 100 + 60) / 3600
    other = run_scaler(replace(patient, min_replicas=0), workload, "headrace").scores
    assert other.replica_hours > freed.replica_hours


@pytest.mark.parametrize("events", [False, True])
def test_at_zero_headrace_alone_gives_its_last_replica_back_and_nobody_starves(events):
    # A little work, nothing for 40 minutes, and again.
    made = rates(2.0, *[0.0] * 8, 3.0, step_s=300.0)
    workload = ScalingWorkload("made", demand_of(made))
    if events:
        requests = list(arrivals_of(made, LognormalSpread(1.0), 1))
        workload = ScalingWorkload(
            "made", demand_of_trace("made", requests, ENGINE, seed=1), requests
        )
    patient = settings(cold_start_s=30.0, min_replicas=0)
    own = run_scaler(patient, workload, "headrace").scores
    # 15 minutes are waited, and 25 are not paid; who comes first waits for a cold start.
    assert 15 / 60 < own.replica_hours < 30 / 60
    assert 0.6 < own.attainment < 0.97
    for name in ("llmd_slo", "keda_queue", "dynamo_planner"):
        other = run_scaler(patient, workload, name).scores
        assert other.attainment > 0.98
        assert other.replica_hours > 40 / 60


def test_the_oracle_of_single_requests_knows_the_prefixes_that_hit():
    # Nearly all of each prompt is the same, in blocks that are not of the usual size.
    shared = tuple(range(60))
    requests = [
        TraceRequest(place * 0.05, 63 * 64, 60, (*shared, 1000 + place)) for place in range(600)
    ]
    made = demand_of_trace("made", requests, ENGINE, seed=1)
    workload = ScalingWorkload("made", made, requests, block_tokens=64)
    oracle = run_scaler(settings(), workload, "oracle").scores
    assert oracle.attainment >= 0.99
    for margin in (0.9, 0.6, 0.4):
        other = run_scaler(settings(), workload, f"oracle:margin={margin}").scores
        assert other.attainment < 0.99 or other.replica_hours >= oracle.replica_hours


def test_the_oracle_keeps_a_replica_while_anyone_waits():
    oracle = make_scaler("oracle", settings(min_replicas=0), demand(0.0, 0.0, 1.0, 0.0))
    assert oracle.wish(reading(60.0)) == 0
    assert oracle.wish(reading(60.0, queue_depth=3.0)) == 1


def test_runs_come_in_their_order_from_other_processes_too():
    names = ["static", "llmd_slo", "hpa_rps"]
    said = []
    together = run_scalers(
        settings(), WORKLOAD, names, processes=2, report=lambda *what: said.append(what)
    )
    alone = [run_scaler(settings(), WORKLOAD, name).scores for name in names]
    assert [run.scores for run in together] == alone


def test_a_sweep_keeps_the_default_and_the_cheapest_that_reaches_the_goal():
    names = combinations("static")
    assert names[0] == "static"
    assert "static:margin=1.5" in names
    assert combinations("headrace") == ["headrace"]
    assert all("up=0.45,down=0.5" not in name for name in combinations("llmd_slo"))
    runs = [run_of(name, 0.98, 50.0) for name in names]
    runs[3] = run_of(names[3], 0.995, 70.0)
    runs[4] = run_of(names[4], 0.999, 90.0)
    assert [run.scores.scaler for run in defaults_and_best(["static"], runs, 0.99)] == [
        "static",
        names[3],
    ]
    assert best_at(0.9999, runs).scores.attainment == 0.999


def test_who_is_better_in_both_and_how_much_of_the_gap_is_closed():
    own, oracle = scores("headrace", 0.992, 120.0), scores("oracle", 0.99, 100.0)
    cheap, dear = scores("llmd_slo:up=0.6", 0.995, 140.0), scores("static", 1.0, 200.0)
    assert better_in_both([own, oracle, cheap, dear]) == []
    assert gap_closed([own, oracle, cheap, dear], 0.99) == pytest.approx(0.5)
    better = scores("hpa_rps", 0.993, 119.0)
    assert better_in_both([own, better, oracle]) == [better]
    assert gap_closed([scores("headrace", 0.98, 99.0), oracle, cheap], 0.99) is None
    assert gap_closed([own, scores("oracle", 0.99, 150.0), cheap], 0.99) is None
    assert gap_closed([scores("headrace", 0.99, 150.0), oracle, cheap], 0.99) is None
    assert gap_closed([scores("headrace", 0.99, 90.0), oracle, cheap], 0.99) is None


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.figures = 0
        self.outside = []

    def handle_starttag(self, tag, attrs):
        self.figures += tag == "figure"
        self.outside += [value for name, value in attrs if name in {"src", "href"}]


def test_the_page_stands_alone_and_has_a_panel_for_each_scaler():
    runs = [run_scaler(settings(), WORKLOAD, name) for name in ("headrace", "llmd_slo")]
    page = scaling_report(runs, settings(), WORKLOAD, [("demand", "<made>")])
    parsed = _Page()
    parsed.feed(page)
    assert (parsed.figures, parsed.outside) == (3, [])
    assert misplaced_tags(page) == []
    assert "&lt;made&gt;" in page
    assert "nan" not in page
    assert 'class="demand"' in page
    assert 'class="capacity"' in page


def test_the_page_tells_replica_hours_that_differ_by_less_than_one():
    runs = [run_scaler(settings(), WORKLOAD, name) for name in ("headrace", "oracle")]
    shown = re.findall(r"<b>([^<]*) h</b>", scaling_report(runs, settings(), WORKLOAD, []))
    assert shown == [f"{run.scores.replica_hours:,.1f}" for run in runs]


def test_a_panel_in_which_nothing_missed_says_none():
    run = run_scaler(settings(), WORKLOAD, "static:margin=8")
    told = run.timeline
    none = replace(run, timeline=replace(told, missed=array("d", [0.0] * len(told.at_s))))
    some = replace(run, timeline=replace(told, missed=array("d", [2.0] * len(told.at_s))))
    assert ">none<" in plots.panel(none, 10.0, WORKLOAD.demand.end_s)
    assert ">none<" not in plots.panel(some, 10.0, WORKLOAD.demand.end_s)
