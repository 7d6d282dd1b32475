"""Rates over time: read, refused with one clear line, and drawn from."""

import re
from itertools import pairwise
from statistics import fmean, pvariance

import pytest

from headrace.traffic.length_spread import LognormalSpread, TraceSpread
from headrace.traffic.rates import Rates, RateStep, arrivals_of, read_rates
from headrace.traffic.shape import multiplied
from headrace.traffic.trace import Trace, TraceError, TraceRequest

HEAD = "start_s,requests_per_s,mean_input_tokens,mean_output_tokens"


def read(*lines):
    return read_rates("rates.csv", [line + "\n" for line in lines])


def test_a_file_is_read_in_any_order_of_columns_and_from_zero_on():
    rates = read(
        "mean_output_tokens,extra,start_s,requests_per_s,mean_input_tokens",
        "292.5,x,1200,143.5,355.4",
        "",
        "100,x,1800,0,200",
    )
    assert rates.steps == [RateStep(0.0, 143.5, 355.4, 292.5), RateStep(600.0, 0.0, 200.0, 100.0)]
    assert rates.end_s == 1200.0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "rates.csv: expected the columns start_s,"),
        ((HEAD,), "rates.csv: expected the columns start_s,"),
        (("a,b", "1,2"), "rates.csv:1: expected the columns start_s,requests_per_s,"),
        (
            ("TIMESTAMP,ContextTokens,GeneratedTokens", "1,2,3"),
            "'TIMESTAMP,ContextTokens,GeneratedTokens'; a trace of single requests is for --trace",
        ),
        ((HEAD, "0,1,2"), "rates.csv:2: expected 4 values, found 3"),
        ((HEAD, "0,x,2,3"), "rates.csv:2: expected requests_per_s to be a number, found 'x'"),
        ((HEAD, "0,nan,2,3"), "rates.csv:2: expected requests_per_s to be a number, found 'nan'"),
        ((HEAD, "0,-1,2,3"), "rates.csv:2: expected requests_per_s from 0 to 1e+07, found -1"),
        ((HEAD, "0,1,0,3"), "rates.csv:2: expected mean_input_tokens from 1 to "),
        ((HEAD, "0,1,2,0.5"), "rates.csv:2: expected mean_output_tokens from 1 to "),
        ((HEAD, "0,1,2,3", "0,1,2,3"), "rates.csv:3: expected a start_s after the one before"),
        ((HEAD, "0,0,0,0"), "rates.csv: expected requests_per_s above 0 somewhere"),
        ((HEAD, "0,1,2,3", "9e9,1,2,3"), "rates.csv: expected at most 400 days; is start_s in s"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(lines, said):
    with pytest.raises(TraceError, match=re.escape(said)) as raised:
        read(*lines)
    assert "\n" not in str(raised.value)


def test_rates_are_scaled_and_cut_into_pieces():
    steps = [RateStep(600.0 * i, 1.0 + i, 10.0, 20.0) for i in range(4)]
    rates = Rates("r", steps, 2400.0)
    assert [step.requests_per_s for step in rates.scaled(3.0).steps] == [3.0, 6.0, 9.0, 12.0]
    piece = rates.piece(600.0, 1200.0)
    assert [(step.start_s, step.requests_per_s) for step in piece.steps] == [
        (0.0, 2.0),
        (600.0, 3.0),
    ]
    assert piece.end_s == 1200.0
    with pytest.raises(ValueError, match="has no step from 9000 s"):
        rates.piece(9000.0, 60.0)


def test_arrivals_have_the_rate_of_each_step_its_lengths_and_the_burstiness():
    rates = Rates("r", [RateStep(0.0, 20.0, 100.0, 50.0), RateStep(600.0, 60.0, 400.0, 10.0)], 1200)
    drawn = list(arrivals_of(rates, LognormalSpread(0.5), seed=3, gap_cv=2.0))
    assert drawn == list(arrivals_of(rates, LognormalSpread(0.5), seed=3, gap_cv=2.0))
    first = [request for request in drawn if request.arrival_s < 600]
    second = [request for request in drawn if request.arrival_s >= 600]
    assert len(first) == pytest.approx(20 * 600, rel=0.06)
    assert len(second) == pytest.approx(60 * 600, rel=0.04)
    assert fmean(request.input_tokens for request in second) == pytest.approx(400, rel=0.03)
    assert fmean(request.output_tokens for request in first) == pytest.approx(50, rel=0.03)
    gaps = [after.arrival_s - before.arrival_s for before, after in pairwise(second)]
    assert pvariance(gaps) ** 0.5 / fmean(gaps) == pytest.approx(2.0, rel=0.08)


def test_points_of_a_spread_stand_for_it():
    for spread in (
        LognormalSpread(0.0),
        LognormalSpread(1.0),
        TraceSpread([TraceRequest(0.0, p, o) for p, o in ((10, 5), (30, 50), (200, 20))] * 9),
    ):
        weights = sum(weight for weight, _, _ in spread.points)
        prompts = sum(weight * prompt for weight, prompt, _ in spread.points)
        answers = sum(weight * answer for weight, _, answer in spread.points)
        assert (weights, prompts, answers) == pytest.approx((1.0, 1.0, 1.0))


def test_a_trace_s_spread_keeps_how_lengths_go_together():
    pairs = [(100, 10)] * 50 + [(900, 90)] * 50
    spread = TraceSpread([TraceRequest(0.0, p, o) for p, o in pairs])
    assert all(prompt == pytest.approx(answer) for _, prompt, answer in spread.points)


@pytest.mark.parametrize("cv", [-1.0, float("nan"), 11.0])
def test_a_spread_beyond_reason_is_refused(cv):
    with pytest.raises(ValueError, match="is not from 0 to 10"):
        LognormalSpread(cv)


def test_a_trace_is_multiplied_within_its_time():
    requests = [TraceRequest(float(i), 10, 5, (i,)) for i in range(2000)]
    trace = Trace("t", 16, requests)
    assert multiplied(trace, 1.0, 0) is trace
    more, less = multiplied(trace, 2.5, 0), multiplied(trace, 0.3, 0)
    assert len(more.requests) == pytest.approx(5000, rel=0.05)
    assert len(less.requests) == pytest.approx(600, rel=0.1)
    times = [request.arrival_s for request in more.requests]
    assert times == sorted(times)
    assert times[-1] <= 1999.0 + 2.0
    assert more == multiplied(trace, 2.5, 0)
    with pytest.raises(ValueError, match="is not above 0"):
        multiplied(trace, 0.0, 0)
