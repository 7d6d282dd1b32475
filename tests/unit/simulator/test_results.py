"""Scores of requests whose ends are known."""

import json
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.simulator.results import (
    FAILED,
    SHED,
    Results,
    distribution,
    percentile,
    scores_of,
)
from headrace.simulator.settings import Slo


def ended(*requests: tuple[float, float, float, int]) -> Results:
    """Of each request its arrival, first token, last token and output tokens."""
    results = Results()
    for arrival_s, first_s, last_s, tokens in requests:
        row = results.arrive(arrival_s)
        results.first_token(row, first_s, 1000, 250)
        results.complete(row, last_s, tokens)
    return results


def test_a_request_has_one_ttft_and_one_tpot():
    scores = scores_of("p", ended((10.0, 11.0, 13.0, 21)), Slo())
    assert scores.ttft_s.mean == scores.ttft_s.p99 == 1.0
    assert scores.tpot_s.mean == pytest.approx(0.1)
    assert scores.hit_ratio == 0.25
    assert scores.output_tokens_per_s == pytest.approx(7.0)


def test_a_single_token_has_no_tpot_and_can_be_good():
    scores = scores_of("p", ended((0.0, 1.0, 1.0, 1), (0.0, 1.0, 2.0, 11)), Slo(tpot_s=0.2))
    assert scores.tpot_s.mean == pytest.approx(0.1)
    assert scores.goodput_share == 1.0


@pytest.mark.parametrize(
    ("slo", "share"),
    [
        (Slo(1.0, 0.1), 1.0),
        (Slo(0.999, 0.1), 0.0),
        (Slo(1.0, 0.0999), 0.0),
    ],
)
def test_goodput_meets_both_targets(slo, share):
    assert scores_of("p", ended((0.0, 1.0, 2.0, 11)), slo).goodput_share == share


def test_what_is_not_served_is_a_miss_and_waits_to_the_end():
    results = ended((0.0, 1.0, 8.0, 3))
    for arrival_s, state in ((2.0, SHED), (3.0, FAILED)):
        results.give_up(results.arrive(arrival_s), arrival_s, state)
    unfinished = results.arrive(4.0)
    results.first_token(unfinished, 5.0, 10, 0)
    results.end_s = 12.0
    scores = scores_of("p", results, Slo(5.0, 5.0))
    assert (scores.requests, scores.completed, scores.shed) == (4, 1, 1)
    assert scores.goodput_share == 0.25
    assert list(results.judged_ttft_s()) == [1.0, 10.0, 9.0, 8.0]
    assert scores.ttft_s.mean == 7.0


def test_nothing_to_measure_is_zero():
    assert distribution([]) == distribution([0.0])
    scores = scores_of("p", Results(), Slo())
    assert (scores.requests, scores.goodput_share, scores.output_tokens_per_s) == (0, 0.0, 0.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_percentiles_are_those_of_the_standard_library(values):
    ranked = sorted(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    for share in (0.5, 0.9, 0.99):
        expected = cuts[round(share * 100) - 1]
        assert percentile(ranked, share) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_document_is_what_was_agreed():
    document = scores_of("seconds", ended((0.0, 1 / 3, 2.0, 11)), Slo()).document()
    assert list(document) == [
        "policy",
        "requests",
        "completed",
        "shed",
        "hit_ratio",
        "ttft_s",
        "tpot_s",
        "goodput_share",
        "output_tokens_per_s",
    ]
    for times in (document["ttft_s"], document["tpot_s"]):
        assert isinstance(times, dict)
        assert list(times) == ["mean", "p50", "p90", "p99"]
    assert document["goodput_share"] == 0.0
    assert json.loads(json.dumps(document)) == document
    assert '"mean": 0.333333,' in json.dumps(document)
