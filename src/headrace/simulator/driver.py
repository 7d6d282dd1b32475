"""One run: a trace arrives on a virtual clock, the core decides, modelled engines serve.

    arrival ──► Arrived ──► Dispatch ──► EngineModel.submit
                              core  ◄── FirstToken, Ended, KvChanged ◄── EngineModel.advance
                              core  ◄── Scraped, Progress, Wake      ◄── the clock

The agenda is a heap of (time, sequence number, what to do): what is due at the same time happens
in the order in which it was planned. Scraped metrics are most of what is planned, and all of them
are told with the same lag: they wait in a queue beside it, in the same order. The core is the
gateway's `Dispatcher`, driven as the gateway drives it, and everything it learns of engines and
answers is in those events.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from math import inf
from typing import TypeAlias

from headrace.core.admission import DEFAULT_TIER, AdmissionSettings, Tier
from headrace.core.dispatcher import Dispatcher
from headrace.core.events import (
    Arrived,
    ConfigChanged,
    Dispatch,
    Ended,
    Event,
    FirstToken,
    KvChanged,
    Progress,
    Reject,
    ReplicaChanged,
    ReplicaGone,
    Scraped,
    Wake,
    WakeAt,
)
from headrace.core.model import Endpoint, EngineReport, Outcome, PromptBlocks, Request, Usage
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from headrace.engine_model import EngineModel, EngineSpec, Happening, Job
from headrace.engine_model import jobs as happenings
from headrace.simulator.results import FAILED, SHED, Results
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import TraceRequest

MODEL = "model"
POOL = "pool"
MOST_HELD = 1_000_000_000
DECISIONS_KEPT = 1
"""In the core's log: nobody asks here why."""
TURNS_PER_REPORT = 1024
"""How often a run tells how far it is."""

Action: TypeAlias = Callable[[], None]
OnProgress: TypeAlias = Callable[[int], None]
"""Takes how many requests are over."""


class Flight:
    """A request from its arrival to its end."""

    __slots__ = ("attempt", "engine", "job", "reported_tokens", "row", "trace", "usage")

    def __init__(self, row: int, trace: TraceRequest) -> None:
        self.row = row
        self.trace = trace
        self.attempt = 0
        self.engine: _Engine | None = None
        self.job: Job | None = None
        self.usage: Usage | None = None
        self.reported_tokens = 0


class _Engine:
    """A replica's model with its place in the agenda: `event_s` is when it is looked at next, by
    the entry with the number `event_turn`; older entries are void.
    """

    __slots__ = ("event_s", "event_turn", "idle_report", "model", "name")

    def __init__(self, name: str, spec: EngineSpec, *, records_kv: bool) -> None:
        self.name = name
        self.model = EngineModel(spec, records_kv=records_kv)
        self.idle_report = _report(self.model)
        self.event_s = inf
        self.event_turn = 0


