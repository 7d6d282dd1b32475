"""The generator's own delay spoils a run where it changes what is reported, and nowhere else."""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from headrace.bench.endpoint.target import reach
from headrace.bench.figures.scores import summarise
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.record import Lag, Record, RunInfo
from headrace.bench.sending.own_delay import Standstill, doubt, lag_of, own_delays_s
from headrace.bench.sending.pool import Run, measure
from headrace.bench.settings import BenchSettings
from headrace.traffic.arrival_plan import Arrivals, Process
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Load
from tests.unit.bench.engine_process import engine_process

LATE_S = 0.01


def answered(lags_s: list[float], ttft_s: float = 0.1) -> list[Record]:
    """A request a second; the engine takes as long for each."""
    return [
        Record(
            place,
            intended_s=float(place),
            sent_s=place + lag_s,
            first_token_s=place + lag_s + ttft_s * (1 + place / 100),
            last_token_s=place + lag_s + 0.4,
            ended_s=place + lag_s + 0.5,
            output_tokens=10,
            status=200,
        )
        for place, lag_s in enumerate(lags_s)
    ]


def judged(records: list[Record], *stops: Standstill) -> str:
    return doubt(records, lag_of(records, LATE_S, stops), stops, 0.01)


def test_one_late_request_among_fifty_spoils_nothing_unless_a_percentile_is_its():
    assert not judged(answered([0.001] * 30 + [0.015] + [0.001] * 19))
    said = judged(answered([0.001] * 30 + [0.9] + [0.001] * 19))
    assert said.startswith("the generator was late: 2.0 % of requests left more than 10 ms after")
    assert said.endswith("; it is 459 ms of E2E p99")


def test_many_late_ones_spoil_it_and_the_figure_that_is_most_off_is_named():
    said = judged(answered([0.001] * 80 + [0.3] * 20))
    assert said.startswith("the generator was late: 20.0 % of requests")
    assert "; it is 299 ms of " in said or "; it is 300 ms of " in said


def test_what_came_while_the_process_stood_still_may_have_come_earlier():
    records = answered([0.0] * 40)
    stop = Standstill(0, 20.2, 21.6)
    for record in records[20:22]:  # both were read when it went on
        assert record.first_token_s is not None
        record.ended_s = record.last_token_s = 21.601
    records[21].first_token_s = 21.6
    firsts, lasts = own_delays_s(records, [stop])
    assert firsts[20] == 0.0
    assert firsts[21] == pytest.approx(0.6)  # since it was sent
    assert lasts[20] == pytest.approx(1.401)
    assert max(firsts[22:] + lasts[22:]) == 0.0
    said = judged(records, stop)
    assert said.startswith("the generator stood still for 1.40 s or more: what came for 5.0 % of")
    assert not judged(records, Standstill(1, 20.2, 21.6))  # another process


def test_a_miss_that_is_the_generators_alone_makes_the_run_invalid():
    records = answered([0.001] * 990 + [0.001] * 5 + [2.5] * 5, ttft_s=0.01)
    slos = Slos(Slo(ttft_s=2.0, share=0.999))
    info = RunInfo(
        "http://x", "m", "t", 0, 1, 0.0, 1000.0, load_s=1000.0, lag=lag_of(records, LATE_S)
    )
    assert not judged(records)  # five in a thousand are in no percentile
    verdict = summarise(records, info, slos).verdict
    assert not verdict.valid
    assert verdict.headline == (
        "INVALID RUN: the generator was late: 5 requests missed their targets by that alone"
    )
    slow = summarise(answered([0.0] * 1000, ttft_s=3.0), info, slos).verdict
    assert slow.headline.startswith("NOT MET")


def test_a_standstill_is_told_beside_the_verdict():
    info = RunInfo("http://x", "m", "t", 0, 1, 0.0, 9.0, lag=Lag(stopped_s=1.5, late_after_s=0.01))
    verdict = summarise(answered([0.0] * 9), info, Slos()).verdict
    assert any("stood still for 1.50 s or more" in line for line in verdict.lines)


def run_with_a_stop(
    pid_of,
    rate: float,
    seconds: float,
    *,
    after_s: float,
    ttft: str = "20ms",
    late_after_s: float = LATE_S,
) -> Run:
    """A constant rate; whoever `pid_of` names is stopped for 1.5 s after the first `after_s`."""
    begun = threading.Event()
    load = Load.drawn(
        Arrivals.at(rate, Process("constant"), seconds), parse_lengths("64/4"), seed=1
    )
    with engine_process(f"ttft={ttft},itl=2ms") as engine:

        def stop() -> None:
            begun.wait()
            time.sleep(after_s)
            pid = pid_of(engine)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(pid, signal.SIGCONT)

        stopper = threading.Thread(target=stop)
        stopper.start()
        settings = BenchSettings(engine.url, workers=1, late_after_s=late_after_s)
        run = measure(reach(settings), load, lambda _, __: begun.set())
        stopper.join()
    return run


def test_a_stopped_generator_is_its_own_fault():
    run = run_with_a_stop(
        lambda _: multiprocessing.active_children()[0].pid, rate=20.0, seconds=2.2, after_s=0.4
    )
    assert run.info.lag.stopped_s >= 1.0
    assert not run.info.valid
    assert run.info.invalid_reason.startswith("the generator was late")


def test_a_generator_that_stops_while_answers_come_is_at_fault_though_none_left_late():
    # Requests in the first half second, whose answers come within the stop.
    run = run_with_a_stop(
        lambda _: multiprocessing.active_children()[0].pid,
        rate=8.0,
        seconds=0.4,
        after_s=1.0,
        ttft="1500ms",
        late_after_s=0.5,  # a busy machine holds requests back for longer than the default
    )
    assert run.info.lag.max_s < 0.5
    assert run.info.lag.stopped_s >= 1.0
    assert not run.info.valid
    assert "stood still" in run.info.invalid_reason


def test_a_stopped_engine_is_none_of_the_generators():
    run = run_with_a_stop(lambda engine: engine.pid, rate=20.0, seconds=2.2, after_s=0.4)
    assert run.info.lag.stopped_s < 0.5
    assert max(record.ttft_s or 0.0 for record in run.records) > 1.2
    assert run.info.lag.max_s < 0.5
