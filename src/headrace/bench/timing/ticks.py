"""Lets what arrives gather for a moment where it is a lot, as a network card does.

    tick = min(LONGEST_S, GATHERED / pieces a second)
    block the loop for a tick, or until the next request is due, whichever is sooner

Each piece of an answer wakes the process, and waking costs more than reading: at 6,400 pieces a
second over a third of the CPU goes into it. With ticks the loop finds several at each poll. The
price is that an arrival is noted late, by a tick at most and half of it on average, so ticks are on
only above ABOVE_PER_S pieces a second, and the results say how long they were. What is sent is not
delayed: no tick outlasts the next due time.

An engine that sends a token of every stream in one go, each step, gathers by itself: most ticks
find nothing then, and there are none for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import copy_context

from headrace.bench.timing.arrival_log import ArrivalLog
from headrace.bench.timing.clock import Alarm
from headrace.bench.timing.waking import wake_in_time

LONGEST_S = 0.002
"""An arrival is noted late by so much at most."""
GATHERED = 20
"""Pieces that a tick waits for: with more, the last of them wait for the first to be read."""
ABOVE_PER_S = 2000.0
"""Pieces of answers that one process gets in a second: ticks begin above, and end below half."""
JUDGED_EACH_S = 0.05
"""The rate is measured this often."""
WATCHED_TICKS, EMPTY_SHARE = 200, 0.5
"""If of so many ticks more than this share found nothing, arrivals come in bursts. Fewer ticks do
not show it: an engine may stand still for a moment."""
BURSTS_S = 5.0
"""Then there are no ticks for so long."""
LOOK_S = 0.001
"""If nothing is to be sent for so long, there is time to look at what was found."""


class Ticks:
    """Of one process: when its loop blocks, and who rings the alarm meanwhile."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        alarm: Alarm,
        log: ArrivalLog,
        must_turn: Callable[[], bool],
    ) -> None:
        """`log` holds what arrives as long as there are ticks; `must_turn` says whether something
        is under way that takes several turns of the loop, and so would take a tick for each.
        """
        self._loop = loop
        self._alarm = alarm
        self._log = log
        self._must_turn = must_turn
        self._again, self._context = self._tick, copy_context()
        """What the loop is asked for at each tick, made once."""
        self._is_much = False
        self.is_on = False
        self._tick_s = 0.0
        self.longest_s = 0.0
        """The longest tick so far; 0: there was none."""
        self._before = self._seen = log.reads
        self._ticks = self._empty = 0
        self._none_before_s = 0.0
        self._judged_s = time.monotonic()
        self._timer = loop.call_later(JUDGED_EACH_S, self._judge)
        wake_in_time()

    def close(self) -> None:
        """No more ticks."""
        self._is_much = False
        self._timer.cancel()

    def _judge(self) -> None:
        now, arrived = time.monotonic(), self._log.reads
        rate = (arrived - self._before) / (now - self._judged_s)
        self._before, self._judged_s = arrived, now
        self._timer = self._loop.call_later(JUDGED_EACH_S, self._judge)
        if self._ticks >= WATCHED_TICKS:
            if self._empty > EMPTY_SHARE * self._ticks:
                self._none_before_s = now + BURSTS_S
            self._ticks = self._empty = 0
        least = ABOVE_PER_S / 2 if self._is_much else ABOVE_PER_S
        self._is_much = rate > least and now >= self._none_before_s
        if self._is_much:
            self._tick_s = min(LONGEST_S, GATHERED / rate)
            self.longest_s = max(self.longest_s, self._tick_s)
        if self._is_much and not self.is_on:
            self.is_on = True
            self._alarm.hold()
            self._log.begin()
            self._loop.call_soon(self._again, context=self._context)

    def _tick(self) -> None:
        """Runs once in each turn of the loop, before it polls: the poll finds what has gathered."""
        if not self._is_much or self._must_turn():
            self.is_on = False
            self._alarm.release()
            self._log.end()
            return
        arrived = self._log.reads
        self._ticks += 1
        self._empty += arrived == self._seen
        self._seen = arrived
        now, due_s = time.monotonic(), self._alarm.at_s
        until_s = min(now + self._tick_s, due_s)
        if self._log.is_due(now, has_time=due_s - now > LOOK_S):
            self._log.look()
            now = time.monotonic()
        wait_s = until_s - now
        if wait_s > 0:
            time.sleep(wait_s)
        self._alarm.check()
        self._loop.call_soon(self._again, context=self._context)
