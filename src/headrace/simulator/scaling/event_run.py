"""One scaler against single requests: the simulator's engines and core, with replicas that come
and go.

A replica that was ordered joins when its cold start is over; one that drains takes nothing new and
is gone when its last stream has ended. Everything else is as in `simulator.driver`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import isnan

from headrace.engine_model import Job
from headrace.simulator.driver import Flight, Simulation
from headrace.simulator.results import percentile
from headrace.simulator.scaling.control_loop import ControlLoop
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.fleet import SimulatedReplica
from headrace.simulator.scaling.fluid_run import OnProgress
from headrace.simulator.scaling.mix import RequestMix
from headrace.simulator.scaling.reading import Reading, Totals
from headrace.simulator.scaling.scalers import make_scaler
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import TraceRequest

LENGTHS_KEPT = 256
"""Of requests that ended last: the mix that scalers see."""
GONE_CHECK_S = 1.0


def run_events(
    settings: ScalingSimulation,
    demand: Demand,
    requests: Sequence[TraceRequest],
    written: str,
    on_progress: OnProgress | None = None,
    *,
    block_tokens: int = 512,
) -> ScalingRun:
    """Play one scaler, given by name with parameters. `demand` sums up the same `requests`."""
    began_s = time.perf_counter()
    loop = ControlLoop(settings, demand, make_scaler(written, settings, demand))
    simulation = _ScaledSimulation(settings, loop, requests, block_tokens)
    total = max(len(requests), 1)
    report = None if on_progress is None else (lambda over: on_progress(over / total))
    results = simulation.run(report)
    met = list(results.met(settings.slo))
    tokens = [request.input_tokens + request.output_tokens for request in requests]
    met_tokens = sum(count for count, good in zip(tokens, met, strict=True) if good)
    fleet = loop.fleet
    scores = ScalingScores(
        written,
        sum(met) / total,
        met_tokens / max(sum(tokens), 1),
        fleet.replica_hours(demand.end_s),
        fleet.peak,
        fleet.changes,
    )
    return ScalingRun(scores, loop.timeline, time.perf_counter() - began_s)


class _ScaledSimulation(Simulation):
    """`Simulation` with a control loop on its agenda."""

    def __init__(
        self,
        settings: ScalingSimulation,
        loop: ControlLoop,
        requests: Sequence[TraceRequest],
        block_tokens: int,
    ) -> None:
        self._loop = loop
        self._slo = settings.slo
        self._spec = settings.engine
        self._totals = Totals()
        self._ttfts: list[float] = []
        self._tpots: list[float] = []
        self._lengths: list[tuple[int, int]] = []
        self._missed = 0
        self._seen = Totals()
        self._seen_s = 0.0
        self._rows_seen = 0
        self._trace = requests
        self._leaving: dict[str, SimulatedReplica] = {}
        first = [settings.engine] * len(loop.fleet.ready)
        each = SimulationSettings(settings.engine, max(len(first), 1), settings.slo)
        super().__init__(each, settings.policy, first, requests, block_tokens)

    # ---- replicas

    def _begin(self, policy: str) -> None:
        # The names are the fleet's, so that what a plan names is who goes.
        engines = list(self._engines.values())
        self._engines.clear()
        for engine, replica in zip(engines, self._loop.fleet.ready, strict=True):
            engine.name = replica.name
            self._engines[replica.name] = engine
        super()._begin(policy)
        self._at(self._loop.next_look_s, self._look)

    def _join(self) -> None:
        for replica in self._loop.fleet.become_ready(self.now):
            self._add_engine(replica.name, self._spec)

    def _look(self) -> None:
        loop = self._loop
        before = loop.fleet.number
        missed, self._missed = self._missed, 0
        for replica in loop.look(self._reading(), missed):
            self._drain_engine(replica.name)
            self._leaving[replica.name] = replica
            self._at(self.now, self._let_go)
        if loop.fleet.number > before:
            self._at(loop.fleet.starting[-1].ready_s, self._join)
        self._at(loop.next_look_s, self._look)

    def _let_go(self) -> None:
        """Whoever drains and has nothing left is gone; look again while some do."""
        gone: list[SimulatedReplica] = []
        for name, replica in self._leaving.items():
            engine = self._engines[name]
            self._look_at(engine)
            if not engine.model.running and not engine.model.waiting:
                gone.append(replica)
        if gone:
            self._loop.fleet.set_gone(gone, self.now)
            self._loop.fleet.let_go(self.now)
            for replica in gone:
                del self._leaving[replica.name]
                self._remove_engine(replica.name)
        if self._leaving:
            self._at(self.now + GONE_CHECK_S, self._let_go)

    # ---- what is measured

    def _refused(self, flight: Flight) -> None:
        super()._refused(flight)
        self._missed += 1
        self._totals.refused += 1
        self._totals.refused_input_tokens += flight.trace.input_tokens

    def _first_token(self, job: Job, cached_tokens: int) -> None:
        row = self._sent[job.id].row
        super()._first_token(job, cached_tokens)
        self._ttfts.append(self.results.ttft_s[row])

    def _finished(self, job: Job) -> None:
        row = self._sent[job.id].row
        super()._finished(job)
        ttft_s, tpot_s = self.results.ttft_s[row], self.results.tpot_s[row]
        totals = self._totals
        totals.judged += 1
        totals.output_tokens += job.output_tokens
        late, slow = ttft_s > self._slo.ttft_s, tpot_s > self._slo.tpot_s
        totals.ttft_misses += late
        totals.tpot_misses += slow
        self._missed += late or slow
        if not isnan(tpot_s):
            self._tpots.append(tpot_s)
        self._lengths.append((job.prompt_tokens, job.output_tokens))

    def _reading(self) -> Reading:
        totals, seen, fleet = self._totals, self._seen, self._loop.fleet
        arrived = len(self.results.state)
        for request in self._trace[self._rows_seen : arrived]:
            totals.requests += 1
            totals.input_tokens += request.input_tokens
        self._rows_seen = arrived
        span_s = max(self.now - self._seen_s, 1e-9)
        per_s = [
            (getattr(totals, name) - getattr(seen, name)) / span_s
            for name in ("requests", "input_tokens", "output_tokens")
        ]
        engines = [engine.model for engine in self._engines.values()]
        queue = sum(model.waiting for model in engines)
        reading = Reading(
            self.now,
            len(fleet.ready),
            fleet.number,
            *per_s,
            ttft_p90_s=self._p90(self._ttfts, queue),
            tpot_p90_s=self._p90(self._tpots, 0),
            tpot_mean_s=sum(self._tpots) / len(self._tpots) if self._tpots else 0.0,
            queue_depth=queue + self._held(),
            waiting_input_tokens=self._waiting_tokens(),
            running=sum(model.running for model in engines),
            kv_usage=sum(model.kv_usage_ratio for model in engines),
            mix=self._mix(),
            totals=totals,
            fleet=fleet,
            held_requests=self._held(),
            held_input_tokens=self._held_tokens(),
        )
        self._seen_s = self.now
        self._seen = Totals(totals.requests, totals.input_tokens, totals.output_tokens)
        self._ttfts, self._tpots = [], []
        return reading

    def _held(self) -> int:
        """Requests at the gateway."""
        return len(self._flights) - len(self._sent)

    def _held_tokens(self) -> float:
        if not self._held():
            return 0.0
        sent = {id(flight) for flight in self._sent.values()}
        return float(
            sum(each.trace.input_tokens for each in self._flights.values() if id(each) not in sent)
        )

    def _waiting_tokens(self) -> float:
        streams = self._streams
        return float(
            sum(
                flight.trace.input_tokens
                for attempt, flight in self._sent.items()
                if attempt not in streams
            )
        )

    def _p90(self, values: list[float], waiting: int) -> float:
        """Of what came; where nothing did although some wait, they wait for at least so long."""
        if values:
            return percentile(sorted(values), 0.9)
        return self.now - self._seen_s if waiting else 0.0

    def _mix(self) -> RequestMix:
        del self._lengths[:-LENGTHS_KEPT]
        lengths = self._lengths or [
            (request.input_tokens, request.output_tokens)
            for request in self._trace[: max(self._rows_seen, 1)][:LENGTHS_KEPT]
        ]
        share = 1.0 / len(lengths)
        points = tuple((share, float(p), float(o)) for p, o in lengths)
        return RequestMix(self._spec, points, 1.0, 1.0)
