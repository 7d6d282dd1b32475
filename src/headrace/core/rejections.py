"""Errors for requests that cannot be dispatched: status, code, and words that help.

`model` is the one that a request was held for, or would have been.
"""

from __future__ import annotations

from typing import Final

from headrace.core.events import Ended, Reject, RejectReason
from headrace.core.model import Outcome, Request
from headrace.core.retries import FULL, is_error_answer

MOST_RETRY_AFTER_S: Final = 60.0
"""Nobody is sent away for longer: by then the load is another."""


def unknown_model(request: Request, known: str) -> Reject:
    """404: the name stands for nothing here; `known` lists the names that do."""
    if request.model:
        message = f"model {request.model!r} does not exist here; known models: {known}"
    else:
        message = f"the request names no model and there is not exactly one; known models: {known}"
    return Reject(request.id, 404, RejectReason.UNKNOWN_MODEL, message)


def none_ready(request: Request, retry_after_s: float) -> Reject:
    """503: the model is known, but no replica of it can take the request."""
    if request.replica:
        message = f"replica {request.replica!r}, the only one that can answer this, is not ready"
    else:
        message = f"no replica of model {request.model!r} is ready"
    message += f"; retry in {retry_after_s:g} s"
    return Reject(request.id, 503, RejectReason.NO_REPLICA, message, retry_after_s)


def too_long(request: Request, model: str, predicted_s: float, most_s: float) -> Reject:
    """429: the wait would be longer than the request's tier tolerates."""
    message = (
        f"the first token would take {predicted_s:.3g} s, over the {most_s:.3g} s that tier "
        f"{request.tier or 'default'!r} tolerates (tiers.shed_after_factor); try again later"
    )
    retry_after_s = min(max(predicted_s - most_s, 1.0), MOST_RETRY_AFTER_S)
    return Reject(request.id, 429, RejectReason.OVERLOADED, message, retry_after_s, model=model)


def queue_full(request: Request, model: str, retry_after_s: float) -> Reject:
    """429: as many requests are held as may be."""
    message = (
        "as many requests wait here as may, of its priority or above (admission.max_held); "
        "try again later"
    )
    retry_after_s = min(max(1.0, retry_after_s), MOST_RETRY_AFTER_S)
    return Reject(request.id, 429, RejectReason.OVERLOADED, message, retry_after_s, model=model)


def held_too_long(
    request: Request, model: str, waited_s: float, *, absent: bool, retry_after_s: float
) -> Reject:
    """503: no replica had room in time; `absent` says that none is ready."""
    if absent:
        limit = "the pool's wait_for_replica, or tiers.ttl where that is longer"
        message = f"no replica of model {model!r} was ready within {waited_s:.0f} s ({limit})"
    else:
        message = f"no replica had room for the request within {waited_s:.0f} s (tiers.ttl)"
    retry_after_s = min(max(1.0, retry_after_s), MOST_RETRY_AFTER_S)
    return Reject(request.id, 503, RejectReason.HELD_TOO_LONG, message, retry_after_s, model=model)


def gave_up(
    request: Request, failure: Ended, replica: str, why: str, *, retry_after_s: float
) -> Reject:
    """The last failure decides: 504 if it was a timeout, 503 if the engine is busy, else 502.

    An engine's own error is to be passed on in place of the 502.
    """
    message = f"{_what_failed(failure, replica)}; {why}"
    if failure.outcome is Outcome.TIMED_OUT:
        return Reject(request.id, 504, RejectReason.TIMED_OUT, message)
    if failure.status in FULL:
        return Reject(request.id, 503, RejectReason.OVERLOADED, message, retry_after_s)
    passes = is_error_answer(failure)
    return Reject(request.id, 502, RejectReason.RETRIES_EXHAUSTED, message, passes_answer=passes)


def soonest_s(ends: list[Ended], busy_s: float) -> float:
    """When the first of the replicas that are full may have room: as it says itself, else
    `busy_s`.
    """
    told = (end.retry_after_s for end in ends if end.status in FULL)
    waits_s = (busy_s if each is None else max(busy_s, each) for each in told)
    return min(min(waits_s, default=busy_s), MOST_RETRY_AFTER_S)


def _what_failed(failure: Ended, replica: str) -> str:
    if failure.status is not None:
        return f"replica {replica!r} answered HTTP {failure.status}"
    return f"replica {replica!r} failed: {failure.detail or failure.outcome.value}"
