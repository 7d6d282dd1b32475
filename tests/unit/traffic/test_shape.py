"""Cutting, scaling and summarising a trace."""

import pytest

from headrace.traffic.shape import cut, part, rate, sped_up, summarise
from headrace.traffic.trace import Trace, TraceRequest

TRACE = Trace(
    "small",
    10,
    (
        TraceRequest(0.0, 25, 2, (1, 2), "a"),
        TraceRequest(1.0, 10, 4, (3,), "b"),
        TraceRequest(4.0, 31, 6, (1, 2, 4), "a"),
    ),
    ("a note",),
)


def test_cut_keeps_what_arrives_before_the_end():
    assert [request.arrival_s for request in cut(TRACE, 4.0).requests] == [0.0, 1.0]
    assert cut(TRACE, 4.1).requests == list(TRACE.requests)
    assert cut(TRACE, 1.0).notes == TRACE.notes


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan")])
def test_cut_wants_a_duration(duration_s: float):
    with pytest.raises(ValueError, match="is not above 0"):
        cut(TRACE, duration_s)


def test_cut_to_nothing_is_an_error():
    late = Trace("late", 10, (TraceRequest(5.0, 1, 1),))
    with pytest.raises(ValueError, match="no request of late arrives within 2 s"):
        cut(late, 2.0)


def test_speed_divides_arrival_times_and_nothing_else():
    fast = sped_up(TRACE, 2.0)
    assert [request.arrival_s for request in fast.requests] == [0.0, 0.5, 2.0]
    assert [request[1:] for request in fast.requests] == [request[1:] for request in TRACE.requests]
    assert rate(fast) == 2 * rate(TRACE)


def test_a_part_starts_at_zero():
    middle = part(TRACE, 1, 1)
    assert middle.requests == [TraceRequest(0.0, 10, 4, (3,), "b")]
    assert [request.arrival_s for request in part(TRACE, 1, 9).requests] == [0.0, 3.0]


@pytest.mark.parametrize(("first", "count"), [(3, 1), (-1, 1), (0, 0)])
def test_a_part_that_is_not_there(first: int, count: int):
    with pytest.raises(ValueError, match="of small, which has 3"):
        part(TRACE, first, count)


@pytest.mark.parametrize("speed", [0.0, -2.0, float("inf"), float("nan")])
def test_speed_must_be_a_positive_number(speed: float):
    with pytest.raises(ValueError, match="is not above 0"):
        sped_up(TRACE, speed)


def test_summary():
    summary = summarise(TRACE)
    assert summary.requests == 3
    assert summary.span_s == 4.0
    assert summary.requests_per_s == 0.5
    assert summary.mean_input_tokens == 22
    assert summary.mean_output_tokens == 4
    assert summary.repeat_share == 2 / (3 + 1 + 4)  # the rest behind a full block is one too
    assert summary.sessions == 2


def test_a_single_request_has_no_rate():
    assert rate(Trace("one", 10, (TraceRequest(0.0, 1, 1),))) == 0.0


def test_nothing_has_no_summary():
    with pytest.raises(ValueError, match="none has no requests"):
        summarise(Trace("none", 10, ()))
