"""The request path: an event comes in, effects go out."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.core.decisions import Explanation
from headrace.core.events import Effect, Event
from headrace.core.model import Fleet, Rng


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often a failed attempt is tried again, nothing having reached the client."""

    max_attempts: int = 3
    """Attempts per request, the first included."""
    budget_ratio: float = 0.2
    """Retries per recent request, over all requests: bounds what an outage adds in load."""
    budget_floor: float = 10.0
    """Retries per `budget_window_s` that are always allowed."""
    budget_window_s: float = 10.0


@dataclass(frozen=True, slots=True)
class EjectionSettings:
    """When a failing replica is taken out, and for how long."""

    failures: int = 2
    """Connection-level failures in a row."""
    backoff_s: float = 1.0
    """Before the first probe; doubles with each failed one."""
    max_backoff_s: float = 60.0


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """What the request path may be tuned in."""

    retry: RetrySettings = field(default_factory=RetrySettings)
    ejection: EjectionSettings = field(default_factory=EjectionSettings)
    attempt_expiry_s: float = 7200.0
    """An attempt of which no end was heard for this long is forgotten."""
    decisions: int = 10_000
    """Requests kept in the decision log."""
    learn_from_streams: int = 50
    """Streams from which a pool without a profile learns one."""


class Decisions:
    """The bounded decision log."""

    def explain(self, request_id: str) -> Explanation | None:
        """Explain the request with this id: Headrace's own, or else the latest client id."""
        raise NotImplementedError


class Dispatcher:
    """Routes requests: `handle` takes what happened and returns what to do about it.

    `fleet` is the state that routing sees, for reading only; `decisions` explains past choices.
    The first event must be `ConfigChanged`; replicas come by `ReplicaChanged`.
    """

    fleet: Fleet
    decisions: Decisions

    def __init__(self, settings: DispatcherSettings, rng: Rng) -> None:
        raise NotImplementedError

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` (seconds, never going back) and return its effects.

        Events of unknown or finished attempts and of unknown replicas are no-ops.
        """
        raise NotImplementedError
