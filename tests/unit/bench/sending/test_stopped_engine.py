"""Coordinated omission: an engine that stands still is seen by all who should have met it."""

import os
import signal
import threading
import time

from headrace.bench.endpoint.target import reach
from headrace.bench.figures.scores import summarise
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.sending.pool import measure
from headrace.bench.settings import BenchSettings
from headrace.traffic.arrival_plan import Arrivals, Process
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Load
from tests.unit.bench.engine_process import engine_process

RATE = 20.0
STOP_AFTER_S, STOPPED_S, RUN_S = 0.5, 2.0, 3.5
MARGIN_S = 0.05
"""What begins as close as this to the stop may have been answered before it."""


def test_a_stop_of_two_seconds_is_seen_with_its_full_delay_by_some_forty_requests():
    stopped: list[float] = []
    begun = threading.Event()
    load = Load.drawn(Arrivals.at(RATE, Process("constant"), RUN_S), parse_lengths("64/4"), seed=1)
    with engine_process() as engine:

        def stop() -> None:
            begun.wait()
            time.sleep(STOP_AFTER_S)
            os.kill(engine.pid, signal.SIGSTOP)
            stopped.append(time.time())
            time.sleep(STOPPED_S)
            stopped.append(time.time())
            os.kill(engine.pid, signal.SIGCONT)

        stopper = threading.Thread(target=stop)
        stopper.start()
        target = reach(BenchSettings(engine.url))
        run = measure(target, load, lambda _, __: begun.set())
        stopper.join()

    assert len(run.records) == round(RATE * RUN_S) - 1
    assert {record.error for record in run.records} == {""}
    from_s, until_s = (at - run.info.started_at for at in stopped)
    met = [each for each in run.records if from_s + MARGIN_S < each.intended_s < until_s]
    assert len(met) >= RATE * (STOPPED_S - 2 * MARGIN_S) - 1
    for record in met:
        # No token can come before the engine runs again, and all of that wait is counted.
        assert record.ttft_s is not None
        assert record.ttft_s >= until_s - record.intended_s - MARGIN_S
    # Sent on time all the same: who waits for answers would have sent one request, not forty.
    sent = [each for each in run.records if from_s < each.sent_s < until_s]
    assert len(sent) >= RATE * STOPPED_S * 0.8
    scores = summarise(run.records, run.info, Slos(Slo(ttft_s=0.5))).all
    assert scores.ttft_s.max >= STOPPED_S - 2 / RATE
    # 40 of 69 waited between 0 and 2 s, evenly spread: the middle one of all waited for long.
    assert scores.ttft_s.p50 >= STOPPED_S * 0.15
