"""Why a request went where it went: a bounded log of inputs, explained on demand.

The hot path stores what it already has; words and breakdowns are made only when asked for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from headrace.core.attempts import Attempt
from headrace.core.candidates import RANK, Candidate
from headrace.core.cost_term import CostTerm
from headrace.core.flights import LANDED, Flight
from headrace.core.model import Outcome
from headrace.core.reasons import reason_for

MOST_CANDIDATES: Final = 8
"""Candidates kept per attempt: the cheapest."""


@dataclass(frozen=True, slots=True)
class ExplainedCandidate:
    """One replica as it was seen at the decision.

    `queue_s`, `ttft_s` and `tpot_s` are predictions in seconds, None while the pool has no latency
    profile yet. `kv_space_tokens` is the KV capacity less what our own requests held, None where
    the engine does not tell its capacity.
    """

    replica: str
    chosen: bool
    cost: float
    in_flight: int
    queue_s: float | None
    backlog_tokens: int
    hit_tokens: int
    uncached_tokens: int
    kv_space_tokens: int | None
    ttft_s: float | None
    tpot_s: float | None
    terms: tuple[CostTerm, ...]


@dataclass(frozen=True, slots=True)
class ExplainedAttempt:
    """One dispatch: the candidates, the chosen one first, and what came of it.

    `considered` counts the candidates that were priced; at most `MOST_CANDIDATES` are kept.
    `outcome` is the value of an `Outcome`, "expired", or "" while in flight. `ttft_s`, `tpot_s` and
    `duration_s` are measured from the dispatch on; None where there was nothing to measure.
    `input_tokens` and the `cached_tokens` among them are the engine's count, None without one.
    `held_s` is how long the request was held again before it, after the attempt before had failed.
    """

    attempt: int
    at_s: float
    pool: str
    replica: str
    model: str
    policy: str
    latency_source: str
    cost_unit: str
    candidates: tuple[ExplainedCandidate, ...]
    considered: int
    outcome: str
    status: int | None
    detail: str
    ttft_s: float | None
    tpot_s: float | None
    duration_s: float | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int
    reason: str
    held_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything known about one request's way; plain data, ready for JSON.

    `model` is what the client asked for. `rejected` is the error's message if Headrace answered
    with one. `reason` is the last attempt's reason, or why there was none, in one line.
    `held_s` is how long it waited at the gateway for a replica with room before it was sent for the
    first time, or refused, or left by its client; None while it still waits. `held_again_s` is how
    long it waited after its last attempt, which failed; None while it does. `tier` and the targets
    are what it was promised.
    """

    request_id: str
    client_id: str
    model: str
    arrived_s: float
    prompt_tokens: int
    attempts: tuple[ExplainedAttempt, ...]
    rejected: str
    reason: str
    held_s: float | None
    tier: str
    ttft_target_s: float
    tpot_target_s: float
    held_again_s: float | None = 0.0


class Decisions:
    """The bounded decision log; the oldest request leaves first."""

    def __init__(self, capacity: int) -> None:
        self._flights: deque[Flight] = deque(maxlen=capacity)
        self.note = self._flights.append
        """Take a request in."""

    def __len__(self) -> int:
        return len(self._flights)

    def resize(self, capacity: int) -> None:
        """Keep at most this many requests from now on."""
        self._flights = deque(self._flights, maxlen=capacity)
        self.note = self._flights.append

    def explain(self, request_id: str) -> Explanation | None:
        """Explain the request with this id: Headrace's own, or else the latest client id."""
        # A search through the whole log is rare; keeping tables for it would cost each request.
        for flight in reversed(self._flights):
            if flight.id == request_id:
                return _explain(flight)
        for flight in reversed(self._flights):
            if request_id and flight.client_id == request_id:
                return _explain(flight)
        return None

    def explain_last(self) -> Explanation | None:
        """Explain the request that came last."""
        return _explain(self._flights[-1]) if self._flights else None


