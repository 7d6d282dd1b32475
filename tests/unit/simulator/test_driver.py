"""What the core hears in a run, and when; and how a run ends."""

from dataclasses import replace

import pytest

from headrace.core.events import (
    Arrived,
    Effect,
    Ended,
    Event,
    FirstToken,
    KvChanged,
    Progress,
    Reject,
    Scraped,
)
from headrace.core.model import Outcome, Usage
from headrace.engine_model import EngineModel
from headrace.simulator.driver import replica_names
from headrace.simulator.results import COMPLETED, FAILED, OPEN, SHED
from tests.unit.simulator.parts import BLOCK_TOKENS, ENGINE, PROFILE, listen, play, requests, trace


def of(heard, kind):
    return [(event, now) for event, now in heard if isinstance(event, kind)]


def test_a_request_alone_takes_what_the_model_says():
    results, _ = play(requests(5.0, tokens=1000, output=11))
    assert list(results.arrival_s) == [5.0]
    assert list(results.state) == [COMPLETED]
    assert results.ttft_s[0] == pytest.approx(PROFILE.prefill_s(1000))
    steps = [PROFILE.step_s(1, 1000 + decoded) for decoded in range(1, 11)]
    assert results.tpot_s[0] == pytest.approx(sum(steps) / 10, rel=1e-3)


def test_the_network_is_passed_twice_before_a_first_token():
    near, _ = play(requests(0.5))
    far, _ = play(requests(0.5), network_s=0.2)
    assert far.ttft_s[0] == pytest.approx(near.ttft_s[0] + 0.4)
    assert far.tpot_s[0] == pytest.approx(near.tpot_s[0])


def test_all_end_and_the_run_with_the_last():
    results, simulation = play(trace().requests)
    assert set(results.state) == {COMPLETED}
    assert results.end_s == simulation.now


def test_what_is_longer_than_the_context_fails_though_it_would_fit_the_cache():
    fleet = replace(ENGINE, max_context_tokens=1011)
    results, _ = play(requests(0.5, output=11) + requests(1.0, output=12), engine=fleet)
    assert list(results.state) == [COMPLETED, FAILED]


def test_what_the_core_hears_of_a_request(monkeypatch):
    heard = listen(monkeypatch)
    play(requests(1.0, tokens=700, output=500))
    ((arrived, _),) = of(heard, Arrived)
    request = arrived.request
    assert request.prompt_tokens == 700
    assert request.streamed
    assert (request.ttft_target_s, request.tpot_target_s) == (2.0, 0.05)
    # The future: how long the answer will be.
    assert request.max_output_tokens is None
    ((_, first_s),) = of(heard, FirstToken)
    ((ended, end_s),) = of(heard, Ended)
    assert first_s == pytest.approx(1.0 + PROFILE.prefill_s(700))
    assert (ended.outcome, ended.output_tokens) == (Outcome.COMPLETED, 500)
    assert ended.usage == Usage(700, 500, 0)
    progress = of(heard, Progress)
    told = [event.output_tokens for event, _ in progress]
    assert told == sorted(set(told))
    assert all(first_s < now < end_s for _, now in progress)
    assert [now for _, now in progress] == [float(second) for second in range(2, 2 + len(told))]
    assert 0 < told[-1] < 500


def test_progress_comes_as_often_as_wanted(monkeypatch):
    heard = listen(monkeypatch)
    play(requests(0.0, output=300), progress_period_s=0.25)
    times_s = [now for _, now in of(heard, Progress)]
    assert times_s[:3] == [0.25, 0.5, 0.75]


