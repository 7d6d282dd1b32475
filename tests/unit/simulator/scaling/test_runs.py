"""Comparisons: the oracle's search, the sweep, and the page."""

from html.parser import HTMLParser

import pytest

from headrace.simulator.scaling.report import scaling_report
from headrace.simulator.scaling.runs import ScalingWorkload, run_scaler, run_scalers
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores, Timeline
from headrace.simulator.scaling.sweep import (
    best_at,
    better_in_both,
    combinations,
    defaults_and_best,
    gap_closed,
)
from tests.unit.simulator.scaling.parts import demand, settings

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
    assert "&lt;made&gt;" in page
    assert "nan" not in page
    assert 'class="demand"' in page
    assert 'class="capacity"' in page