class Simulation:
    """One policy against one trace; `run` it once.

    `requests` come in order of arrival and are taken one by one, so they may be made on the way.
    `specs` are the engines as they are; the policy believes `settings.engine`.
    """

    def __init__(
        self,
        settings: SimulationSettings,
        policy: str,
        specs: list[EngineSpec],
        requests: Iterable[TraceRequest],
        block_tokens: int,
    ) -> None:
        self.now = 0.0
        self.results = Results()
        self._settings = settings
        self._block_tokens = block_tokens
        self._requests: Iterator[TraceRequest] = iter(requests)
        self._more = True
        self._stop_s = inf
        self._agenda: list[tuple[float, int, Action | _Engine]] = []
        self._turn = 0
        self._flights: dict[str, Flight] = {}  # by request id
        self._streams: dict[int, Flight] = {}  # by attempt, with a first token
        self._sent: dict[int, Flight] = {}  # by attempt
        self._engines = {
            name: _Engine(name, spec, records_kv=settings.kv_events)
            for name, spec in zip(replica_names(len(specs)), specs, strict=True)
        }
        self._in_turn: list[_Engine] | None = None  # as they are scraped; made when needed
        self._scraped: deque[tuple[float, int, Scraped]] = deque()  # as in the agenda; not told yet
        self._core = self._make_core(
            _dispatcher_settings(settings),
            random.Random(f"dispatcher {settings.seed}"),  # noqa: S311 - no secrets
            PromptBlocks(block_tokens, kv_events=settings.kv_events),
        )
        self._begin(policy)

    def run(self, on_progress: OnProgress | None = None) -> Results:
        """Play until every request has ended, or until the drain limit."""
        agenda, scraped, results = self._agenda, self._scraped, self.results
        self._expect_arrival()
        while agenda and (self._more or self._flights):
            at_s, turn, what = heappop(agenda)
            if at_s > self._stop_s:
                results.end_s = self._stop_s
                break
            if scraped and scraped[0][0] <= at_s:
                self._tell_scraped(at_s, turn)
            self.now = at_s
            if not isinstance(what, _Engine):
                what()
            elif what.event_turn == turn:
                self._look_at(what)
            if on_progress is not None and turn % TURNS_PER_REPORT == 0:
                on_progress(len(results.state) - len(self._flights))
        return results

    # ---- beginning

    def _make_core(
        self, settings: DispatcherSettings, rng: random.Random, blocks: PromptBlocks
    ) -> Dispatcher:
        return Dispatcher(settings, rng, blocks)

    def _begin(self, policy: str) -> None:
        pool = PoolSpec(POOL, MODEL, policy=policy, profile=self._settings.engine.latency)
        self._tell(ConfigChanged((pool,), ()))
        for name, engine in self._engines.items():
            self._tell(ReplicaChanged(name, POOL, f"http://{name}", ready=True))
            # Before it is ready, an engine was asked for its metrics once.
            self._tell(Scraped(name, _report(engine.model)))
        self._scrape_in_turn()
        self._at(self._settings.progress_period_s, self._report_progress)

    def _scrape_in_turn(self) -> None:
        """One replica after the other, of those that are there, evenly spread over the period."""
        count = 0

        def sample() -> None:
            nonlocal count
            engines = self._in_turn
            if engines is None:
                engines = self._in_turn = list(self._engines.values())
            if engines:
                self._scrape(engines[count % len(engines)])
            count += 1
            self._at(self.now + self._settings.scrape_period_s / (len(engines) or 1), sample)

        self._at(0.0, sample)

    def _scrape(self, engine: _Engine) -> None:
        """Its metrics, told with the lag."""
        report = engine.idle_report
        if engine.event_s < inf:
            self._look_at(engine)
            report = _report(engine.model)
        self._turn += 1
        due_s = self.now + self._settings.scrape_lag_s
        self._scraped.append((due_s, self._turn, Scraped(engine.name, report)))

    def _tell_scraped(self, at_s: float, turn: int) -> None:
        """Tell what is due before what has this place in the agenda."""
        place = (at_s, turn)
        while self._scraped and self._scraped[0] < place:
            self.now, _, scraped = self._scraped.popleft()
            self._tell(scraped)

    # ---- replicas that come and go

    def _add_engine(self, name: str, spec: EngineSpec) -> None:
        """A replica has become ready."""
        engine = _Engine(name, spec, records_kv=self._settings.kv_events)
        self._engines[name] = engine
        self._in_turn = None
        self._tell(ReplicaChanged(name, POOL, f"http://{name}", ready=True))
        self._tell(Scraped(name, _report(engine.model)))

    def _drain_engine(self, name: str) -> None:
        """It takes nothing new from now on."""
        self._tell(ReplicaChanged(name, POOL, f"http://{name}", ready=True, draining=True))

    def _remove_engine(self, name: str) -> None:
        """It is gone; nothing runs there."""
        del self._engines[name]
        self._in_turn = None
        self._tell(ReplicaGone(name))

    # ---- requests

    def _expect_arrival(self) -> None:
        trace = next(self._requests, None)
        if trace is None:
            self._more = False
            self._stop_s = self.now + self._settings.drain_limit_s
        else:
            self._at(trace.arrival_s, lambda: self._arrive(trace))

    def _arrive(self, trace: TraceRequest) -> None:
        row, slo = self.results.arrive(self.now), self._settings.slo
        request = Request(
            f"r{row}",
            MODEL,
            Endpoint.COMPLETIONS,
            streamed=True,
            prompt_tokens=trace.input_tokens,
            blocks=trace.blocks,
            # What goodput will be judged by is what is promised, as a client says in its headers.
            ttft_target_s=slo.ttft_s,
            tpot_target_s=slo.tpot_s,
        )
        self._flights[request.id] = Flight(row, trace)
        self._expect_arrival()
        self._tell(Arrived(request))

    def _dispatch(self, dispatch: Dispatch) -> None:
        flight = self._flights[dispatch.request_id]
        engine = self._engines[dispatch.replica]
        flight.attempt, flight.engine = dispatch.attempt, engine
        self._sent[dispatch.attempt] = flight
        self._after_network(lambda: self._submit(flight, engine))

    def _submit(self, flight: Flight, engine: _Engine) -> None:
        trace = flight.trace
        if not engine.model.spec.holds(trace.input_tokens + trace.output_tokens):
            self._after_network(lambda: self._refused(flight))
            return
        flight.job = Job(
            flight.attempt,
            trace.input_tokens,
            trace.output_tokens,
            trace.blocks,
            self._block_tokens,
        )
        engine.model.submit(flight.job, self.now)
        self._look_at(engine)

    def _refused(self, flight: Flight) -> None:
        """The engine answers that the request is longer than its KV cache or context."""
        del self._sent[flight.attempt], self._flights[f"r{flight.row}"]
        self.results.give_up(flight.row, self.now, FAILED)
        self._tell(Ended(flight.attempt, Outcome.REFUSED, status=400))

    # ---- engines

    def _look_at(self, engine: _Engine) -> None:
        """Pass on what happened there until now, and plan when to look again."""
        model = engine.model
        for happening in model.advance(self.now):
            if self._settings.network_s:
                self._after_network(lambda happening=happening: self._happened(engine, happening))
            else:
                self._happened(engine, happening)
        event_s = model.next_event_s()
        if event_s != engine.event_s:
            engine.event_s = event_s
            engine.event_turn = self._turn + 1
            if event_s < inf:
                self._at(event_s, engine)

    def _happened(self, engine: _Engine, happening: Happening) -> None:
        if isinstance(happening, happenings.FirstToken):
            self._first_token(happening.job, happening.cached_tokens)
        elif isinstance(happening, happenings.Finished):
            self._finished(happening.job)
        elif isinstance(happening, happenings.BlocksStored):
            self._tell(KvChanged(engine.name, stored=happening.blocks))
        else:
            self._tell(KvChanged(engine.name, removed=happening.blocks))

    def _first_token(self, job: Job, cached_tokens: int) -> None:
        flight = self._sent[job.id]
        flight.usage = Usage(job.prompt_tokens, job.output_tokens, cached_tokens)
        self._streams[job.id] = flight
        self.results.first_token(flight.row, self.now, job.prompt_tokens, cached_tokens)
        self._tell(FirstToken(job.id))

    def _finished(self, job: Job) -> None:
        flight = self._sent.pop(job.id)
        del self._streams[job.id], self._flights[f"r{flight.row}"]
        self.results.complete(flight.row, self.now, job.output_tokens)
        self._tell(Ended(job.id, Outcome.COMPLETED, flight.usage, job.output_tokens, 200))

    def _report_progress(self) -> None:
        """Tell the core how far each stream is, as the gateway does from what it relayed."""
        now = self.now
        for attempt, flight in list(self._streams.items()):
            assert flight.engine is not None
            assert flight.job is not None
            tokens = flight.engine.model.decoded_tokens(flight.job, now)
            if tokens > flight.reported_tokens:
                flight.reported_tokens = tokens
                self._tell(Progress(attempt, tokens))
        self._at(now + self._settings.progress_period_s, self._report_progress)

    # ---- the core and the clock

    def _tell(self, event: Event) -> None:
        """Hand an event to the core and carry out its effects."""
        for effect in self._core.handle(event, self.now):
            if isinstance(effect, Dispatch):
                self._dispatch(effect)
            elif isinstance(effect, Reject):
                flight = self._flights.pop(effect.request_id, None)
                if flight is not None:
                    self.results.give_up(flight.row, self.now, SHED)
            elif isinstance(effect, WakeAt):
                self._at(effect.at_s, lambda: self._tell(Wake()))

    def _at(self, at_s: float, what: Action | _Engine) -> None:
        self._turn += 1
        heappush(self._agenda, (at_s, self._turn, what))

    def _after_network(self, action: Action) -> None:
        if self._settings.network_s:
            self._at(self.now + self._settings.network_s, action)
        else:
            action()


def _dispatcher_settings(settings: SimulationSettings) -> DispatcherSettings:
    """The core knows the targets; nothing is shed, so that policies answer for all that came."""
    slo = settings.slo
    tier = Tier(DEFAULT_TIER, slo.ttft_s, slo.tpot_s, shed_after_factor=0.0, ttl_s=inf)
    admission = AdmissionSettings(max_held=MOST_HELD, hold_above_s=settings.hold_above_s)
    return DispatcherSettings(decisions=DECISIONS_KEPT, tiers=(tier,), admission=admission)


def replica_names(count: int) -> list[str]:
    """Names whose order is that of their numbers."""
    digits = len(str(count - 1))
    return [f"replica-{number:0{digits}d}" for number in range(count)]


def _report(model: EngineModel) -> EngineReport:
    """What a scrape of the engine's metrics says."""
    spec = model.spec
    return EngineReport(
        queue_depth=model.waiting,
        running=model.running,
        kv_usage_ratio=model.kv_usage_ratio,
        kv_capacity_tokens=spec.kv_capacity_tokens,
        waiting_for_room=model.waiting,
    )
