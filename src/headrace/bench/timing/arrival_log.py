"""Notes when each read of an answer came, and has it looked at a little later, many in a row.

    read ─► (connection, data, time) … ─► 50 ms later: all of them to their exchanges, in order

Between one read and the next the kernel runs, and after each sleep of the process the caches are
cold: a read that is looked at alone takes up to three times the CPU of one among many. Exchanges
are told the time at which it came, so that nothing that is measured changes. What does change:
the end of an answer is known later, and its connection is free later.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.upstream_connection import UpstreamConnection

HELD_S: Final = 0.05
"""Reads are looked at when the oldest is as old as this."""
MUCH_HELD: Final = 512
MOST_HELD: Final = 2048
"""Or when there are so many of them: as soon as there is time for it, and in any case. They take a
millisecond and four."""
LARGE_BYTES: Final = 8192
"""A read above this is looked at as it comes, with all before it: the log is to stay small."""


class ArrivalLog:
    """Of one process. It holds nothing where something waits for what is in a read: `may_hold`.

    `fail` is told of a fault of ours; what else is held is looked at all the same.
    """

    def __init__(self, *, may_hold: bool, fail: Callable[[BaseException], None]) -> None:
        self._may_hold = may_hold
        self._fail = fail
        self._looked_at = 0
        self._is_looking = False
        self._came_s = 0.0
        self.held: list[tuple[LoggedConnection, bytes, float]] | None = None
        """In order of arrival; None: each is looked at as it comes."""

    @property
    def reads(self) -> int:
        """So far."""
        return self._looked_at + len(self.held or ())

    def now(self) -> float:
        """When what is being looked at came, of `time.monotonic`; the time if nothing is."""
        return self._came_s if self._is_looking else monotonic()

    def begin(self) -> None:
        """Hold reads from now on."""
        if self.held is None and self._may_hold:
            self.held = []

    def end(self) -> None:
        """Look at all that is held, and hold no more."""
        self.look()
        self.held = None

    def is_due(self, now: float, *, has_time: bool) -> bool:
        """Whether to look now, where nothing is to be sent in the next moment (`has_time`)."""
        held = self.held
        if not held:
            return False
        due = len(held) >= MUCH_HELD or now - held[0][2] >= HELD_S
        return (due and has_time) or len(held) >= MOST_HELD

    def look(self) -> None:
        """Hand over all that is held."""
        held = self.held
        if not held:
            return
        self.held = []
        self._looked_at += len(held)
        take = UpstreamConnection.data_received
        self._is_looking = True
        for connection, data, self._came_s in held:
            try:
                take(connection, data)
            except Exception as error:  # noqa: BLE001 - it would take all other reads with it
                self._fail(error)
        self._is_looking = False

    def saw(self) -> None:
        """A read was looked at as it came."""
        self._looked_at += 1


class LoggedConnection(UpstreamConnection):
    """Its reads go to the log first."""

    __slots__ = ("_log",)

    def __init__(self, log: ArrivalLog, pool: UpstreamPool, address: Address) -> None:
        super().__init__(pool, address)
        self._log = log

    def data_received(self, data: bytes) -> None:
        """Log a read, or have it looked at as it comes."""
        held = self._log.held
        if held is None:
            self._log.saw()
            super().data_received(data)
            return
        held.append((self, data, monotonic()))
        if len(data) > LARGE_BYTES:
            self._log.look()

    def connection_lost(self, exc: Exception | None) -> None:
        """See to it that what came before is looked at before."""
        self._log.look()
        super().connection_lost(exc)
