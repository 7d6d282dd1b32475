"""Sends one worker's share of a load, on time, and never waits for an answer to do so.

    plan ─► ready (written ahead) ─► alarm rings ─► pool.open ─► Exchange … ─► record

Requests are written before they are due, so that nothing is composed between the ringing of the
alarm and the write to the socket. In a closed loop a user's next request
gets its time when his answer ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from math import inf

from headrace.bench.endpoint.requests import RequestWriter, choices_in
from headrace.bench.endpoint.target import Target
from headrace.bench.endpoint.tokenizer import count_output, open_tokenizer
from headrace.bench.record import Record
from headrace.bench.sending.exchange import Exchange
from headrace.bench.sending.forms import Forms
from headrace.bench.sending.lengths import Lengths
from headrace.bench.sending.own_delay import Standstill
from headrace.bench.settings import BenchSettings
from headrace.bench.timing.arrival_log import ArrivalLog, LoggedConnection
from headrace.bench.timing.clock import Alarm
from headrace.bench.timing.ticks import Ticks
from headrace.edges.http.client import UpstreamPool
from headrace.traffic.load import Load
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.texts import Texts

READY_REQUESTS = 256
"""Written ahead at most."""
READY_BYTES = 32 * 1024 * 1024
"""The same in bytes: long prompts are large."""
AT_ONCE = 24
BYTES_AT_ONCE = 32 * 1024
"""Written in one go, whichever comes first: many in a row are cheaper than one now and then, but a
prompt of 32,000 tokens takes half a millisecond."""
SENT_AT_ONCE = 64
"""After so many, answers are read again: at a rate that cannot be held they would never be."""
ERROR_PAUSE_S = 0.1
"""A user who got an error comes back after this and his pause, or a closed loop would spin."""
SWEEP_S = 0.1
"""Timeouts are looked for this often."""
STOP_S = 0.05
"""A timer that rings so much later shows that the process stood still. What is shorter, other work
on a busy machine, delays what is sent as much as what is read, and is counted there."""
_MAX_IDLE = 65_536
_SEED_BITS = 64
_NO_MORE = (0, None)


@dataclass(slots=True)
class Progress:
    """What happened; counts since the start, samples since the last time it was asked for."""

    sent: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    left: int = 0
    input_tokens: int = 0
    """Of what was sent, as planned."""
    output_chunks: int = 0
    """Content events so far: tokens, unless the engine sends several in one."""
    ttft_s: list[float] = field(default_factory=list)
    tpot_s: list[float] = field(default_factory=list)
    max_lag_s: float = 0.0


@dataclass(slots=True)
class _Ready:
    """A request that waits for its time; `payload` is empty as long as it is not written."""

    planned: PlannedRequest
    exchange: Exchange
    payload: bytes = b""


class Sender:
    """One worker. Create it within its event loop; `origin_s` is the run's start."""

    def __init__(self, target: Target, load: Load, *, worker: int, workers: int) -> None:
        self._settings: BenchSettings = target.settings
        self._load = load
        self._worker = worker
        self._choices = choices_in(target.settings.extra_body)
        self._address = target.address()
        # A user waits for his answer, and who leaves does it at a token.
        may_hold = not load.users and not load.extras.leave_share
        self.log = ArrivalLog(may_hold=may_hold, fail=self.fail)
        self._pool = UpstreamPool(
            max_idle=_MAX_IDLE,
            idle_s=self._settings.idle_s,
            connection_to=partial(LoggedConnection, self.log),
        )
        # Two loads of a sweep have different seeds and so different words, too.
        words = (target.text_seed << _SEED_BITS) + load.seed
        texts = Texts(target.sizing, seed=words, block_tokens=load.block_tokens)
        self._writer = RequestWriter(
            self._settings,
            host=self._address.host_header,
            base_path=target.base_path,
            model=target.model,
            texts=texts,
        )
        self.forms = Forms()
        self._plan = _share(load, worker, workers)
        self._ready: deque[_Ready] = deque()
        self._ready_bytes = 0
        self._is_filling = False
        mine = range(worker, load.users, workers)
        self._users = len(mine)
        self._talks = [load.of_user(user) for user in mine] if load.conversations else []
        """What each user has to say, where they converse."""
        self._thinking: list[tuple[float, int, _Ready]] = []
        self._running: dict[Exchange, None] = {}
        self.origin_s = 0.0
        self._until_s = self._sweep_due_s = inf
        self._connecting: deque[Exchange] = deque()
        self._is_stopped = False
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._alarm = Alarm(self._loop, self._ring)
        self._now = Progress()
        self._untold: list[tuple[Record, list[bytes]]] = []
        self.records: list[Record] = []
        self.lengths = Lengths()
        self.tokens_out = 0
        self.tick_s = 0.0
        """The longest tick in which arrivals were noted; 0: each as it came. See `ticks`."""
        self.stops: list[Standstill] = []
        """When this process stood still."""
        if not load.users:
            self._fill()

    async def run(self, origin_s: float) -> None:
        """Send everything, return when the last answer has ended."""
        self.origin_s = origin_s
        if self._load.users:
            self._until_s = origin_s + self._load.duration_s
            for user in range(self._users):
                self._think(user, origin_s)
        sweeper = self._loop.create_task(self._sweep())
        ticks = Ticks(self._loop, self._alarm, self.log, self._is_connecting)
        self._ring()
        try:
            await self._over
        finally:
            # The last answers may be read before a timer that is due has rung.
            self._note_stop(time.monotonic())
            sweeper.cancel()
            ticks.close()
            self.tick_s = ticks.longest_s
            self._alarm.close()
            self._pool.close()

    def fail(self, error: BaseException) -> None:
        """End the run with an error of our own: `run` raises it."""
        if not self._over.done():
            self._over.set_exception(error)

    def stop(self) -> None:
        """Send no more and end what runs: the report is made of what there is."""
        self._is_stopped = True
        self.log.look()
        now = time.monotonic()
        for exchange in tuple(self._running):
            exchange.stop(now)
        self._end_if_over()

    def count_untold(self) -> None:
        """Count tokens of answers without usage, where there is a tokenizer; after the run.

        Raises:
            BenchError: the tokenizer cannot be used any more.
        """
        path = self._settings.tokenizer
        if path is None or not self._untold:
            return
        count = open_tokenizer(path)
        for record, events in self._untold:
            count_output(record, events, count)

    def progress(self) -> Progress:
        """What happened so far; the next one begins with empty samples."""
        told, self._now = self._now, Progress()
        for name in ("sent", "done", "failed", "left", "input_tokens"):
            setattr(self._now, name, getattr(told, name))
        told.running = len(self._running)
        told.output_chunks = self.tokens_out
        return told

    # ------------------------------------------------------------ when

    def _is_connecting(self) -> bool:
        waiting = self._connecting
        while waiting and (waiting[0].over or waiting[0].is_sent):
            waiting.popleft()
        return bool(waiting)

    def _ring(self) -> None:
        """Send what is due and set the alarm for what comes next."""
        if self._is_stopped:
            return
        next_s = self._send_users() if self._load.users else self._send_due()
        if next_s < inf:
            self._alarm.set(next_s)
        else:
            self._end_if_over()

    def _send_due(self) -> float:
        origin_s, ready = self.origin_s, self._ready
        last = self._now.sent + SENT_AT_ONCE
        while ready:
            at_s = origin_s + ready[0].planned.at_s
            if at_s > time.monotonic() or self._now.sent >= last:
                return at_s
            self._send(ready.popleft(), at_s)
            if not ready:
                self._fill(1)
            elif not self._is_filling and len(ready) <= READY_REQUESTS // 2:
                self._is_filling = True
                self._loop.call_soon(self._fill_more)
        return inf

    def _send_users(self) -> float:
        thinking = self._thinking
        last = self._now.sent + SENT_AT_ONCE
        while thinking:
            at_s, _, ready = thinking[0]
            if at_s > time.monotonic() or self._now.sent >= last:
                return at_s
            heappop(thinking)
            self._send(ready, at_s)
        return inf

    def _think(self, user: int, now: float) -> None:
        """Give a user his next request, if there is one in the time that is left."""
        plan = self._talks[user] if self._talks else self._plan
        index, planned = next(plan, _NO_MORE)
        if planned is None or now + planned.at_s >= self._until_s:
            return
        ready = self._prepare(planned, index, user)
        if self._ready_bytes <= READY_BYTES:
            self._write(ready)
        heappush(self._thinking, (now + planned.at_s, index, ready))

    # ------------------------------------------------------------ sending

    def _fill_more(self) -> None:
        """Write a few ahead and let the loop see to what is due, until there are enough."""
        self._is_filling = self._fill(AT_ONCE, BYTES_AT_ONCE)
        if self._is_filling:
            self._loop.call_soon(self._fill_more)

    def _fill(self, most: int = READY_REQUESTS, most_bytes: int = READY_BYTES) -> bool:
        """Write so many requests or bytes ahead; whether there is room for more, and more to write.

        Each is made whole here, exchange and record too: what is done now and then is many times
        as dear as the same done in a row, for other code has taken its place in the caches.
        """
        ready = self._ready
        left = min(most, READY_REQUESTS - len(ready))
        until_bytes = min(self._ready_bytes + most_bytes, READY_BYTES)
        while left > 0 and self._ready_bytes <= until_bytes:
            index, planned = next(self._plan, _NO_MORE)
            if planned is None:
                return False
            ready.append(self._prepare(planned, index))
            self._write(ready[-1])
            left -= 1
        return len(ready) < READY_REQUESTS and self._ready_bytes <= READY_BYTES

    def _prepare(self, planned: PlannedRequest, index: int, user: int = -1) -> _Ready:
        """All but the text, which may be large."""
        record = Record(
            index,
            self._worker,
            planned.length_class,
            planned.tier,
            input_tokens=planned.input_tokens,
            choices=self._choices,
        )
        exchange = Exchange(
            self,
            self._settings,
            record,
            leave_after=planned.leave_after,
            max_tokens=planned.output_tokens,
            user=user,
        )
        return _Ready(planned, exchange)

    def _write(self, ready: _Ready) -> None:
        ready.payload = self._writer.write(ready.planned, ready.exchange.record.index)
        self._ready_bytes += len(ready.payload)

    def _send(self, ready: _Ready, at_s: float) -> None:
        if not ready.payload:
            self._write(ready)
        self._ready_bytes -= len(ready.payload)
        exchange = ready.exchange
        record = exchange.record
        record.intended_s = at_s - self.origin_s
        now = time.monotonic()
        record.sent_s = now - self.origin_s
        exchange.deadline_s = now + self._settings.timeout_s
        self._running[exchange] = None
        exchange.call = self._pool.open(self._address, [ready.payload], exchange)
        if not exchange.is_sent:
            self._connecting.append(exchange)
        told = self._now
        told.sent += 1
        told.input_tokens += record.input_tokens
        told.max_lag_s = max(told.max_lag_s, now - at_s)

    # ------------------------------------------------------------ what exchanges tell

    def first_token(self, exchange: Exchange) -> None:
        """See `exchange.Ended`."""
        ttft_s = exchange.record.ttft_s
        if ttft_s is not None:
            self._now.ttft_s.append(ttft_s)

    def ended(self, exchange: Exchange) -> None:
        """See `exchange.Ended`."""
        del self._running[exchange]
        record, told = exchange.record, self._now
        self.records.append(record)
        if exchange.kept and not record.error and not record.left:
            self._untold.append((record, exchange.kept))
        if record.left:
            told.left += 1
        elif record.error:
            told.failed += not record.was_interrupted
        else:
            told.done += 1
            if record.tokens_exact:
                exchange.add_lengths(self.lengths)
            tpot_s = record.tpot_s
            if tpot_s is not None:
                told.tpot_s.append(tpot_s)
        if exchange.user >= 0 and not self._is_stopped:
            pause_s = ERROR_PAUSE_S if record.error else 0.0
            self._think(exchange.user, self.origin_s + record.ended_s + pause_s)
            # Not from within the answer of another: a chain of users would nest.
            self._alarm.soon()
        else:
            self._end_if_over()

    # ------------------------------------------------------------ inside

    def _end_if_over(self) -> None:
        waiting = bool(self._thinking) if self._load.users else bool(self._ready)
        if self._running or (waiting and not self._is_stopped) or self._over.done():
            return
        self._over.set_result(None)

    def _note_stop(self, now: float) -> None:
        late_s = now - self._sweep_due_s
        if late_s > STOP_S:
            origin_s = self.origin_s
            stop = Standstill(self._worker, self._sweep_due_s - origin_s, now - origin_s)
            self.stops.append(stop)

    async def _sweep(self) -> None:
        while True:
            self._sweep_due_s = time.monotonic() + SWEEP_S
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            self._note_stop(now)
            self.log.look()
            self._pool.sweep(now)
            # In order of sending, and all have the same time: the first that is not over ends it.
            for exchange in tuple(islice(self._running, READY_REQUESTS)):
                if exchange.deadline_s > now:
                    break
                exchange.time_out(now)


def _share(load: Load, worker: int, workers: int) -> Iterator[tuple[int, PlannedRequest]]:
    """Every `workers`-th request, with its place in the whole plan."""
    return islice(enumerate(load.stream()), worker, None, workers)
