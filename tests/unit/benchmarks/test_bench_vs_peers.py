"""Which runs are right, and how figures of other tools are read and laid out."""

import json
from pathlib import Path

import pytest

from benchmarks.bench_vs_peers import is_right
from benchmarks.generator_runs import Outcome
from benchmarks.generators import GENERATORS, Figures, Workload
from benchmarks.peers_table import Row, as_tables

LOAD = Workload("http://127.0.0.1:1", "emulated", 100.0, 1000, 256, 32, Path("tokenizer"), 1)
BY_NAME = {each.name: each for each in GENERATORS}


def outcome(requests: int = 1000, **given: float) -> Outcome:
    usual = {
        "completed": requests, "rate": 100.0, "ttft_p50_s": 0.051, "ttft_p99_s": 0.06,
        "tpot_p50_s": 0.01,
    }  # fmt: skip
    return Outcome(requests, 12.0, 1.0, Figures(**{**usual, **given}))


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({}, True),
        ({"rate": 94.0}, True),
        ({"rate": 85.0}, False),
        ({"rate": 115.0}, False),
        ({"ttft_p50_s": 0.0551}, False),
        ({"tpot_p50_s": 0.0106}, False),
        ({"completed": 980}, False),
        ({"requests": 100, "rate": 75.0}, True),  # so much is chance with 100 arrivals
    ],
)
def test_what_is_right(given, right):
    assert is_right(100.0, outcome(**given)) == right


def test_a_tool_that_failed_is_not_right():
    assert not is_right(100.0, Outcome(10, 1.0, 1.0, None, "exit code 1"))


def test_aiperf_in_our_definitions(tmp_path):
    found = {
        "request_count": {"avg": 1000.0},
        "benchmark_duration": {"avg": 10.36},
        "request_latency": {"p50": 360.0},
        "time_to_first_token": {"p50": 51.0, "p99": 70.0},
        "inter_token_latency": {"p50": 10.1},
    }
    (tmp_path / "profile_export_aiperf.json").write_text(json.dumps(found))
    figures = BY_NAME["aiperf"].read(LOAD, tmp_path, "")
    assert figures.completed == 1000
    assert figures.rate == pytest.approx(100.0)
    assert (figures.ttft_p50_s, figures.ttft_p99_s) == (0.051, 0.07)
    assert figures.tpot_p50_s == pytest.approx(0.0101)


def test_guidellm_in_our_definitions(tmp_path):
    found = {
        "requests": {"successful": [{"request_start_time": number / 100} for number in range(101)]},
        "metrics": {
            "time_to_first_token_ms": {"successful": {"median": 51.0, "percentiles": {"p99": 70}}},
            "inter_token_latency_ms": {"successful": {"median": 10.0}},
            "time_per_output_token_ms": {"successful": {"median": 11.6}},
        },
    }
    (tmp_path / "guidellm.json").write_text(json.dumps({"benchmarks": [found]}))
    figures = BY_NAME["guidellm"].read(LOAD, tmp_path, "")
    assert figures.completed == 101
    assert figures.rate == pytest.approx(100.0)
    assert (figures.ttft_p50_s, figures.ttft_p99_s, figures.tpot_p50_s) == (0.051, 0.07, 0.01)


def test_a_late_generator_is_read_from_its_headline():
    run = {"duration_s": 10.36}
    scores = {
        "completed": 1000, "e2e_s": {"p50": 0.36}, "ttft_s": {"p50": 0.05, "p99": 0.07},
        "tpot_s": {"p50": 0.01},
    }  # fmt: skip
    verdict = {"valid": False, "headline": "INVALID RUN: late"}
    output = "a line\n" + json.dumps({"all": scores, "run": run, "verdict": verdict})
    figures = BY_NAME["headrace"].read(LOAD, Path(), output)
    assert figures.warning == "INVALID RUN: late"
    assert figures.rate == pytest.approx(100.0)


def test_ratios_are_to_headrace():
    def row(name: str, cpu_ms: float | None) -> Row:
        return Row(name, "1", None, 1.0, cpu_ms, 200.0, 600.0, 0.06, "", 0.05, 0.01, 6.0)

    text = as_tables([row("headrace", 0.5), row("other", 3.0), row("third", None)], cpu_rate=200,
                     truth=True)  # fmt: skip
    assert "| other (1) | 3.00 (6.00×) |" in text
    assert "| third (1) | – |" in text
    assert "(last − first token) / (tokens − 1)" in text
