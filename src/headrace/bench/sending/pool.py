"""Runs a load: as many worker processes as it needs, their records put together, the lag judged.

    workers = ⌈busiest second · (CPU of a request + output tokens · CPU of a chunk) / 0.5⌉

at most one per core. The worker that sends is never the process that draws: whatever a display
costs, requests leave on time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from multiprocessing.connection import Connection, wait
from typing import Any

from headrace import __version__
from headrace.bench.endpoint.target import Target
from headrace.bench.record import Lag, Record, RunInfo
from headrace.bench.sending.exchange import NO_SOCKET
from headrace.bench.sending.lengths import Lengths
from headrace.bench.sending.own_delay import Standstill, doubt, lag_of
from headrace.bench.sending.sender import Progress
from headrace.bench.sending.worker import Begin, Ended, Job, Ready, Stop, work
from headrace.bench.settings import BenchError, BenchSettings
from headrace.edges.cores import usable_cores
from headrace.traffic.load import Load

REQUEST_CPU_S = 150e-6
CHUNK_CPU_S = 15e-6
"""What sending costs on a slow core; only the number of workers follows from it."""
BUSY_SHARE = 0.5
"""Share of a core that one worker may need: above it, the queue in front of it shows in TTFT."""
STREAMS_PER_WORKER = 500
"""Users of a closed loop that one worker serves, since nobody knows how fast they will be."""
BEGIN_IN_S = 0.02
"""From the last worker's word that it is ready to the first request."""

OnProgress = Callable[[float, Progress], None]
"""Takes seconds since the start and what all workers did; called a few times a second."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came out: records in order of `intended_s`."""

    records: list[Record]
    info: RunInfo


def measure(target: Target, load: Load, on_progress: OnProgress | None = None) -> Run:
    """Play a load against a target, to its end or to Ctrl-C; a second Ctrl-C raises.

    Raises:
        BenchError: a worker process died.
    """
    workers = workers_for(load, target.settings)
    cpu_s = time.process_time()
    with _processes(target, load, workers) as lines:
        crew = _Crew(lines, on_progress)
        crew.run()
    cpu_s = crew.cpu_s + time.process_time() - cpu_s
    records = sorted(crew.records, key=lambda record: (record.intended_s, record.index))
    return Run(records, _info(target, load, crew, records, cpu_s))


def workers_for(load: Load, settings: BenchSettings) -> int:
    """How many processes are to send."""
    if settings.workers is not None:
        # A process without a user would keep its share of the requests to itself.
        return min(settings.workers, load.users or settings.workers)
    chunks = load.mean_output_tokens if settings.stream else 1.0
    busy = load.peak_rps * (REQUEST_CPU_S + chunks * CHUNK_CPU_S)
    wanted = max(busy / BUSY_SHARE, load.users / STREAMS_PER_WORKER)
    return max(1, min(usable_cores(), ceil(wanted)))


class _Crew:
    """The workers of one run, as the parent sees them."""

    def __init__(self, lines: Sequence[Connection], on_progress: OnProgress | None) -> None:
        self._lines = lines
        self._on_progress = on_progress
        self._newest: dict[Connection, Progress] = {}
        self._ready = 0
        self._open = list(lines)
        self.workers = len(lines)
        self.origin_s = 0.0
        self.started_at = 0.0
        self.cpu_s = 0.0
        self.tick_s = 0.0
        self.lengths = Lengths()
        self.stops: list[Standstill] = []
        self.records: list[Record] = []
        self.interrupted = False

    def run(self) -> None:
        """Until every worker has handed over its records."""
        while self._open:
            try:
                for line in wait(self._open):
                    assert isinstance(line, Connection)
                    self._take(line)
            except KeyboardInterrupt:
                if self.interrupted:
                    raise
                self.interrupted = True
                self._tell(Stop())

    def _take(self, line: Connection) -> None:
        try:
            told = line.recv()
        except (EOFError, OSError):
            raise BenchError("a worker process died; nothing can be said of this run") from None
        match told:
            case Ready():
                self._ready += 1
                if self._ready == len(self._lines):
                    self.origin_s = time.monotonic() + BEGIN_IN_S
                    self.started_at = time.time() + BEGIN_IN_S
                    self._tell(Begin(self.origin_s))
            case Progress():
                self._newest[line] = told
                if self._on_progress is not None and len(self._newest) == len(self._lines):
                    passed_s = time.monotonic() - self.origin_s
                    self._on_progress(passed_s, _together(list(self._newest.values())))
                    self._newest.clear()
            case Ended():
                self.cpu_s += told.cpu_s
                self.tick_s = max(self.tick_s, told.tick_s)
                self.lengths.merge(told.lengths)
                self.stops += told.stops
                self._open.remove(line)
            case _:
                self.records += told

    def _tell(self, word: Begin | Stop) -> None:
        for line in self._open:
            with contextlib.suppress(BrokenPipeError):
                line.send(word)


