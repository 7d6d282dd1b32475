"""Engines on virtual time behind a dispatcher: first come, first served prefills, then decoding.

As simple as can be while queues form and speeds change; what a real engine does is modelled
elsewhere.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import (
    Arrived,
    ConfigChanged,
    Dispatch,
    Ended,
    Event,
    FirstToken,
    ReplicaChanged,
)
from headrace.core.latency import LatencyProfile
from headrace.core.model import Endpoint, Outcome, Request, Usage
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import AT_ONCE

Slowness = Callable[[str, float], float]
"""How many times slower a replica is at a time than its profile says."""


@dataclass
class Engine:
    """One replica: prompts that wait for their prefill, and how many streams decode."""

    waiting: deque[tuple[int, Request]] = field(default_factory=deque[tuple[int, Request]])
    busy: bool = False
    decoding: int = 0


class VirtualFleet:
    """Runs requests that arrive at random through the dispatcher and these engines."""

    def __init__(
        self,
        names: list[str],
        true: LatencyProfile,
        believed: LatencyProfile | None,
        slow: Slowness,
    ) -> None:
        self.now = 0.0
        self.dispatched: list[tuple[float, str]] = []
        """When, and to which replica."""
        self.dispatcher = Dispatcher(AT_ONCE, random.Random(7))
        self._true = true
        self._slow = slow
        self._rng = random.Random(11)
        self._engines = {name: Engine() for name in names}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0
        self._tell(ConfigChanged((PoolSpec("pool", "model", profile=believed),), ()))
        for name in names:
            self._tell(ReplicaChanged(name, "pool", f"http://{name}", True))

    def run(self, until_s: float, requests_per_s: float, prompt_tokens: int) -> None:
        """Let requests with answers of 40 tokens arrive until a time, then let the rest end."""
        at_s, count = 0.0, 0
        while True:
            at_s += self._rng.expovariate(requests_per_s)
            if at_s > until_s:
                break
            count += 1
            request = Request(
                f"r{count}", "model", Endpoint.CHAT, True, prompt_tokens=prompt_tokens
            )
            self._at(at_s, lambda request=request: self._arrive(request))
        while self._agenda:
            self.now, _, action = heappop(self._agenda)
            action()

    def share(self, name: str, from_s: float, until_s: float) -> float:
        """The part of the traffic between two times that went to a replica."""
        there = [replica for at_s, replica in self.dispatched if from_s <= at_s < until_s]
        return there.count(name) / len(there)

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        self._turn += 1
        heappush(self._agenda, (at_s, self._turn, action))

    def _tell(self, event: Event) -> list[Dispatch]:
        effects = self.dispatcher.handle(event, self.now)
        return [effect for effect in effects if isinstance(effect, Dispatch)]

    def _arrive(self, request: Request) -> None:
        (dispatch,) = self._tell(Arrived(request))
        self.dispatched.append((self.now, dispatch.replica))
        self._engines[dispatch.replica].waiting.append((dispatch.attempt, request))
        self._next_prefill(dispatch.replica)

    def _next_prefill(self, name: str) -> None:
        engine = self._engines[name]
        if engine.busy or not engine.waiting:
            return
        attempt, request = engine.waiting.popleft()
        engine.busy = True
        prefill_s = self._true.prefill_s(request.prompt_tokens or 0) * self._slow(name, self.now)
        self._at(self.now + prefill_s, lambda: self._first_token(name, attempt, request))

    def _first_token(self, name: str, attempt: int, request: Request) -> None:
        engine = self._engines[name]
        engine.busy = False
        engine.decoding += 1
        self._tell(FirstToken(attempt))
        step_s = self._true.step_s(engine.decoding, 0) * self._slow(name, self.now)
        self._at(self.now + 39 * step_s, lambda: self._end(name, attempt, request))
        self._next_prefill(name)

    def _end(self, name: str, attempt: int, request: Request) -> None:
        self._engines[name].decoding -= 1
        usage = Usage(request.prompt_tokens or 0, 40)
        self._tell(Ended(attempt, Outcome.COMPLETED, usage, 40, 200))
