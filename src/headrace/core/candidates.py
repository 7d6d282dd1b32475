"""What a routing policy sees and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from heapq import nsmallest
from operator import attrgetter
from typing import Final, Protocol, TypeAlias

from headrace.core.cost_term import CostTerm
from headrace.core.kv_event_index import Index
from headrace.core.message import message
from headrace.core.model import FINE_BLOCKS, Replica
from headrace.core.prompt_marks import blocks_covered

DEFAULT_TTFT_S: Final = 2.0
DEFAULT_TPOT_S: Final = 0.05


class Ask:
    """One request in the words of routing: sizes in tokens and where its prefix lies.

    `output_tokens` is how much it is expected to decode. `hits` are (marks of the prompt held, bit
    mask of the replicas that hold so many), deepest first; others hold nothing. Of the prompt,
    `overhead_tokens` are the chat template's and not behind any mark; `fine_blocks` of its first
    blocks are each a mark. `ttft_target_s` and `tpot_target_s` are what its tier promises, or what
    it asks for itself. `index` is where the hits come from, None before they were looked up.
    It decodes `sequences` side by side, which attend to `attended_tokens` of prompt in sum.
    """

    __slots__ = (
        "attended_tokens",
        "fine_blocks",
        "hits",
        "index",
        "marks",
        "output_tokens",
        "overhead_tokens",
        "prompt_tokens",
        "sequences",
        "tokens_per_block",
        "tpot_target_s",
        "ttft_target_s",
    )

    def __init__(
        self,
        prompt_tokens: int,
        tokens_per_block: float,
        output_tokens: float,
        marks: tuple[int, ...],
        overhead_tokens: float = 0.0,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.tokens_per_block = tokens_per_block
        self.output_tokens = output_tokens
        self.marks = marks
        self.overhead_tokens = overhead_tokens
        self.fine_blocks = FINE_BLOCKS
        self.sequences = 1
        self.attended_tokens = prompt_tokens
        self.ttft_target_s = DEFAULT_TTFT_S
        self.tpot_target_s = DEFAULT_TPOT_S
        self.hits: list[tuple[int, int]] = []
        self.index: Index | None = None

    def tokens_in_use(self, index: int) -> float:
        """Tokens of the prompt that requests in flight on this replica hold already."""
        if self.index is None:
            return 0.0
        marks = self.index.marks_in_use(index, self.marks)
        return blocks_covered(marks, self.fine_blocks) * self.tokens_per_block

    def runs_with(self, replicas: list[Replica]) -> int:
        """Requests in flight on one replica, the one with the most, that share half this prompt."""
        index = self.index
        if index is None or not self.marks:
            return 0
        mark = self.marks[len(self.marks) // 2]
        return max([index.users(replica.index, mark) for replica in replicas])

    def shared_tokens(self, index: int) -> float:
        """Tokens that requests in flight there hold together, counted for each beyond the first."""
        if self.index is None:
            return 0.0
        return self.index.shared_blocks(index) * self.tokens_per_block

    def last_copies(self, index: int, tokens: int) -> float:
        """Tokens that the fleet has no more if this replica makes room for so many."""
        if self.index is None or not self.marks:
            return 0.0
        blocks = tokens / self.tokens_per_block
        return self.index.last_copies(index, blocks) * self.tokens_per_block

    def hit_tokens(self, index: int) -> int:
        """Tokens behind these marks; an engine prefills at least the last token anew.

        With any hit the template's tokens count as cached too: most of them (a start mark, a
        default system prompt) precede the text, and a cache that holds the first block holds all
        before it. The few that follow the text are less than a block.
        """
        for marks, replicas in self.hits:
            if replicas >> index & 1:
                return self._tokens_behind(marks)
        return 0

    def hits_of(self, replicas: list[Replica]) -> list[int]:
        """`hit_tokens` of each replica."""
        if not self.hits:
            return [0] * len(replicas)
        held = [(self._tokens_behind(marks), holders) for marks, holders in self.hits]
        found: list[int] = []
        for replica in replicas:
            index, hit_tokens = replica.index, 0
            for tokens, holders in held:
                if holders >> index & 1:
                    hit_tokens = tokens
                    break
            found.append(hit_tokens)
        return found

    def _tokens_behind(self, marks: int) -> int:
        blocks = marks
        if marks > self.fine_blocks:
            blocks = blocks_covered(marks, self.fine_blocks)
        tokens = int(self.overhead_tokens + blocks * self.tokens_per_block)
        most = self.prompt_tokens - 1
        return tokens if tokens < most else max(0, most)


Prediction: TypeAlias = tuple[int, int, int, int, float | None, float, float, float, float, float]
"""A `Candidate` from its `hit_tokens` to its `output_tokens`."""

Sight: TypeAlias = tuple[int, int, int, int, float | None, None, None, None, None, float]
"""A `Prediction` without the predicted seconds."""


@message
class Candidate:
    """One replica as a policy saw and judged it; the smallest one is the pick.

    `cost` is in the unit of the policy. While the pool has no latency profile the candidate is not
    `in_seconds`: what is predicted, from `queue_s` to `tpot_s`, is 0 and not known.
    `kv_capacity_tokens` is None where the engine does not tell. `others_s` is what the choice costs
    other requests, `others_missed` how many of their targets it is expected to have missed, and
    `decoding_s` what its own decoding counts for, where the policy counts that.

    A message, since a compiled build needs no objects for its numbers then, neither when it is made
    nor when the decision log forgets it.
    """

    cost: float
    in_flight: int
    last_attempt: int
    replica: str
    hit_tokens: int
    uncached_tokens: int
    backlog_tokens: int
    context_tokens: int
    kv_capacity_tokens: float | None
    in_seconds: bool
    queue_s: float
    slot_wait_s: float
    prefill_s: float
    tpot_s: float
    output_tokens: float
    others_s: float = 0.0
    others_missed: float = 0.0
    decoding_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        """Predicted seconds until the first token; 0 where nothing is predicted."""
        return self.queue_s + self.slot_wait_s + self.prefill_s

    def precedes(self, other: Candidate) -> bool:
        """Whether it is the better pick: of equal costs, the one with fewer requests in flight,
        then the longest without a new one, then by name.
        """
        if self.cost != other.cost:
            return self.cost < other.cost
        if self.in_flight != other.in_flight:
            return self.in_flight < other.in_flight
        if self.last_attempt != other.last_attempt:
            return self.last_attempt < other.last_attempt
        return self.replica < other.replica

    def harming(self, more_s: float) -> Candidate:
        """The same where it costs others so many seconds more."""
        return Candidate(
            self.cost + more_s,
            self.in_flight,
            self.last_attempt,
            self.replica,
            self.hit_tokens,
            self.uncached_tokens,
            self.backlog_tokens,
            self.context_tokens,
            self.kv_capacity_tokens,
            self.in_seconds,
            self.queue_s,
            self.slot_wait_s,
            self.prefill_s,
            self.tpot_s,
            self.output_tokens,
            self.others_s + more_s,
            self.others_missed,
            self.decoding_s,
        )


RANK: Final = attrgetter("cost", "in_flight", "last_attempt", "replica")
"""What a sort compares in place of `precedes`, in the same order: without a call for each pair."""


def cheapest(candidates: list[Candidate]) -> Candidate:
    """The pick, as `min` would have it, but without the detours that compiled code takes to it."""
    best = candidates[0]
    for candidate in candidates:
        if candidate.cost <= best.cost and candidate.precedes(best):
            best = candidate
    return best


STEPS_MET: Final = 1.5
"""Steps of an engine between the arrival of a prompt and its first token that decoding streams take
part in: half of the one in work and the one that prefills it."""
ENOUGH: Final = 8
"""Replicas that a policy with a plain order prices of many: the pick, and those that it is compared
with in an explanation."""


class Scope(Enum):
    """Which of the usable replicas a policy is shown."""

    ALL = "all"
    SHORTLIST = "shortlist"
    """In a large fleet the best prefix holders, the least loaded and a few at random; else all."""
    PAIR = "pair"
    """Two at random."""


class Policy(Protocol):
    """A rule that prices replicas. The lowest cost wins."""

    scope: Scope
    """What `price` is shown. Chance has its place here alone, so that a policy needs none."""
    holds: bool
    """Whether requests are held at the gateway while the best replica has no room for them."""

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price replicas for this request, at least the one to be picked.

        `replicas` come in the order of their names; the list is the same object until the fleet
        changes, except for a request that is tried again or too long for some.
        """
        ...

    def chosen(self, replica: str) -> None:
        """Take note of the pick."""
        ...

    def left(self, replica: str) -> None:
        """Forget a replica that left the fleet, whether it was ever shown or not."""
        ...

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """Break a cost down; the terms add up to it."""
        ...


