"""How many retries an outage, or one request that nobody can answer, may cause."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Final

from headrace.core.events import Ended

MOST_ERROR_ANSWERS: Final = 2
"""Replicas that may answer one request with an error of their own. A second one that says the same
shows that the request is at fault, whatever the status claims."""

FADE_S: Final = 0.05
"""How old the sums may be: an exponential for each request would buy nothing."""

FULL = (429, 503)
"""Statuses by which an engine, or a proxy before it, says that it is full and not ill."""
_FAILED_BEHIND: Final = 424
"""TGI's for a model that failed behind its router."""


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
    """Weighs recent retries against recent requests.

    Retries after an answer of the engine are counted apart from those after none: requests that
    engines answer with 500 again and again must not take the retries away from those whose
    connection broke.
    """

    __slots__ = ("_requests", "_retries_answered", "_retries_lost", "_seen_s", "settings")

    def __init__(self, settings: RetrySettings) -> None:
        self.settings = settings
        self._requests = 0.0
        self._retries_answered = 0.0
        self._retries_lost = 0.0
        self._seen_s = 0.0

    def note_request(self, now: float) -> None:
        """A request arrived."""
        self._fade(now)
        self._requests += 1.0

    def take(self, now: float, *, answered: bool) -> bool:
        """Whether one more retry is within the budget of its kind; if so it is counted.

        `answered` tells whether the engine had answered the failed attempt.
        """
        self._fade(now)
        settings = self.settings
        spent = self._retries_answered if answered else self._retries_lost
        if spent + 1.0 > settings.budget_floor + settings.budget_ratio * self._requests:
            return False
        if answered:
            self._retries_answered += 1.0
        else:
            self._retries_lost += 1.0
        return True

    def _fade(self, now: float) -> None:
        elapsed_s = now - self._seen_s
        if elapsed_s > FADE_S:
            kept = exp(-elapsed_s / self.settings.budget_window_s)
            self._requests *= kept
            self._retries_answered *= kept
            self._retries_lost *= kept
            self._seen_s = now


def is_error_answer(failure: Ended) -> bool:
    """Whether the engine answered with an error of its own (5xx), not merely that it is full.

    A 4xx that may be tried again is not one: it tells of the gateway's key or of a replica that
    lacks the model, neither of which is the client's business.
    """
    status = failure.status
    return status is not None and status >= 500 and status not in FULL


def is_misplaced(failure: Ended) -> bool:
    """Whether the engine answered that nothing of ours is for it: not with this key, not for this
    model, not at this address. It says so of any request, and its siblings are set up alike.
    """
    status = failure.status
    return status is not None and status < 500 and status not in FULL and status != _FAILED_BEHIND
