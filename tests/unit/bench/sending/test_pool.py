"""How many processes send, and when a run is not to be trusted."""

import pytest

from headrace.bench.record import Record
from headrace.bench.sending import pool
from headrace.bench.sending.pool import lag_of, load_s_of, workers_for
from headrace.bench.settings import BenchSettings
from headrace.traffic.arrival_plan import Arrivals
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Load

SETTINGS = BenchSettings("http://x")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 8)


def at(rate: float, lengths: str) -> Load:
    return Load.drawn(Arrivals.at(rate), parse_lengths(lengths), seed=1)


@pytest.mark.parametrize(
    ("rate", "lengths", "workers"),
    [(1.0, "10/10", 1), (600.0, "256/32", 1), (200.0, "256/500", 4), (5000.0, "256/500", 8)],
)
def test_more_processes_send_more_tokens(rate: float, lengths: str, workers: int):
    assert workers_for(at(rate, lengths), SETTINGS) == workers


def test_whole_answers_need_fewer_and_who_says_how_many_gets_them():
    assert workers_for(at(200.0, "256/500"), BenchSettings("http://x", stream=False)) == 1
    assert workers_for(at(1.0, "10/10"), BenchSettings("http://x", workers=3)) == 3
    one = Load.closed(1, parse_lengths("10/10"), seed=1)
    assert workers_for(one, BenchSettings("http://x", workers=3)) == 1  # who has no user sends none
    users = Load.closed(1200, parse_lengths("10/10"), seed=1)
    assert workers_for(users, SETTINGS) == 3


def test_requests_are_counted_over_the_time_they_were_due_and_those_of_users_over_the_run():
    def span_s(load: Load, *due_s: float) -> float:
        given = [
            Record(place, intended_s=at_s, ended_s=at_s + 2.0) for place, at_s in enumerate(due_s)
        ]
        return load_s_of(load, given, False)

    mix = parse_lengths("10/10")
    assert span_s(Load.drawn(Arrivals.at(1.0, duration_s=10.0), mix, seed=1), 0.5, 8.0) == 10.0
    assert span_s(Load.drawn(Arrivals.at(1.0), mix, seed=1, requests=2), 0.5, 8.0) == 8.0
    assert span_s(Load.drawn(Arrivals.at(1.0), mix, seed=1, requests=1), 0.0) == 2.0
    # Two users of an engine that takes 2 s: 4 answers in 4 s, not in 2.
    assert span_s(Load.closed(2, mix, seed=1, requests=4), 0.0, 0.0, 2.0, 2.0) == 4.0
    assert span_s(Load.closed(2, mix, seed=1, duration_s=3.0), 0.0, 0.0, 2.0, 2.0) == 4.0


def records(lags_s: list[float]) -> list[Record]:
    return [
        Record(place, intended_s=float(place), sent_s=place + lag_s)
        for place, lag_s in enumerate(lags_s)
    ]


def test_lag_is_told_as_it_was():
    lag = lag_of(records([0.001] * 98 + [0.02, 0.5]), 0.01)
    assert (lag.p50_s, lag.max_s) == pytest.approx((0.001, 0.5))
    assert lag.late_share == pytest.approx(0.02)


def test_a_run_is_doubted_for_late_requests_missing_sockets_and_none_at_all():
    def doubt(given: list[Record]) -> str:
        return pool._doubt(lag_of(given, SETTINGS.late_after_s), SETTINGS, given)

    assert not doubt(records([0.001] * 99 + [0.02]))
    assert doubt(records([0.001] * 97 + [0.02] * 3)).startswith(
        "the generator was late: 3.0 % of requests left more than 10 ms after their time"
    )
    assert doubt([]) == "nothing was sent"
    without = records([0.001] * 100)
    without[7].error = "no_socket"
    assert "no socket left for 1 of its requests" in doubt(without)