def see(ask: Ask, replicas: list[Replica]) -> list[Sight]:
    """What the request meets on each replica, without predicted seconds."""
    seen: list[Sight] = []
    for replica in replicas:
        hit_tokens = ask.hit_tokens(replica.index)
        met = (replica.backlog_tokens, replica.context_tokens, replica.report.kv_capacity_tokens)
        seconds = (None, None, None, None)
        uncached = ask.prompt_tokens - hit_tokens
        seen.append((hit_tokens, uncached, *met, *seconds, ask.output_tokens))
    return seen


def fewest_in_flight(replicas: list[Replica]) -> list[Replica]:
    """At most `ENOUGH` of them, those that the house rule for ties prefers."""
    if len(replicas) <= ENOUGH:
        return replicas
    # Names need no comparison: it is in their order that replicas come.
    return nsmallest(ENOUGH, replicas, key=_order)


def _order(replica: Replica) -> tuple[int, int]:
    return (replica.in_flight, replica.last_attempt)


def candidates_at(
    ask: Ask, replicas: list[Replica], costs: Iterable[float], now: float
) -> list[Candidate]:
    """Replicas at these costs, with all that can be said about each."""
    seen: Sequence[Prediction | Sight] = predict(ask, replicas, now) or see(ask, replicas)
    met = zip(costs, replicas, seen, strict=True)
    return [candidate_at(cost, replica, each) for cost, replica, each in met]


