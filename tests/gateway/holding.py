"""A core that holds what a test says, whatever room there is, and lets go when the test says so."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import Arrived, Effect, Event, Left, Reject
from headrace.core.model import Request
from headrace.core.settings import DispatcherSettings


class HoldingCore:
    """Holds what arrives while `holds` is true, until something `on` an event lets it go. All
    else is done by a `Dispatcher` behind it: a compiled one has no subclasses.

    `seen` has every request that arrived, `left` the ids of those whose clients went away.
    """

    def __init__(self, settings: DispatcherSettings, rng: random.Random) -> None:
        self._core = Dispatcher(settings, rng)
        self.holds = False
        self.on: dict[type[Event], Callable[[float], list[Effect]]] = {}
        self.seen: list[Request] = []
        self.left: list[str] = []
        self.waiting: dict[str, Arrived] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def handle(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Arrived):
            self.seen.append(event.request)
            if self.holds:
                self.waiting[event.request.id] = event
                self._tally(event.request.model, 1)
                return self._after(event, [], now)
        if isinstance(event, Left) and event.request_id in self.waiting:
            self.left.append(event.request_id)
            self._let_go(event.request_id)
            return []
        effects = self._core.handle(event, now)
        return self._after(event, effects, now)

    def _after(self, event: Event, effects: list[Effect], now: float) -> list[Effect]:
        more = self.on.get(type(event))
        return effects if more is None else effects + more(now)

    def release(self, now: float) -> list[Effect]:
        """Dispatch all that is held."""
        effects: list[Effect] = []
        for request_id in tuple(self.waiting):
            effects += self._core.handle(self._let_go(request_id), now)
        return effects

    def refuse(
        self, status: int, reason: str, retry_after_s: float | None = None, *, most: int = 1000
    ) -> list[Effect]:
        """Reject what is held, the longest first."""
        rejects: list[Effect] = []
        for request_id in tuple(self.waiting)[: max(0, most)]:
            self._let_go(request_id)
            rejects.append(Reject(request_id, status, reason, "too late", retry_after_s))
        return rejects

    def _let_go(self, request_id: str) -> Arrived:
        event = self.waiting.pop(request_id)
        self._tally(event.request.model, -1)
        return event

    def _tally(self, model: str, change: int) -> None:
        self.held[model] = self.held.get(model, 0) + change
