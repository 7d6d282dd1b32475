"""The page: it stands alone, shows every policy, and its drawings are well formed."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from headrace.plotting import svg
from headrace.plotting.svg import Scale
from headrace.simulator.plots import (
    CHARACTER,
    Cast,
    p90_by_window,
    ranked_runs,
    share_bars,
    ttft_over_time,
)
from headrace.simulator.report import report_page
from headrace.simulator.results import Results, distribution
from headrace.simulator.runs import POOLED_REFERENCE, PolicyRun, run_policy
from headrace.simulator.settings import Slo
from tests.pages import drawings, misplaced_tags, touching_labels
from tests.unit.simulator.parts import settings, trace
from tests.unit.simulator.test_results import ended

POLICIES = ("round_robin", "dynamo_kv:overlap_weight=4", "seconds", POOLED_REFERENCE)


@pytest.fixture(scope="module")
def runs() -> list[PolicyRun]:
    return [run_policy(settings(), trace(), policy) for policy in POLICIES]


@pytest.fixture(scope="module")
def page(runs: list[PolicyRun]) -> str:
    return report_page(runs, settings(), [("trace", "<odd> & named"), ("replicas", "3")])


def test_it_needs_no_network(page):
    assert not re.search(r"https?:|src=|@import|url\(", page)


def test_every_drawing_shows_every_policy(page):
    wide, phone = drawings(page, "wide"), drawings(page, "phone")
    assert len(wide) == len(phone) == 6
    for drawing in (*wide, *phone):
        groups = {each.get("data-series") for each in drawing.iter("g")}
        assert groups == set(POLICIES)


def test_nothing_is_drawn_outside_the_picture(page):
    assert drawings(page)
    for drawing in drawings(page):
        _, _, width, height = map(float, (drawing.get("viewBox") or "").split())
        for curve in drawing.iter("polyline"):
            for pair in (curve.get("points") or "").split():
                x, y = map(float, pair.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height


def test_names_are_escaped_and_tags_closed(page):
    assert "&lt;odd&gt; &amp; named" in page
    assert "<odd>" not in page
    assert misplaced_tags(page) == []


def test_light_and_dark(page):
    assert "prefers-color-scheme: dark" in page


def test_the_table_has_the_figures(page, runs):
    for run in runs:
        assert f"{run.scores.ttft_s.mean:.3f}" in page
        assert f"{run.scores.goodput_share * 100:.2f}" in page


def test_the_best_comes_first_and_the_reference_last(runs):
    ranked = [run.policy for run in ranked_runs(runs)]
    assert ranked[-1] == POOLED_REFERENCE
    assert Cast(runs).kind("seconds") == "c0"
    assert Cast(runs).kind(POOLED_REFERENCE) == "reference"


def test_one_policy_of_which_nothing_was_served():
    results = Results()
    results.arrive(0.0)
    results.end_s = 9.0
    run = run_policy(settings(), trace(1), "seconds")
    empty = PolicyRun("seconds", run.scores, results, 0.0)
    assert len(drawings(report_page([empty], settings(slo=Slo(1.0, 0.1)), []), "wide")) == 6


def test_on_a_phone_names_stand_above_and_letters_are_as_large_as_elsewhere(page):
    for drawing in drawings(page, "phone"):
        _, _, width, _ = map(float, (drawing.get("viewBox") or "").split())
        assert width == svg.PHONE  # about its pixels: a wider one would be made smaller
        names = [each for each in drawing.iter("text") if each.get("class") == "name"]
        assert len(names) in {0, len(POLICIES)}
        for name in names:
            assert name.get("text-anchor") == "start"
            assert float(name.get("x") or 0.0) + len(name.text or "") * CHARACTER <= width
        assert touching_labels(drawing) == []
    assert ".on-phone { display: none; }" in page
    assert ".on-wide { display: none; } .on-phone { display: block;" in page


def test_values_that_would_touch_are_left_out_of_an_axis():
    frame = svg.frame(svg.PHONE, 300, left=40, right=20, top=10, bottom=40)
    scale = Scale(0.0, 5e6, frame.x_from, frame.x_to)
    parts = svg.x_axis(frame, scale, "tokens", svg.amount)
    drawing = ET.fromstring(svg.drawing(frame, "", parts))
    assert touching_labels(drawing) == []
    lines = [each for each in drawing.iter("line") if each.get("class") == "grid"]
    labels = [each.text for each in drawing.iter("text") if each.get("class") == "tick"]
    assert len(lines) == 6
    assert 2 <= len(labels) < len(lines)
    assert labels[0] == "0"


def test_the_p90_of_a_window_is_of_what_arrived_in_it():
    early = [(i * 0.1, i * 0.1 + 1.0, 50.0, 2) for i in range(10)]
    late = [(47.0 + i * 0.1, 47.0 + i * 0.1 + 3.0, 60.0, 2) for i in range(10)]
    few, many = ended(*early, *late), ended(*early * 24, *late * 24)
    assert p90_by_window(few, 48.0) == [(12.0, pytest.approx(1.0)), (36.0, pytest.approx(3.0))]
    assert p90_by_window(many, 48.0) == [(0.5, pytest.approx(1.0)), (47.5, pytest.approx(3.0))]


def test_the_target_stands_where_it_is_even_if_all_are_far_below(runs):
    """And the axes of shares say different things at different places where nothing was hit."""
    lines = ET.fromstring(ttft_over_time(runs, Cast(runs), 100.0))
    levels = [each.attrib["y1"] for each in lines.iter("line") if each.get("class") == "target"]
    ticks = {each.text: each.attrib["y"] for each in lines.iter("text")}
    assert [float(each) + 4 for each in levels] == [float(ticks["100 s"])]
    bars = ET.fromstring(share_bars(runs, Cast(runs), "none", lambda _: 0.0))
    said = [each.text for each in bars.iter("text") if each.get("class") == "tick"]
    assert len(said) == len(set(said)) > 3


def test_a_tie_is_no_victory(runs):
    alike = [runs[0], replace(runs[0], scores=replace(runs[0].scores, policy="b"))]
    assert "2 policies" in report_page(alike, settings(), [])
    assert "2 policies" not in report_page(runs[:1], settings(), [])
    assert f"the figures beside are of {runs[0].policy}<" in report_page(alike, settings(), [])


def test_the_best_policys_name_may_be_broken_between_its_parameters(runs):
    swept = replace(runs[0].scores, policy="dynamo_kv:overlap_weight=2,below_zero=1")
    page = report_page([replace(runs[0], policy=swept.policy, scores=swept)], settings(), [])
    name = "dynamo_kv:<wbr>overlap_weight=2,<wbr>below_zero=1"
    assert f'<div class="fact long"><b>{name}</b>' in page
    assert f'<div class="fact"><b>{runs[0].scores.goodput_share * 100:.1f} %</b>' in page


def test_a_mean_below_a_second_is_told_in_milliseconds(runs):
    scores = replace(runs[0].scores, ttft_s=distribution([0.0649]))
    page = report_page([replace(runs[0], scores=scores)], settings(), [])
    assert "<b>65 ms</b><span>mean TTFT, p99 65 ms</span>" in page


def test_a_logarithmic_scale_is_between_round_values():
    scale = svg.logarithmic(0.03, 7.0, 0.0, 100.0)
    assert (scale.low, scale.high) == (pytest.approx(0.02), pytest.approx(10.0))
    assert scale.place(0.02) == 0.0
    assert scale.place(10.0) == pytest.approx(100.0)
    assert scale.place(1e9) == pytest.approx(100.0)
    assert scale.ticks()[-1] == pytest.approx(10.0)
    assert svg.logarithmic(1.0, 1.0, 0.0, 1.0).high > 1.0


def test_a_linear_scale_has_about_five_ticks():
    assert Scale(0.0, 1.0, 0.0, 10.0).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert 3 <= len(Scale(0.0, 0.17, 0.0, 10.0).ticks()) <= 6
