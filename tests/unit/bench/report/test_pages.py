"""Pages stand alone, draw what happened, and are well formed."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from headrace.bench.figures.scores import summarise
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.report.run_page import report_page
from headrace.bench.report.run_plots import middle_by_length
from headrace.bench.report.sweep_page import sweep_page
from headrace.bench.sweep.search import SweepSettings, sweep
from headrace.plotting.svg import PHONE
from tests.pages import drawings, misplaced_tags, touching_labels
from tests.unit.bench.virtual_engine import Run, VirtualEngine

SLOS = Slos(Slo(ttft_s=1.0, tpot_s=0.05, share=0.95), {"<gold>": Slo(ttft_s=0.5)})
MIXED = VirtualEngine(
    requests=300,
    classes={"short": (64, 16), "long": (512, 64)},
    tiers=("", "<gold>"),
    stall=(20.0, 5.0),
    failing=0.05,
)


def page_of(run: Run) -> str:
    return report_page(run.records, summarise(run.records, run.info, SLOS))


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(MIXED.run(4.0))


@pytest.fixture(scope="module")
def swept() -> str:
    engine = replace(MIXED, stall=None, failing=0.0)
    return sweep_page(sweep(engine.run, SweepSettings(most_runs=9), SLOS), "traffic", "http://e")


@pytest.fixture(params=["page", "swept"])
def either(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def names(page: str) -> set[str]:
    return {each.get("aria-label") or "" for each in drawings(page)}


def test_it_needs_no_network(either):
    assert not re.search(r"src=|@import|url\(|<link", either)


def test_no_line_of_the_verdict_ends_before_a_unit(either):
    [said] = re.findall(r'<div class="verdict .*?</div>', either, re.DOTALL)
    assert re.search(r"\d\N{NO-BREAK SPACE}%", said)
    assert not re.search(r"\d (?:%|s\b|ms\b)", said)


def test_each_plot_is_drawn_for_a_phone_too(either):
    wide, phone = drawings(either, "wide"), drawings(either, "phone")
    assert len(wide) + len(phone) == len(drawings(either))
    assert [each.get("aria-label") for each in wide] == [each.get("aria-label") for each in phone]
    for drawing in phone:
        assert (drawing.get("viewBox") or "").startswith(f"0 0 {PHONE:g} ")
        assert touching_labels(drawing) == []


def test_tags_are_closed_and_names_escaped(either):
    assert "&lt;gold&gt;" in either
    assert "<gold>" not in either
    assert misplaced_tags(either) == []


def test_nothing_is_drawn_outside_the_picture(either):
    assert drawings(either)
    for drawing in drawings(either):
        _, _, width, height = map(float, (drawing.get("viewBox") or "").split())
        places = [
            tuple(map(float, pair.split(",")))
            for curve in drawing.iter("polyline")
            for pair in (curve.get("points") or "").split()
        ]
        for path in drawing.iter("path"):
            places += [
                (float(x), float(y))
                for x, y in re.findall(r"([\d.-]+),([\d.-]+)", path.get("d") or "")
            ]
        assert places
        for x, y in places:
            assert -0.1 <= x <= width + 0.1
            assert -0.1 <= y <= height + 0.1


def test_a_run_has_its_plots(page):
    assert names(page) == {
        "TTFT over time", "TPOT over time", "CDF of TTFT", "CDF of TPOT and ITL",
        "TTFT against prompt length", "Output tokens/s", "Requests open and waiting",
        "The generator's own lag over time",
    }  # fmt: skip


def test_a_sweep_has_its_curves_and_the_run_at_the_answer(swept):
    assert {"Goodput against the rate", "Goodput share against the rate"} <= names(swept)
    assert "Latency against throughput" in names(swept)
    assert "TTFT over time" in names(swept)


def test_a_run_of_whole_answers_shows_when_they_ended():
    run = MIXED.run(4.0)
    for record in run.records:
        record.first_token_s = record.last_token_s = None
        del record.itl_s[:]
    shown = page_of(Run(run.records, replace(run.info, streamed=False)))
    assert names(shown) >= {"E2E over time", "CDF of E2E"}
    assert not names(shown) & {"TTFT over time", "TPOT over time"}
    assert "E2E p50, p99" in shown


def test_ends_are_shown_where_they_are_a_target(page):
    run = MIXED.run(4.0)
    slos = Slos(Slo(e2e_s=5.0))
    shown = report_page(run.records, summarise(run.records, run.info, slos))
    assert names(shown) == {*names(page), "E2E over time", "CDF of E2E"}


def test_a_sweep_shows_no_figure_that_was_not_measured():
    def whole(rate: float, seed: int) -> Run:
        run = replace(MIXED, stall=None, failing=0.0).run(rate, seed)
        for record in run.records:
            record.first_token_s = record.last_token_s = None
            del record.itl_s[:]
        return Run(run.records, replace(run.info, streamed=False))

    slos = Slos(Slo(e2e_s=5.0, share=0.95))
    shown = sweep_page(sweep(whole, SweepSettings(most_runs=4), slos), "traffic", "http://e")
    assert "E2E p50 there" in shown
    assert "TPOT p50 there" not in shown
    assert "Time to first token" not in shown
    assert "End of the answer against throughput" in shown


def test_a_target_far_away_is_drawn_nowhere_else():
    run = replace(MIXED, stall=None).run(4.0)
    for target_s, drawn in ((0.1, True), (1000.0, False)):
        slos = Slos(Slo(ttft_s=target_s))
        shown = report_page(run.records, summarise(run.records, run.info, slos))
        (curves,) = [
            each for each in drawings(shown, "wide") if each.get("aria-label") == "CDF of TTFT"
        ]
        assert ('class="target"' in ET.tostring(curves, "unicode")) is drawn


def test_what_fits_in_one_window_has_lines_too():
    run = replace(MIXED, stall=None, failing=0.0, requests=15).run(4.0)
    (over_time,) = [
        each
        for each in drawings(page_of(run), "wide")
        if each.get("aria-label") == "TTFT over time"
    ]
    lines = [each for each in over_time.iter() if each.get("class") == "line"]
    assert len(lines) == 2
    assert all(
        len(re.findall(r"[-\d.]+[ ,][-\d.]+", each.get("points") or "")) > 1 for each in lines
    )


def test_numbers_on_an_axis_are_written_in_full():
    run = replace(MIXED, stall=None, failing=0.0, classes={"long": (64, 4000)}).run(400.0)
    assert not re.search(r">[\d.]+e[+-]\d+<", page_of(run))


def test_failed_requests_are_marked(page):
    over_time = next(each for each in drawings(page) if each.get("aria-label") == "TTFT over time")
    marks = [path for path in over_time.iter("path") if path.get("class") == "failed"]
    assert len(marks) == 1
    failed = sum(bool(record.error) for record in MIXED.run(4.0).records)
    assert (marks[0].get("d") or "").count("M") == failed


def test_a_page_of_many_requests_stays_small():
    run = replace(MIXED, requests=20_000, stall=None).run(4.0)
    assert len(page_of(run)) < 400_000


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_run_of_almost_nothing_has_a_page(count):
    run = MIXED.run(4.0)
    assert "<h1>headrace bench</h1>" in page_of(Run(run.records[:count], run.info))


def test_a_run_where_everything_failed_has_a_page():
    run = replace(MIXED, failing=1.0).run(4.0)
    assert "TTFT over time" not in names(page_of(run))
    assert "the answer had status 503" in page_of(run)


def test_definitions_stand_under_the_tables(either):
    assert "(last − first token) / (tokens − 1)" in either
    assert "inter-token latency" in either


def test_the_middle_of_one_length_is_its_median():
    same = [(100.0, float(ttft)) for ttft in range(1, 102)]
    assert middle_by_length(same) == [(100.0, 51.0)]
    two = [*same, *((200.0, float(ttft)) for ttft in range(1, 4))]
    assert middle_by_length(two) == [(100.0, 51.0), (200.0, 2.0)]


def test_what_was_said_of_an_error_is_a_cell_that_wraps(page):
    (cell,) = re.findall(r'<td class="said">([^<]*)</td>', page)
    assert cell.startswith("the answer had status 503")


def test_a_few_requests_are_drawn_so_that_each_is_seen():
    assert 'class="few dots"' in page_of(replace(MIXED, requests=20).run(4.0))
    some = page_of(VirtualEngine(requests=300).run(4.0))
    assert 'class="some dots"' in some
    assert "few dots" not in some
    many = page_of(VirtualEngine(requests=500).run(4.0))
    assert 'class="dots"' in many
    assert "some dots" not in many