def candidate_at(cost: float, replica: Replica, seen: Prediction | Sight) -> Candidate:
    """A candidate of a policy that does not count what a choice does to others."""
    hit_tokens, uncached, backlog, context, capacity = seen[:5]
    queue_s, slot_wait_s, prefill_s, tpot_s, output_tokens = seen[5:]
    return Candidate(
        cost,
        replica.in_flight,
        replica.last_attempt,
        replica.name,
        hit_tokens,
        uncached,
        backlog,
        context,
        capacity,
        queue_s is not None,
        queue_s or 0.0,
        slot_wait_s or 0.0,
        prefill_s or 0.0,
        tpot_s or 0.0,
        output_tokens,
    )


def predict(ask: Ask, replicas: list[Replica], now: float) -> list[Prediction] | None:
    """What the request meets on each replica and how long each phase takes there, in seconds.

    None if a pool has no profile yet.
    """
    predictions: list[Prediction] = []
    hits = ask.hits_of(replicas)
    for at, replica in enumerate(replicas):
        if replica.latency.pool.profile is None:
            return None
        predictions.append(predict_at(ask, replica, hits[at], now))
    return predictions


def predict_at(ask: Ask, replica: Replica, hit_tokens: int, now: float) -> Prediction:
    """The same for one replica, whose pool has a profile; `hit_tokens` of the prompt are there.

    The formulas are those of `LatencyProfile`, inline, because this runs for every replica of
    every request.
    """
    latency, report, sequences = replica.latency, replica.report, replica.sequences
    profile = latency.pool.profile
    assert profile is not None
    step_s, token_s = profile.per_step_s, profile.per_prefill_token_s
    pair_s = profile.per_attended_token_s
    sequence_s, kv_token_s = profile.per_sequence_s, profile.per_kv_token_s
    uncached = ask.prompt_tokens - hit_tokens
    if now >= latency.stale_s:
        latency.refresh(now)
    factor, pairs = latency.prefill_factor, uncached * (hit_tokens + uncached / 2)
    prefill_s = factor * (step_s + token_s * uncached + pair_s * pairs)
    backlog = replica.backlog_tokens
    tpot_s = latency.decode_factor * (
        step_s
        + sequence_s * (sequences + ask.sequences)
        + kv_token_s * (replica.attended_tokens + ask.attended_tokens)
    )
    queue_s = slot_wait_s = 0.0
    if sequences:
        # Streams that decode there lengthen the steps that the prompt waits for and runs in.
        streams, tokens = replica.decoding_sequences, replica.decoding_context_tokens
        queue_s = factor * STEPS_MET * (sequence_s * streams + kv_token_s * tokens)
        prefilling = replica.prefilling
        if prefilling:
            backlog_s = factor * (
                step_s * prefilling + token_s * backlog + pair_s * replica.backlog_pairs
            )
            # The head of the queue is in work already: nobody knows how far, but not beyond
            # its own share.
            done_s, own_s = now - replica.backlog_since_s, backlog_s / prefilling
            queue_s += backlog_s - (done_s if done_s < own_s else own_s)
    slots = replica.places
    if slots and sequences >= slots:
        # All slots are taken, and each is freed once per answer.
        answer_s = replica.pool.output_tokens_mean * tpot_s
        slot_wait_s = (sequences - slots + 1) * answer_s / slots
    if now < replica.busy_until_s:
        slot_wait_s += replica.busy_until_s - now
    context, capacity = replica.context_tokens, report.kv_capacity_tokens
    output_tokens = ask.output_tokens
    return (
        hit_tokens,
        uncached,
        backlog,
        context,
        capacity,
        queue_s,
        slot_wait_s,
        prefill_s,
        tpot_s,
        output_tokens,
    )
