"""Policies that break the information rule on purpose: they see what no gateway can.

    true_greedy    sends at once to where the first token truly comes first
    true_seconds   `seconds`, holding included, with the truth in place of what a gateway believes:
                   what is cached, the queue, KV room, streams, coefficients, the answer's length

The truth is had by playing a copy of the engine until the request's first token, as if nobody came
after it. None of them knows who will come: they tell what a better view of the present is worth.
They are for comparison only and no policy of the product.
"""

# ruff: noqa: SLF001 - they look where nobody else may
from __future__ import annotations

from typing import NamedTuple
from unittest import mock

from benchmarks.routing_truth import Truth
from headrace.core.candidates import Ask, Candidate, Prediction, Scope, candidate_at
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica
from headrace.core.policies import seconds
from headrace.core.policies.seconds import Seconds


class _Met(NamedTuple):
    """What the request truly meets on a replica."""

    queue_s: float
    prefill_s: float
    tpot_s: float
    cached_tokens: int


def _met(truth: Truth, replica: Replica, now: float) -> _Met:
    request, engine = truth.request, truth.engine(replica.name)
    ttft_s, cached = truth.first_token(replica.name, now)
    latency = engine.spec.latency
    prefill_s = latency.prefill_s(request.input_tokens - cached, cached)
    jobs = [each.job for each in engine._sequences.values()]
    tokens = sum(job.prompt_tokens + engine.decoded_tokens(job, now) for job in jobs)
    tpot_s = latency.step_s(len(jobs) + 1, tokens + request.input_tokens)
    # Others in its step may be done with less: what is left is the queue, or less than none.
    return _Met(max(0.0, ttft_s - prefill_s), min(prefill_s, ttft_s), tpot_s, cached)


class TrueGreedy:
    """Own seconds until the first token."""

    scope = Scope.ALL
    holds = False

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Play a copy of each replica."""
        rows: list[Candidate] = []
        for replica in replicas:
            met = _met(self._truth, replica, now)
            cost_s = met.queue_s + met.prefill_s
            rows.append(candidate_at(cost_s, replica, _prediction(ask, replica, met)))
        return rows

    def chosen(self, replica: str) -> None:
        """Nothing to remember."""

    def left(self, replica: str) -> None:
        """Nothing to forget."""

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """One figure."""
        return (CostTerm("true seconds", candidate.cost, "s"),)


class TrueSeconds(Seconds):
    """The policy `seconds`, told the truth."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """The rule's own price, with another view of each replica."""
        ask.output_tokens = float(self._truth.request.output_tokens)
        with mock.patch.object(seconds, "predict_at", self._predict_at):
            return super().price(ask, replicas, now)

    def _predict_at(self, ask: Ask, replica: Replica, _: int, now: float) -> Prediction:
        return _prediction(ask, replica, _met(self._truth, replica, now))


def _prediction(ask: Ask, replica: Replica, met: _Met) -> Prediction:
    """Without a KV capacity, since the true queue has the wait for KV blocks in it."""
    return (
        met.cached_tokens,
        ask.prompt_tokens - met.cached_tokens,
        replica.backlog_tokens,
        replica.context_tokens,
        None,
        met.queue_s,
        0.0,
        met.prefill_s,
        met.tpot_s,
        ask.output_tokens,
    )
