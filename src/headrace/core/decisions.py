"""Why a request went where it went: a bounded log of inputs, explained on demand.

The hot path stores what it already has; words and breakdowns are made only when asked for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import nsmallest

from headrace.core.attempts import Attempt
from headrace.core.candidates import Candidate, CostTerm, Policy, Row
from headrace.core.events import Ended
from headrace.core.model import Request
from headrace.core.reasons import reason_for

MOST_CANDIDATES = 8
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


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything known about one request's way; plain data, ready for JSON.

    `model` is what the client asked for. `rejected` is the error's message if Headrace answered
    with one. `reason` is the last attempt's reason, or why there was none, in one line.
    """

    request_id: str
    client_id: str
    model: str
    arrived_s: float
    prompt_tokens: int
    attempts: tuple[ExplainedAttempt, ...]
    rejected: str
    reason: str


class AttemptRecord:
    """What is stored of one dispatch; who ends the attempt fills in what came of it."""

    __slots__ = (
        "at_s",
        "attempt",
        "cached_tokens",
        "considered",
        "detail",
        "duration_s",
        "input_tokens",
        "latency_source",
        "model",
        "outcome",
        "output_tokens",
        "policy",
        "policy_name",
        "pool",
        "rows",
        "status",
        "tpot_s",
        "ttft_s",
    )

    def __init__(
        self, attempt: Attempt, model: str, policy_name: str, policy: Policy, rows: list[Row]
    ) -> None:
        pool = attempt.replica.pool
        self.attempt = attempt.id
        self.at_s = attempt.began_s
        self.pool = pool.spec.name
        self.model = model
        self.policy_name = policy_name
        self.policy = policy
        self.latency_source = pool.latency.source
        self.considered = len(rows)
        self.rows = rows if len(rows) <= MOST_CANDIDATES else nsmallest(MOST_CANDIDATES, rows)
        self.outcome = ""
        self.status: int | None = None
        self.detail = ""
        self.ttft_s: float | None = None
        self.tpot_s: float | None = None
        self.duration_s: float | None = None
        self.input_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.output_tokens = 0

    def note_end(self, ended: Ended, now: float) -> None:
        """Take note of what came of the attempt."""
        self.outcome = ended.outcome.value
        self.status = ended.status
        self.detail = ended.detail
        self.duration_s = now - self.at_s
        self.output_tokens = ended.output_tokens
        if ended.usage is not None:
            self.input_tokens = ended.usage.input_tokens
            self.cached_tokens = ended.usage.cached_tokens
            self.output_tokens = ended.usage.output_tokens


class RequestRecord:
    """What is stored of one request."""

    __slots__ = ("arrived_s", "attempts", "client_id", "id", "model", "rejected")

    def __init__(self, request: Request, now: float) -> None:
        self.id = request.id
        self.client_id = request.client_id
        self.model = request.model
        self.arrived_s = now
        self.attempts: list[AttemptRecord] = []
        self.rejected = ""


class Decisions:
    """The bounded decision log; the oldest request leaves first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._records: dict[str, RequestRecord] = {}
        self._order: deque[RequestRecord] = deque()
        self._by_client_id: dict[str, RequestRecord] = {}

    def __len__(self) -> int:
        return len(self._order)

    def open(self, request: Request, now: float) -> RequestRecord:
        """Begin the record of a request."""
        record = RequestRecord(request, now)
        self._records[record.id] = record
        self._order.append(record)
        if record.client_id:
            self._by_client_id[record.client_id] = record
        if len(self._order) > self._capacity:
            self._forget(self._order.popleft())
        return record

    def resize(self, capacity: int) -> None:
        """Keep at most this many requests from now on."""
        self._capacity = capacity
        while len(self._order) > capacity:
            self._forget(self._order.popleft())

    def explain(self, request_id: str) -> Explanation | None:
        """Explain the request with this id: Headrace's own, or else the latest client id."""
        record = self._records.get(request_id) or self._by_client_id.get(request_id)
        return None if record is None else _explain(record)

    def explain_last(self) -> Explanation | None:
        """Explain the request that came last."""
        return _explain(self._order[-1]) if self._order else None

    def _forget(self, record: RequestRecord) -> None:
        # A later request may have come under the same id.
        if self._records.get(record.id) is record:
            del self._records[record.id]
        if self._by_client_id.get(record.client_id) is record:
            del self._by_client_id[record.client_id]


def _explain(record: RequestRecord) -> Explanation:
    attempts = tuple(_explain_attempt(attempt) for attempt in record.attempts)
    first = attempts[0].candidates[0] if attempts else None
    return Explanation(
        request_id=record.id,
        client_id=record.client_id,
        model=record.model,
        arrived_s=record.arrived_s,
        prompt_tokens=first.hit_tokens + first.uncached_tokens if first else 0,
        attempts=attempts,
        rejected=record.rejected,
        reason=attempts[-1].reason if attempts else record.rejected,
    )


def _explain_attempt(record: AttemptRecord) -> ExplainedAttempt:
    # Sorted as for the pick, so that the chosen one comes first.
    candidates = [Candidate(*row) for row in sorted(record.rows)]
    terms = record.policy.terms
    return ExplainedAttempt(
        attempt=record.attempt,
        at_s=record.at_s,
        pool=record.pool,
        replica=candidates[0].replica,
        model=record.model,
        policy=record.policy_name,
        latency_source=record.latency_source,
        cost_unit=terms(candidates[0])[0].unit,
        candidates=tuple(
            _explain_candidate(candidate, terms(candidate), chosen=position == 0)
            for position, candidate in enumerate(candidates)
        ),
        considered=record.considered,
        outcome=record.outcome,
        status=record.status,
        detail=record.detail,
        ttft_s=record.ttft_s,
        tpot_s=record.tpot_s,
        duration_s=record.duration_s,
        input_tokens=record.input_tokens,
        cached_tokens=record.cached_tokens,
        output_tokens=record.output_tokens,
        reason=reason_for(candidates, terms),
    )


def _explain_candidate(
    candidate: Candidate, terms: tuple[CostTerm, ...], *, chosen: bool
) -> ExplainedCandidate:
    capacity = candidate.kv_capacity_tokens
    return ExplainedCandidate(
        replica=candidate.replica,
        chosen=chosen,
        cost=candidate.cost,
        in_flight=candidate.in_flight,
        queue_s=candidate.queue_s,
        backlog_tokens=candidate.backlog_tokens,
        hit_tokens=candidate.hit_tokens,
        uncached_tokens=candidate.uncached_tokens,
        kv_space_tokens=None if capacity is None else int(capacity) - candidate.context_tokens,
        ttft_s=candidate.ttft_s,
        tpot_s=candidate.tpot_s,
        terms=terms,
    )
