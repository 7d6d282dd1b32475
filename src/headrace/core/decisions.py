"""Why a request went where it went: a bounded log of inputs, explained on demand.

The hot path stores what it already has; words and breakdowns are made only when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CostTerm:
    """One part of a candidate's cost. `unit` is "s" (seconds), "tokens" or "turns"."""

    name: str
    value: float
    unit: str


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
    """One dispatch: the candidates (the chosen one first, then by cost) and what came of it.

    `outcome` is the value of an `Outcome`, "expired", or "" while in flight. `ttft_s` and `tpot_s`
    are measured from the dispatch on; None where there was nothing to measure.
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
