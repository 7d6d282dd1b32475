"""What a routing policy sees and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from headrace.core.model import Replica
from headrace.core.prefix_index import blocks_covered


class Ask:
    """One request in the words of routing: sizes in tokens and where its prefix lies.

    `output_tokens` is how much it is expected to decode. `hits` are (marks of the prompt held, bit
    mask of the replicas that hold so many), deepest first; others hold nothing.
    """

    __slots__ = ("hits", "marks", "output_tokens", "prompt_tokens", "tokens_per_block")

    def __init__(
        self,
        prompt_tokens: int,
        tokens_per_block: float,
        output_tokens: float,
        marks: tuple[int, ...],
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.tokens_per_block = tokens_per_block
        self.output_tokens = output_tokens
        self.marks = marks
        self.hits: list[tuple[int, int]] = []

    def hit_marks(self, index: int) -> int:
        """Marks of the prompt that the replica with this index holds."""
        for marks, replicas in self.hits:
            if replicas >> index & 1:
                return marks
        return 0

    def hit_tokens(self, index: int) -> int:
        """Tokens behind these marks; an engine prefills at least the last token anew."""
        tokens = int(blocks_covered(self.hit_marks(index)) * self.tokens_per_block)
        return min(tokens, max(0, self.prompt_tokens - 1))


Prediction: TypeAlias = tuple[
    int, int, int, int, float | None, float | None, float | None, float | None, float | None, float
]
"""`Candidate` without its first three fields."""

Row: TypeAlias = tuple[
    float,
    int,
    str,
    int,
    int,
    int,
    int,
    float | None,
    float | None,
    float | None,
    float | None,
    float | None,
    float,
]
"""A `Candidate` as the hot path makes it. A plain tuple costs a quarter, and the garbage collector
need not look at it again while it lies in the decision log."""


class Candidate(NamedTuple):
    """One replica as a policy saw and judged it; the smallest tuple is the pick.

    The order of the first three fields is the order of tie-breaks: `cost` (in the unit of the
    policy), requests in flight, name. Seconds are None while the pool has no latency profile;
    `kv_capacity_tokens` is None where the engine does not tell.
    """

    cost: float
    in_flight: int
    replica: str
    hit_tokens: int
    uncached_tokens: int
    backlog_tokens: int
    context_tokens: int
    kv_capacity_tokens: float | None
    queue_s: float | None
    slot_wait_s: float | None
    prefill_s: float | None
    tpot_s: float | None
    output_tokens: float

    @property
    def ttft_s(self) -> float | None:
        """Predicted seconds until the first token."""
        if self.queue_s is None or self.slot_wait_s is None or self.prefill_s is None:
            return None
        return self.queue_s + self.slot_wait_s + self.prefill_s


@dataclass(frozen=True, slots=True)
class CostTerm:
    """One part of a candidate's cost. `unit` is "s" (seconds), "tokens" or "turns"."""

    name: str
    value: float
    unit: str


class Policy(Protocol):
    """A rule that prices replicas. The lowest cost wins."""

    needs_all: bool
    """Whether every replica must be priced; else a shortlist may do in a large fleet."""

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Row]:
        """Price each replica for this request; `replicas` come in the order of their names."""
        ...

    def chosen(self, replica: str) -> None:
        """Take note of the pick."""
        ...

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """Break a cost down; the terms add up to it."""
        ...


def predict(ask: Ask, replica: Replica, now: float) -> Prediction:
    """What the request meets on a replica and how long the phases take there, in seconds."""
    hit_tokens = ask.hit_tokens(replica.index) if ask.hits else 0
    uncached = ask.prompt_tokens - hit_tokens
    latency, report = replica.latency, replica.report
    profile = latency.pool.profile
    queue_s = slot_wait_s = prefill_s = tpot_s = None
    if profile is not None:
        if now >= latency.stale_s:
            latency.refresh(now)
        step_s = profile.per_step_s
        token_s = profile.per_prefill_token_s
        pair_s = profile.per_attended_token_s
        queue_s = slot_wait_s = 0.0
        if replica.prefilling:
            queue_s = latency.prefill_factor * (
                step_s * replica.prefilling
                + token_s * replica.backlog_tokens
                + pair_s * replica.backlog_pairs
            )
            # The head of the queue is in work already: nobody knows how far, but not beyond its
            # own share.
            queue_s -= min(now - replica.backlog_since_s, queue_s / replica.prefilling)
        prefill_s = latency.prefill_factor * (
            step_s + uncached * (token_s + pair_s * (hit_tokens + uncached / 2))
        )
        tpot_s = latency.decode_factor * (
            step_s
            + profile.per_sequence_s * (replica.in_flight + 1)
            + profile.per_kv_token_s * (replica.context_tokens + ask.prompt_tokens)
        )
        slots = report.max_sequences
        if slots and replica.in_flight >= slots:
            # All slots are taken, and each is freed once per answer.
            ahead = replica.in_flight - slots + 1
            slot_wait_s = ahead * replica.pool.output_tokens_mean * tpot_s / slots
        if now < replica.busy_until_s:
            slot_wait_s += replica.busy_until_s - now
    return (
        hit_tokens,
        uncached,
        replica.backlog_tokens,
        replica.context_tokens,
        report.kv_capacity_tokens,
        queue_s,
        slot_wait_s,
        prefill_s,
        tpot_s,
        ask.output_tokens,
    )
