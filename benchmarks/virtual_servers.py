"""Servers on a virtual clock whose highest rate within targets is known, for `sweep_coverage`.

`Queue` is arrivals of renewal gaps before a few servers that take the next in line; its TTFT is
what a request waited, and `FIRST_S`. `Batching` is the engine model: TTFT and TPOT depend on what
is prefilled and decoded beside a request. Each run begins empty, as one against a drained engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from math import log, sqrt

from headrace.bench.figures.slo import MET, Slo, Slos
from headrace.bench.record import Record, RunInfo
from headrace.bench.sweep.search import requests_per_run
from headrace.engine_model.engine import EngineModel
from headrace.engine_model.jobs import Finished, FirstToken, Job
from headrace.engine_model.profiles import profile

FIRST_S = 0.02
"""From the start of the service of a request to its first token."""
BASE_S = 30.0
"""What a run of a sweep lasts, where that is enough requests."""
TRUTH_REQUESTS = 400_000
TRUTH_ROUNDS = 11

Draw = Callable[[random.Random, float], float]
"""A positive time with this mean."""


@dataclass(frozen=True)
class Run:
    """As `sweep` wants it."""

    records: list[Record]
    info: RunInfo


def exponential(rng: random.Random, mean: float) -> float:
    """CV 1."""
    return rng.expovariate(1.0 / mean)


def constant(rng: random.Random, mean: float) -> float:
    """CV 0."""
    del rng
    return mean


def gamma(cv: float) -> Draw:
    """Any CV."""
    shape = 1.0 / cv**2
    return lambda rng, mean: rng.gammavariate(shape, mean / shape)


@dataclass(frozen=True)
class Queue:
    """G/G/c, first come first served."""

    name: str
    slos: Slos
    service_s: float
    servers: int = 1
    gaps: Draw = exponential
    services: Draw = exponential
    start_rps: float = 1.0

    def run(self, rate_rps: float, seed: int, requests: int = 0) -> Run:
        """So many requests; 0: as many as a run of a sweep has."""
        requests = requests or _requests(self.slos, rate_rps)
        records = list(self.records(rate_rps, requests, seed))
        return Run(records, _info(records, rate_rps, seed))

    def run_alone(self, requests: int, seed: int) -> Run:
        """Nobody waits."""
        records = [_record(i, float(i), float(i) + FIRST_S, 0.0) for i in range(requests)]
        return Run(records, _info(records, 0.0, seed))

    def records(self, rate_rps: float, requests: int, seed: int) -> Iterator[Record]:
        """Requests in order of arrival."""
        for index, (at_s, begins_s) in enumerate(self._waits(rate_rps, requests, seed)):
            yield _record(index, at_s, begins_s + FIRST_S, self.service_s)

    def share(self, rate_rps: float, seed: int = 1) -> float:
        """Of a very long run, that meet the target of TTFT."""
        most_s = self.slos.default.ttft_s - FIRST_S
        waits = self._waits(rate_rps, TRUTH_REQUESTS, seed)
        met = sum(begins_s - at_s <= most_s for at_s, begins_s in waits)
        return met / TRUTH_REQUESTS

    def _waits(self, rate_rps: float, requests: int, seed: int) -> Iterator[tuple[float, float]]:
        rng, at_s, gap_s = random.Random(seed), 0.0, 1.0 / rate_rps
        free_s = [0.0] * self.servers
        for _ in range(requests):
            at_s += self.gaps(rng, gap_s)
            begins_s = max(free_s[0], at_s)
            heapreplace(free_s, begins_s + self.services(rng, self.service_s))
            yield at_s, begins_s


@dataclass(frozen=True)
class Batching:
    """One engine as the simulator has it; lognormal lengths."""

    name: str
    slos: Slos
    engine: str
    input_tokens: float
    output_tokens: float
    cv: float = 1.0
    start_rps: float = 1.0

    def run(self, rate_rps: float, seed: int, requests: int = 0) -> Run:
        """So many requests; 0: as many as a run of a sweep has."""
        requests = requests or _requests(self.slos, rate_rps)
        records = self.records(rate_rps, requests, seed)
        return Run(records, _info(records, rate_rps, seed))

    def run_alone(self, requests: int, seed: int) -> Run:
        """One after the other: at a rate so low that none meets another."""
        records = self.records(0.001, requests, seed)
        return Run(records, _info(records, 0.0, seed))

    def records(self, rate_rps: float, requests: int, seed: int) -> list[Record]:
        """Requests in order of arrival."""
        rng, at_s = random.Random(seed), 0.0
        model, records = EngineModel(profile(self.engine)), list[Record]()
        for index in range(requests):
            at_s += rng.expovariate(rate_rps)
            job = Job(
                index, self._tokens(rng, self.input_tokens), self._tokens(rng, self.output_tokens)
            )
            records.append(_record(index, at_s, at_s, 0.0, job.output_tokens))
            model.submit(job, at_s)
            _take(model, at_s, records)
        while (next_s := model.next_event_s()) < float("inf"):
            _take(model, next_s, records)
        return records

    def share(self, rate_rps: float, seed: int = 1) -> float:
        """Of a long run, that meet all targets; its first tenth is left out."""
        records = self.records(rate_rps, TRUTH_REQUESTS // 8, seed)
        counted = records[len(records) // 10 :]
        return sum(self.slos.default.outcome(each) == MET for each in counted) / len(counted)

    def _tokens(self, rng: random.Random, mean: float) -> int:
        sigma = sqrt(log(1.0 + self.cv**2))
        return max(2, min(round(rng.lognormvariate(log(mean) - sigma**2 / 2, sigma)), 20_000))


def _take(model: EngineModel, now: float, records: Sequence[Record]) -> None:
    for happening in model.advance(now):
        if isinstance(happening, FirstToken):
            records[happening.job.id].first_token_s = happening.at_s
        elif isinstance(happening, Finished):
            record = records[happening.job.id]
            record.last_token_s = record.ended_s = happening.at_s


def _record(index: int, at_s: float, first_s: float, rest_s: float, tokens: int = 10) -> Record:
    return Record(
        index,
        intended_s=at_s,
        sent_s=at_s,
        first_token_s=first_s,
        last_token_s=first_s + rest_s,
        ended_s=first_s + rest_s,
        output_tokens=tokens,
        status=200,
    )


def _requests(slos: Slos, rate_rps: float) -> int:
    return max(round(rate_rps * BASE_S), requests_per_run(slos))


def _info(records: Sequence[Record], rate_rps: float, seed: int) -> RunInfo:
    ended_s = max(record.ended_s for record in records)
    return RunInfo(
        url="http://virtual",
        model="virtual",
        traffic=f"{rate_rps:g} requests/s",
        seed=seed,
        workers=1,
        started_at=0.0,
        duration_s=ended_s,
        load_s=records[-1].intended_s,
        planned_requests=len(records),
        offered_rps=len(records) / max(records[-1].intended_s, 1e-9),
    )


Server = Queue | Batching
_P95 = Slos(Slo(ttft_s=1.0, share=0.95))
_P99 = Slos(Slo(ttft_s=2.0, share=0.99))

SERVERS: tuple[Server, ...] = (
    Queue("M/M/4, 1 s, 95 %", _P95, 0.4, servers=4),
    Queue("M/D/1, 1 s, 95 %", _P95, 0.1024, services=constant),
    Queue("M/M/1 of 50/s, 2 s, 99 %", _P99, 0.02, start_rps=10.0),
    Queue("D/D/1, 2 s, 99 %", _P99, 0.1024, gaps=constant, services=constant),
    Queue(
        "bursty (CV 3) before 4, 2 s, 95 %",
        Slos(Slo(ttft_s=2.0, share=0.95)),
        0.2,
        servers=4,
        gaps=gamma(3.0),
    ),
    Queue(
        "services of CV 2, 1 s, 90 %",
        Slos(Slo(ttft_s=1.0, share=0.9)),
        0.1,
        servers=2,
        services=gamma(2.0),
    ),
    Batching(
        "engine model, TTFT and TPOT, 95 %",
        Slos(Slo(ttft_s=1.0, tpot_s=0.05, share=0.95)),
        "h100-llama-3.1-8b",
        3000.0,
        150.0,
    ),
)


def truth_rps(server: Server) -> float:
    """The rate at which the share that is wanted is met in the long run, by halving."""
    wanted = server.slos.default.share
    if isinstance(server, Queue):
        high = server.servers / server.service_s
        low = high / 4
    else:
        low, high = 1.0, 30.0
    for _ in range(TRUTH_ROUNDS):
        middle = sqrt(low * high)
        if server.share(middle) >= wanted:
            low = middle
        else:
            high = middle
    return sqrt(low * high)
