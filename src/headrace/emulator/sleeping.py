"""vLLM's sleep mode, for engines that were started with it, as 0.32.0 has it.

`POST /sleep`, `POST /wake_up`, `GET /is_sleeping`, and what of `/collective_rpc` goes with them:

    sleep     running requests are aborted, the KV cache is forgotten; those that come are taken in
              and wait until the engine is awake. Only `mode=abort` is emulated. A wake that is
              under way gives nothing back any more
    wake_up   memory comes back by its tags, weights after `wake_s`; awake when none is missing
    level 0   pauses and gives nothing back

Without it these paths are not there (404), as without VLLM_SERVER_DEV_MODE=1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from urllib.parse import parse_qs

import msgspec

from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.ports import HttpRequest
from headrace.emulator.completion import JSON
from headrace.emulator.refusals import Refused

SLEEP, WAKE, STATE, RPC = b"/sleep", b"/wake_up", b"/is_sleeping", b"/collective_rpc"
POSTED = frozenset((SLEEP, WAKE, RPC))
PATHS = POSTED | {STATE}
WEIGHTS, KV_CACHE = "weights", "kv_cache"
_LEVELS = ("0", "1", "2")
AWAKE = {"awake": 1.0, "weights_offloaded": 0.0, "discard_all": 0.0}
"""The values of `vllm:engine_sleep_state`, which every engine shows."""


class SleepMode:
    """Whether one engine sleeps, and who asks it to.

    Args:
        wake_s: How long weights take to come back.
        fell_asleep: Called when it begins to sleep; True if its memory is given back too.
        awoke: Called when it is awake again.
    """

    def __init__(
        self, wake_s: float, *, fell_asleep: Callable[[bool], None], awoke: Callable[[], None]
    ) -> None:
        self.level: int | None = None
        """None while it is awake."""
        self._wake_s = wake_s
        self._fell_asleep = fell_asleep
        self._awoke = awoke
        self._missing: set[str] = set()
        self._times_slept = 0

    @property
    def state(self) -> dict[str, float]:
        """The values of `vllm:engine_sleep_state`."""
        return {
            "awake": float(self.level is None),
            "weights_offloaded": float(self.level == 1),
            "discard_all": float(self.level == 2),
        }

    def handle(self, request: HttpRequest, connection: ClientConnection) -> Answer | None:
        """Answer a request for one of `PATHS`."""
        asked = parse_qs(request.target.partition(b"?")[2].decode("latin-1"))
        if request.path == STATE:
            _respond(connection, {"is_sleeping": self.level is not None})
        elif request.path == SLEEP:
            self._sleep(asked, connection)
        elif request.path == WAKE:
            return self._wake(asked.get("tags"), connection)
        else:
            _respond(connection, {"results": [None]})
        return None

    def _sleep(self, asked: dict[str, list[str]], connection: ClientConnection) -> None:
        level, mode = asked.get("level", ["1"])[0], asked.get("mode", ["abort"])[0]
        if level not in _LEVELS or mode != "abort":
            problem = f"level={level}, mode={mode}: give level 0, 1 or 2, and mode abort"
            connection.respond(400, [JSON], Refused(problem, param=None, kind="Bad Request").body())
            return
        self.level = int(level)
        self._times_slept += 1
        if self.level:
            self._missing = {WEIGHTS, KV_CACHE}
        self._fell_asleep(bool(self.level))
        _respond(connection, {"status": "sleeping", "level": self.level})

    def _wake(self, tags: list[str] | None, connection: ClientConnection) -> Answer | None:
        wanted = self._missing if tags is None else self._missing.intersection(tags)
        wait_s = self._wake_s if WEIGHTS in wanted else 0.0
        times_slept = self._times_slept

        def answer() -> None:
            if times_slept == self._times_slept:  # it has not been put to sleep again meanwhile
                self._return(set(wanted))
            status = "awake" if self.level is None else "sleeping"
            _respond(connection, {"status": status, "tags": tags})

        return Answer(wait_s, answer)

    def _return(self, tags: Iterable[str]) -> None:
        self._missing.difference_update(tags)
        if self.level is not None and not self._missing:
            self.level = None
            self._awoke()


class Answer:
    """An answer that is due later. The client connection's `Exchange`."""

    def __init__(self, after_s: float, send: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, send)

    def client_gone(self) -> None:
        """Nobody waits for it any more."""
        self._timer.cancel()

    def client_slow(self) -> None:
        """It is short."""

    def client_ready(self) -> None:
        """It is short."""


def _respond(connection: ClientConnection, value: object) -> None:
    connection.respond(200, [JSON], msgspec.json.encode(value))