def _explain(flight: Flight) -> Explanation:
    attempts = tuple(
        replace(_explain_attempt(attempt), held_s=_held_between_s(before, attempt))
        for before, attempt in zip([None, *flight.attempts], flight.attempts, strict=False)
    )
    first = attempts[0].candidates[0] if attempts else None
    return Explanation(
        request_id=flight.id,
        client_id=flight.client_id,
        model=flight.model,
        arrived_s=flight.arrived_s,
        prompt_tokens=first.hit_tokens + first.uncached_tokens if first else 0,
        attempts=attempts,
        rejected=flight.rejected,
        reason=attempts[-1].reason if attempts else flight.rejected or _waited(flight),
        held_s=_held_s(flight),
        tier=flight.tier,
        ttft_target_s=flight.ttft_target_s,
        tpot_target_s=flight.tpot_target_s,
        held_again_s=_held_again_s(flight),
    )


def _held_between_s(before: Attempt | None, attempt: Attempt) -> float:
    """A retry goes out at once, so that what lies between two attempts is a hold."""
    return 0.0 if before is None or before.ended is None else attempt.began_s - before.ended_s


def _held_again_s(flight: Flight) -> float | None:
    last = flight.attempts[-1] if flight.attempts else None
    if last is None or last.ended is None:
        return 0.0
    if flight.released_s is not None:
        return flight.released_s - last.ended_s
    return 0.0 if flight.request is LANDED else None


def _held_s(flight: Flight) -> float | None:
    released_s = flight.attempts[0].began_s if flight.attempts else flight.released_s
    return None if released_s is None else released_s - flight.arrived_s


def _waited(flight: Flight) -> str:
    if flight.released_s is None:
        return "held at the gateway: no replica has taken it yet"
    return "its client went away while it was held at the gateway"


def _explain_attempt(attempt: Attempt) -> ExplainedAttempt:
    # Sorted as for the pick, so that the chosen one comes first.
    candidates = sorted(attempt.candidates, key=RANK)
    terms = attempt.policy.terms
    ended = attempt.ended
    usage = None if ended is None else ended.usage
    first_token_s = attempt.first_token_s if attempt.is_timed else None
    return ExplainedAttempt(
        attempt=attempt.id,
        at_s=attempt.began_s,
        pool=attempt.replica.pool.spec.name,
        replica=candidates[0].replica,
        model=attempt.model,
        policy=attempt.policy_name,
        latency_source=attempt.latency_source,
        cost_unit=terms(candidates[0])[0].unit,
        candidates=tuple(
            _explain_candidate(candidate, terms(candidate), chosen=position == 0)
            for position, candidate in enumerate(candidates)
        ),
        considered=attempt.considered,
        outcome="expired" if attempt.expired else "" if ended is None else ended.outcome.value,
        status=None if ended is None else ended.status,
        detail="" if ended is None else ended.detail,
        ttft_s=None if first_token_s is None else first_token_s - attempt.began_s,
        tpot_s=_tpot_s(attempt),
        duration_s=None if ended is None else attempt.ended_s - attempt.began_s,
        input_tokens=None if usage is None else usage.input_tokens,
        cached_tokens=None if usage is None else usage.cached_tokens,
        output_tokens=0 if ended is None else ended.counted_output_tokens,
        reason=reason_for(candidates, terms),
    )


def _tpot_s(attempt: Attempt) -> float | None:
    """Of a timed answer that came whole."""
    ended = attempt.ended
    if ended is None or ended.outcome is not Outcome.COMPLETED or not attempt.is_timed:
        return None
    return attempt.tpot_s(ended.counted_output_tokens, attempt.ended_s)


def _explain_candidate(
    candidate: Candidate, terms: tuple[CostTerm, ...], *, chosen: bool
) -> ExplainedCandidate:
    capacity, in_seconds = candidate.kv_capacity_tokens, candidate.in_seconds
    return ExplainedCandidate(
        replica=candidate.replica,
        chosen=chosen,
        cost=candidate.cost,
        in_flight=candidate.in_flight,
        queue_s=candidate.queue_s if in_seconds else None,
        backlog_tokens=candidate.backlog_tokens,
        hit_tokens=candidate.hit_tokens,
        uncached_tokens=candidate.uncached_tokens,
        kv_space_tokens=None if capacity is None else int(capacity) - candidate.context_tokens,
        ttft_s=candidate.ttft_s if in_seconds else None,
        tpot_s=candidate.tpot_s if in_seconds else None,
        terms=terms,
    )
