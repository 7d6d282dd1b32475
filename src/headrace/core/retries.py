"""How many retries an outage may add to the load."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often a failed attempt is tried again, nothing having reached the client."""

    max_attempts: int = 3
    """Attempts per request, the first included."""
    budget_ratio: float = 0.2
    """Retries per recent request, over all requests: bounds what an outage adds in load."""
    budget_floor: float = 10.0
    """Retries within `budget_window_s` that are always allowed."""
    budget_window_s: float = 10.0
    """What "recent" means: requests and retries are forgotten exponentially with this time."""


class RetryBudget:
    """Weighs recent retries against recent requests."""

    __slots__ = ("_requests", "_retries", "_seen_s", "settings")

    def __init__(self, settings: RetrySettings) -> None:
        self.settings = settings
        self._requests = 0.0
        self._retries = 0.0
        self._seen_s = 0.0

    def note_request(self, now: float) -> None:
        """A request arrived."""
        self._fade(now)
        self._requests += 1.0

    def take(self, now: float) -> bool:
        """Whether one more retry is within the budget; if so it is counted."""
        self._fade(now)
        settings = self.settings
        if self._retries + 1.0 > settings.budget_floor + settings.budget_ratio * self._requests:
            return False
        self._retries += 1.0
        return True

    def _fade(self, now: float) -> None:
        elapsed_s = now - self._seen_s
        if elapsed_s > 0.0:
            kept = exp(-elapsed_s / self.settings.budget_window_s)
            self._requests *= kept
            self._retries *= kept
            self._seen_s = now
