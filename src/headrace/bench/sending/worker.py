"""One process that sends: it is told when to begin, says how it goes, hands over its records.

parent                      worker
  │ ◄──────────── Ready ──────│   requests are written, the loop runs
  │ ───────── Begin(at) ─────►│
  │ ◄────────── Progress ─────│   a few times a second
  │ ───────────── Stop ──────►│   only if somebody pressed Ctrl-C
  │ ◄──── list[Record] … ─────│
  │ ◄──────────── Ended ──────│
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from headrace.bench.endpoint.target import Target
from headrace.bench.sending.lengths import Lengths
from headrace.bench.sending.memory import let_go
from headrace.bench.sending.own_delay import Standstill
from headrace.bench.sending.sender import Sender
from headrace.traffic.load import Load

TELL_S = 0.25
"""Progress is told this often."""
RECORDS_AT_ONCE = 500
TRIMMED_EACH = 10_000
"""Records handed over, until their memory is given back."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker may be told to begin."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The run starts at this time of `time.monotonic`, which all processes share."""

    origin_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Send no more, end what runs."""


@dataclass(frozen=True, slots=True)
class Ended:
    """All records are handed over."""

    cpu_s: float
    tick_s: float
    """See `Sender`."""
    lengths: Lengths
    stops: list[Standstill]


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker is to do."""

    target: Target
    load: Load
    worker: int
    workers: int


def work(job: Job, line: Connection, others: Sequence[Connection]) -> None:
    """The whole life of a worker process. `others` are ends it inherited and has no use for."""
    # Ctrl-C reaches all processes of a terminal, and what `timeout` sends all of its group: the
    # parent says what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for other in others:
        other.close()
    _allow_many_files()
    gc.collect()
    # A request leaves no cycle behind, and a search for cycles would stop the clock for all.
    gc.freeze()
    gc.disable()
    try:
        uvloop.run(_run(job, line))
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone: nobody wants to know
    finally:
        line.close()


def _on_error(sender: Sender, context: dict[str, Any]) -> None:
    """A fault of ours in a callback would only be logged, and the run would wait for ever.

    What goes wrong with a connection ends that request, and is counted there.
    """
    error = context.get("exception")
    of_a_connection = isinstance(error, OSError) or not {"transport", "protocol"}.isdisjoint(
        context
    )
    if isinstance(error, Exception) and not of_a_connection:
        sender.fail(error)


def _allow_many_files() -> None:
    """As many open connections as the system lets us have: usually it is told to allow 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _run(job: Job, line: Connection) -> None:
    sender = Sender(job.target, job.load, worker=job.worker, workers=job.workers)
    line.send(Ready())
    begin = line.recv()
    assert isinstance(begin, Begin)
    cpu_s = time.process_time()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: _on_error(sender, context))
    running = asyncio.ensure_future(sender.run(begin.origin_s))

    def told() -> None:
        try:
            line.recv()  # there is only Stop to be told
            sender.stop()
        except EOFError:
            loop.remove_reader(line.fileno())
            running.cancel()

    loop.add_reader(line.fileno(), told)
    # uvloop makes it non-blocking, and then a send that finds the line full would fail.
    os.set_blocking(line.fileno(), True)
    try:
        while not running.done():
            line.send(sender.progress())
            await asyncio.wait({running}, timeout=TELL_S)
        await running
    except asyncio.CancelledError:
        raise EOFError from None
    finally:
        loop.remove_reader(line.fileno())
    cpu_s = time.process_time() - cpu_s
    line.send(sender.progress())
    sender.count_untold()
    records = sender.records
    while records:  # let go of what the parent has, or all would be there twice
        line.send(records[-RECORDS_AT_ONCE:])
        del records[-RECORDS_AT_ONCE:]
        if len(records) % TRIMMED_EACH < RECORDS_AT_ONCE:
            let_go()
    line.send(Ended(cpu_s, sender.tick_s, sender.lengths, sender.stops))
