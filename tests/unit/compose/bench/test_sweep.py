"""`--sweep`: which flags go with it, how long a run is, and the whole way over a virtual engine."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.bench.endpoint.target import Target
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.sending.pool import Run
from headrace.bench.settings import BenchError, BenchSettings
from headrace.compose.bench.input import BenchOptions
from headrace.compose.bench.sweep import check_sweep, load_of_step, run_sweep
from headrace.compose.process.terminal import Terminal
from headrace.traffic.load import Load
from headrace.traffic.texts import Sizing
from tests.unit.bench.virtual_engine import VirtualEngine

OPTIONS = BenchOptions("http://127.0.0.1:1", sweep=True, duration="10s", lengths="256/32")
SLOS = Slos(Slo(ttft_s=1.0, share=0.95))
ENGINE = VirtualEngine(requests=200)


def play(load: Load) -> Run:
    if load.users == 1:
        run = ENGINE.run_alone(load.requests, load.seed)
        return Run(run.records, run.info)
    run = replace(ENGINE, requests=load.requests).run(load.peak_rps, load.seed)
    return Run(run.records, run.info)


def target() -> Target:
    settings = BenchSettings(OPTIONS.url)
    return Target(settings, "virtual", OPTIONS.url, "", "127.0.0.1", Sizing())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"users": 3}, "leave out --users"),
        ({"rates": "1@1s"}, "leave out --rates"),
        ({"traffic": "agentic"}, "leave out --traffic"),
        ({"raw": Path("x")}, "--raw writes one"),
        ({"precision": 0.0001}, "precision is 0.0001; give 0.001 or more"),
    ],
)
def test_flags_that_do_not_go_together(given, said):
    with pytest.raises(BenchError, match="--sweep") as caught:
        check_sweep(replace(OPTIONS, **given))
    assert said in str(caught.value)


def test_rate_is_where_it_begins():
    assert check_sweep(OPTIONS).start_rps == 1.0
    assert check_sweep(replace(OPTIONS, rate=12.5, seed=4)).start_rps == 12.5
    assert check_sweep(replace(OPTIONS, seed=4)).seed == 4


def test_it_looks_for_as_long_as_a_run_is_asked_for():
    assert check_sweep(OPTIONS).look_s == 10.0
    assert check_sweep(replace(OPTIONS, requests=30)).look_s == 0.0


def test_a_run_has_enough_requests_and_lasts_long_enough():
    assert load_of_step(OPTIONS, SLOS, 2.0, 0).requests == 100
    assert load_of_step(OPTIONS, SLOS, 50.0, 0).requests == 500
    assert load_of_step(replace(OPTIONS, requests=30), SLOS, 50.0, 0).requests == 30


def test_the_answer_is_shown_by_runs_of_twelve_times_the_length():
    assert check_sweep(OPTIONS).proof_s == 120.0
    assert check_sweep(replace(OPTIONS, duration=None)).proof_s == 360.0
    assert check_sweep(replace(OPTIONS, proof="30m")).proof_s == 1800.0
    assert check_sweep(replace(OPTIONS, proof="0")).proof_s == 0.0


def test_the_whole_way(capsys, tmp_path):
    options = replace(OPTIONS, json=True, rate=0.5, proof="6m", report=tmp_path / "sweep.html")
    assert run_sweep(options, target(), SLOS, play, Terminal()) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert 5.0 < document["highest_met_rps"] < 10.0
    bounds = document["bounds"]
    assert bounds["low_rps"] <= bounds["estimate_rps"] <= bounds["high_rps"]
    assert f"most likely near {bounds['estimate_rps']:.4g}" in document["headline"]
    assert "0.5 requests/s: a look, 20 of 20 met; on to twice the rate" in told.err
    page = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert "A run at" in page
    assert "Poisson, 256/32 tokens in/out, at many rates" in page


def test_targets_out_of_reach_end_it_after_one_rate(capsys, tmp_path):
    options = replace(OPTIONS, rate=20.0, report=tmp_path / "sweep.html")
    slos = Slos(Slo(ttft_s=0.01, share=0.8))
    assert run_sweep(options, target(), slos, play, Terminal()) == 1
    told = capsys.readouterr()
    assert "NO RATE CAN MEET the targets" in told.out
    assert "one request at a time: not met (0 of 20 met" in told.err
    assert "10 requests/s" not in told.err
    assert "one request at a time: not met" in (tmp_path / "sweep.html").read_text("utf-8")


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    options = replace(OPTIONS, rate=4.0, report=tmp_path)
    with pytest.raises(BenchError, match="cannot write"):
        run_sweep(options, target(), SLOS, play, Terminal())