class TestScrapes:
    def test_tell_how_it_was_before_the_lag(self, monkeypatch):
        gauges: dict[float, int] = {}
        real = EngineModel.advance

        def advance(model, now):
            happened = real(model, now)
            gauges[now] = model.running + model.waiting
            return happened

        monkeypatch.setattr(EngineModel, "advance", advance)
        heard = listen(monkeypatch)
        play(
            requests(*(0.05 + 0.3 * i for i in range(30)), output=400), replicas=1, scrape_lag_s=2.5
        )
        scrapes = of(heard, Scraped)[1:]
        assert [now for _, now in scrapes[:3]] == [2.5, 3.5, 4.5]
        for event, now in scrapes:
            report = event.report
            assert report.running is not None
            assert report.queue_depth is not None
            # Nobody looks at an idle engine.
            assert report.running + report.queue_depth == gauges.get(now - 2.5, 0)
        assert any(event.report.running for event, _ in scrapes)
        assert not all(event.report.running for event, _ in scrapes)

    def test_are_spread_over_the_period(self, monkeypatch):
        heard = listen(monkeypatch)
        play(requests(0.0, 9.0), replicas=4, scrape_lag_s=0.0)
        at_begin, later = of(heard, Scraped)[:4], of(heard, Scraped)[4:]
        names = replica_names(4)
        assert [event.replica for event, _ in at_begin] == names
        assert [(event.replica, now) for event, now in later[:5]] == [
            (names[0], 0.0),
            (names[1], 0.25),
            (names[2], 0.5),
            (names[3], 0.75),
            (names[0], 1.0),
        ]

    def test_the_first_one_tells_the_capacity(self, monkeypatch):
        heard = listen(monkeypatch)
        play(requests(0.0))
        report = of(heard, Scraped)[0][0].report
        assert report.kv_capacity_tokens == ENGINE.kv_capacity_tokens
        assert report.max_sequences is None  # vLLM, whose part the engine plays, does not tell it
        assert (report.queue_depth, report.running, report.kv_usage_ratio) == (0, 0, 0.0)


def test_kv_events_only_where_they_are_switched_on(monkeypatch):
    heard = listen(monkeypatch)
    play(trace().requests)
    assert not of(heard, KvChanged)
    small = replace(ENGINE, kv_capacity_tokens=20_480)
    play(trace().requests, kv_events=True, engine=small)
    changes = [event for event, _ in of(heard, KvChanged)]
    stored = sum(len(event.stored) for event in changes)
    removed = sum(len(event.removed) for event in changes)
    assert stored > removed > 0
    assert stored - removed <= 3 * small.kv_capacity_tokens // BLOCK_TOKENS


def test_a_prompt_that_can_never_fit_fails(monkeypatch):
    heard = listen(monkeypatch)
    results, _ = play(
        [*requests(0.0), *requests(0.1, tokens=ENGINE.kv_capacity_tokens), *requests(0.2)]
    )
    assert list(results.state) == [COMPLETED, FAILED, COMPLETED]
    outcomes = [event.outcome for event, _ in of(heard, Ended)]
    assert outcomes.count(Outcome.REFUSED) == 1


def test_what_is_rejected_is_shed(monkeypatch):
    def answers(event: Event) -> list[Effect] | None:
        if isinstance(event, Arrived) and event.request.id == "r1":
            return [Reject("r1", 429, "overloaded", "too much")]
        return None

    listen(monkeypatch, answers)
    results, _ = play(requests(0.0, 0.1, 0.2))
    assert list(results.state) == [COMPLETED, SHED, COMPLETED]


def test_a_run_that_does_not_drain_is_stopped():
    results, _ = play(requests(0.0, 1.0, output=5000), replicas=1, drain_limit_s=3.0)
    assert list(results.state) == [OPEN, OPEN]
    assert results.end_s == 4.0


def test_requests_are_taken_one_by_one():
    taken = 0

    def stream():
        nonlocal taken
        for request in requests(*(float(i) for i in range(50)), output=2):
            taken += 1
            yield request

    seen: list[int] = []

    def watching():
        for request in stream():
            seen.append(taken)
            yield request

    results, _ = play(watching())  # type: ignore[arg-type]
    assert len(results.state) == 50
    assert seen == list(range(1, 51))


def test_names_are_in_the_order_of_numbers():
    names = replica_names(1001)
    assert names == sorted(names)
    assert len(set(names)) == 1001
