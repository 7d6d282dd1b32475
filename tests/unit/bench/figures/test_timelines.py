"""Windows and steps hold what happened in them."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.bench.figures.timelines import (
    STEPS,
    by_window,
    longest_by_window,
    open_requests,
    output_tokens_per_s,
    waiting,
)
from headrace.bench.record import Record

SPAN_S = 24.0


def record(begin_s: float, first_s: float, last_s: float, tokens: int = 11) -> Record:
    return Record(
        0, intended_s=begin_s, sent_s=begin_s, first_token_s=first_s, last_token_s=last_s,
        ended_s=last_s, output_tokens=tokens,
    )  # fmt: skip


def at(points: list[tuple[float, float]], when_s: float) -> float:
    return min(points, key=lambda point: abs(point[0] - when_s))[1]


def test_a_window_holds_what_was_due_in_it():
    values = [(number / 10, 1.0 if number < 120 else 9.0) for number in range(240)]
    found = by_window(values, SPAN_S)
    assert at(found.p50, 3.0) == 1.0
    assert at(found.p95, 20.0) == 9.0
    assert found.p50[0][0] < found.p50[-1][0]


def test_few_requests_make_few_windows():
    assert len(by_window([(1.0, 1.0), (2.0, 2.0), (23.0, 3.0)], SPAN_S).p50) == 1
    assert by_window([(1.0, 1.0)], SPAN_S).p50 == []


def test_the_longest_lag_of_a_window():
    found = longest_by_window([(0.1, 0.001), (0.2, 0.5), (23.9, 0.002)], SPAN_S)
    assert [value for _, value in found] == [0.5, 0.002]


def test_what_is_open_and_what_waits():
    records = [record(1.0, 5.0, 9.0), record(4.0, 6.0, 7.0)]
    assert at(open_requests(records, SPAN_S), 4.5) == 2
    assert at(open_requests(records, SPAN_S), 8.0) == 1
    assert at(open_requests(records, SPAN_S), 12.0) == 0
    assert at(waiting(records, SPAN_S), 4.5) == 2
    assert at(waiting(records, SPAN_S), 5.5) == 1
    assert at(waiting(records, SPAN_S), 6.5) == 0


def test_a_request_without_a_token_waits_until_its_end():
    gone = Record(0, intended_s=2.0, sent_s=2.0, ended_s=10.0, error="timeout")
    assert at(waiting([gone], SPAN_S), 9.0) == 1
    assert at(waiting([gone], SPAN_S), 11.0) == 0


def test_a_stream_gives_its_tokens_evenly():
    points = output_tokens_per_s([record(0.0, 4.0, 14.0, tokens=101)], SPAN_S)
    assert at(points, 9.0) == pytest.approx(10.0)
    assert at(points, 2.0) == 0.0
    assert at(points, 20.0) == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 12), st.floats(0, 6), st.floats(0, 5), st.integers(1, 50)),
        max_size=12,
    )
)
@example([(0.0, 1.0, 4.988952837114997e-14, 2)])  # both tokens at once, to rounding
def test_no_token_is_lost(streams):
    records = [record(at, at + wait, at + wait + took, n) for at, wait, took, n in streams]
    points = output_tokens_per_s(records, SPAN_S)
    assert len(points) == STEPS
    total = sum(rate for _, rate in points) * SPAN_S / STEPS
    assert total == pytest.approx(sum(each.output_tokens for each in records), abs=1e-6)