def _together(parts: Sequence[Progress]) -> Progress:
    total = Progress()
    for part in parts:
        total.sent += part.sent
        total.running += part.running
        total.done += part.done
        total.failed += part.failed
        total.left += part.left
        total.input_tokens += part.input_tokens
        total.output_chunks += part.output_chunks
        total.ttft_s += part.ttft_s
        total.tpot_s += part.tpot_s
        total.max_lag_s = max(total.max_lag_s, part.max_lag_s)
    return total


@contextlib.contextmanager
def _processes(target: Target, load: Load, workers: int) -> Iterator[list[Connection]]:
    context: Any = _context()
    pairs = [context.Pipe() for _ in range(workers)]
    ours = [pair[0] for pair in pairs]
    theirs = [pair[1] for pair in pairs]
    forked = context.get_start_method() == "fork"
    processes: list[Any] = []
    for number in range(workers):
        # A forked process inherits every end that is open, and would keep the others' lines alive.
        unused = [*ours, *(end for end in theirs if end is not theirs[number])] if forked else []
        job = Job(target, load, number, workers)
        process = context.Process(
            target=work, args=(job, theirs[number], unused), name=f"bench-{number}", daemon=True
        )
        process.start()
        processes.append(process)
    for end in theirs:
        end.close()
    try:
        yield ours
    finally:
        for end in ours:
            end.close()
        for process in processes:
            process.join(2.0)
            if process.is_alive():
                process.kill()
                process.join()


def _context() -> Any:  # noqa: ANN401 - the stubs give each start method a class of its own
    """A forked process is ready at once; where forking is not safe, a new one is started."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def _info(
    target: Target, load: Load, crew: _Crew, records: Sequence[Record], cpu_s: float
) -> RunInfo:
    settings = target.settings
    lag = lag_of(records, settings.late_after_s, crew.stops)
    reason = _doubt(lag, settings, records, crew.stops)
    first_s = min((each.intended_s for each in records), default=0.0)
    ended_s = max((each.ended_s for each in records), default=0.0)
    load_s = load_s_of(load, records, crew.interrupted)
    whole = [each for each in records if each.ok and not each.left]
    return RunInfo(
        url=settings.url,
        model=target.title,
        traffic=load.words,
        seed=load.seed,
        workers=crew.workers,
        started_at=crew.started_at,
        duration_s=ended_s - first_s,
        load_s=load_s,
        planned_requests=load.requests,
        offered_rps=len(records) / load_s if load_s > 0 else 0.0,
        open_loop=not load.users,
        streamed=settings.stream,
        endpoint=settings.endpoint,
        lag=lag,
        cpu_s=cpu_s,
        arrival_tick_s=crew.tick_s,
        tokens_by=target.sizing.by,
        natural_ends=settings.natural_ends,
        input_of_planned=crew.lengths.input_share,
        output_of_planned=crew.lengths.output_share,
        without_usage=sum(not (each.tokens_exact or each.odd_usage) for each in whole),
        odd_usage=sum(each.odd_usage for each in whole),
        valid=not reason,
        invalid_reason=reason,
        text_seed=target.text_seed,
        interrupted=crew.interrupted,
        python=platform.python_version(),
        headrace=__version__,
    )


def load_s_of(load: Load, records: Sequence[Record], interrupted: bool) -> float:
    """The span that requests are counted over, in seconds.

    In an open loop that in which they were due. Users ask for as long as they are answered: many
    are due at once at the start, and over the time until the last was due their rate would be that
    of no engine.
    """
    if not load.users and load.duration_s < inf and not load.requests and not interrupted:
        return load.duration_s
    last_s = max((each.intended_s for each in records), default=0.0)
    if not load.users and last_s > 0.0:
        return last_s
    first_s = min((each.intended_s for each in records), default=0.0)
    return max((each.ended_s for each in records), default=0.0) - first_s


def _doubt(
    lag: Lag,
    settings: BenchSettings,
    records: Sequence[Record],
    stops: Sequence[Standstill] = (),
) -> str:
    """Why the run cannot be trusted, or nothing."""
    if not records:
        return "nothing was sent"
    without = sum(record.error == NO_SOCKET for record in records)
    if without:
        return (
            f"the generator had no socket left for {without:,} of its requests; raise `ulimit -n`, "
            "or run it on more machines"
        )
    return doubt(records, lag, stops, settings.max_late_share)
