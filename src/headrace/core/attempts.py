"""The books of what is in flight: every attempt's share in its replica's sums.

    begin ──► first_token ──► progress* ──► end
      └────────────────────────────────────► end

Each function moves one attempt and nothing else changes the sums of `Replica`, so they return to
zero when everything has ended.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final

from headrace.core.candidates import STEPS_MET, Ask, Candidate, Policy
from headrace.core.latency import Work
from headrace.core.model import Replica, TpotTarget
from headrace.core.replica_cache import RELEASED, Lease

if TYPE_CHECKING:
    from headrace.core.events import Ended
    from headrace.core.flights import Flight


_MOST_TARGETS: Final = 1024
_TWO_DIGITS: Final[dict[float, float]] = {}
"""What was made of targets: few differ, and to write one out takes a microsecond."""


class Attempt:
    """One dispatch of one request to one replica; after its end, what is remembered of it.

    `work_ahead` is the prefill work between `head_since_s` and its first token: the backlog it met
    and its own. `waits_for_slot` marks that the wait for a slot was predicted too, which is too
    vague to learn from. `first_token_s` is None until the prefill is done, as far as is known.
    `progress_s` is when it was last told how many tokens it has, None before.
    `is_late` says that the TTFT target is missed, by prediction until then.

    How it was decided: `candidates` are some of those `considered`, priced by `policy`, called
    `policy_name` then; `latency_source` says where the seconds came from. How it ended: `ended` at
    `ended_s`, None while it runs or if it `expired`. `is_timed` tells that its first token was
    seen, not presumed.
    """

    __slots__ = (
        "at_first_token",
        "attended_tokens",
        "began_s",
        "candidates",
        "considered",
        "ended",
        "ended_s",
        "expired",
        "first_token_s",
        "flight",
        "head_since_s",
        "hit_tokens",
        "id",
        "is_late",
        "is_timed",
        "latency_source",
        "lease",
        "model",
        "output_tokens",
        "pairs",
        "policy",
        "policy_name",
        "progress_s",
        "prompt_tokens",
        "replica",
        "sequences",
        "tokens_per_block",
        "tpot_target",
        "uncached_tokens",
        "waits_for_slot",
        "work_ahead",
    )

    def __init__(  # noqa: PLR0917 - each request comes by here, and keywords cost
        self,
        id_: int,
        flight: Flight,
        replica: Replica,
        lease: Lease,
        ask: Ask,
        hit_tokens: int,
        model: str,
        policy: Policy,
        candidates: list[Candidate],
        considered: int,
    ) -> None:
        pool = replica.pool
        self.id = id_
        self.flight = flight
        self.model = model
        self.policy = policy
        self.policy_name = pool.spec.policy
        self.latency_source = pool.latency.source
        self.candidates = candidates
        self.considered = considered
        self.is_timed = False
        self.is_late = False
        self.expired = False
        self.ended: Ended | None = None
        self.ended_s = 0.0
        self.replica = replica
        self.lease = lease
        self.sequences = ask.sequences
        self.prompt_tokens = ask.prompt_tokens
        self.attended_tokens = ask.attended_tokens
        self.tokens_per_block = ask.tokens_per_block
        self.tpot_target = _among(replica.tpot_targets, two_digits(ask.tpot_target_s))
        self.hit_tokens = hit_tokens
        self.uncached_tokens = ask.prompt_tokens - hit_tokens
        self.pairs = self.uncached_tokens * (hit_tokens + self.uncached_tokens / 2)
        self.waits_for_slot = False
        self.began_s = 0.0
        self.head_since_s = 0.0
        self.work_ahead: Work = (0.0, 0.0, 0.0, 0.0, 0.0)
        self.first_token_s: float | None = None
        self.output_tokens = 0
        self.progress_s: float | None = None
        # The replica's totals then: prefills, their tokens and pairs, and the two integrals.
        self.at_first_token: tuple[int, int, float, float, float] = (0, 0, 0.0, 0.0, 0.0)

    @property
    def private_blocks(self) -> float:
        """KV room beside the prompt's blocks: what was decoded."""
        return self.output_tokens / self.tokens_per_block

    def tpot_s(self, output_tokens: int, ended_s: float) -> float | None:
        """Measured seconds per output token; None where there are too few to measure.

        Of several sequences each gets its share of the tokens in that time.
        """
        each = output_tokens / self.sequences
        if self.first_token_s is None or each < 2.0:
            return None
        return (ended_s - self.first_token_s) / (each - 1.0)

    def let_go(self) -> None:
        """The cache is released: what the decision log keeps must not hold its blocks."""
        self.lease = RELEASED
        self.work_ahead = (0.0, 0.0, 0.0, 0.0, 0.0)

    def decode_work(self, steps: float) -> Work:
        """The replica's work from this attempt's first token until its end, `steps` steps later.

        Prefills of others ran in between, each adding a step. The integrals over time are means
        of the company times steps. Call it after `end`.
        """
        replica = self.replica
        prefills, tokens, pairs, batch_seconds, context_seconds = self.at_first_token
        elapsed_s = replica.marked_s - (self.first_token_s or 0.0)
        per_step = steps / elapsed_s if elapsed_s > 0.0 else 0.0
        return (
            steps + replica.prefills_done - prefills,
            replica.prefill_tokens_done - tokens,
            replica.prefill_pairs_done - pairs,
            (replica.batch_seconds - batch_seconds) * per_step,
            (replica.context_token_seconds - context_seconds) * per_step,
        )


def begin(attempt: Attempt, now: float, ttft_s: float = 0.0) -> None:
    """The request goes to the replica: its prompt joins the backlog. Its first token is predicted
    to come `ttft_s` later.
    """
    replica = attempt.replica
    attempt.is_late = _is_late(attempt, now + ttft_s)
    if not replica.prefilling:
        replica.backlog_since_s = now
    attempt.began_s = now
    attempt.head_since_s = replica.backlog_since_s
    replica.in_flight += 1
    attempt.tpot_target.attempts += 1
    replica.last_attempt = attempt.id
    replica.prefilling += 1
    if not attempt.flight.request.streamed:
        replica.silent += 1
    replica.late_prefilling += attempt.is_late
    replica.backlog_tokens += attempt.uncached_tokens
    replica.backlog_pairs += attempt.pairs
    replica.uncached_tokens += attempt.uncached_tokens
    replica.context_tokens += attempt.prompt_tokens
    replica.sequences += attempt.sequences
    replica.attended_tokens += attempt.attended_tokens
    kept = exp((replica.recent_marked_s - now) / replica.pool.recent_s)
    replica.recent_prefill_tokens = replica.recent_prefill_tokens * kept + attempt.uncached_tokens
    replica.recent_prefill_pairs = replica.recent_prefill_pairs * kept + attempt.pairs
    replica.recent_marked_s = now
    attempt.work_ahead = (
        replica.prefilling,
        replica.backlog_tokens,
        replica.backlog_pairs,
        STEPS_MET * replica.decoding_sequences,
        STEPS_MET * replica.decoding_context_tokens,
    )


def first_token(attempt: Attempt, now: float) -> None:
    """The prompt is prefilled: it leaves the backlog and decodes."""
    replica = attempt.replica
    _mark(replica, now)
    attempt.first_token_s = now
    _leave_backlog(attempt, now)
    replica.prefills_done += 1
    replica.prefill_tokens_done += attempt.uncached_tokens
    replica.prefill_pairs_done += attempt.pairs
    replica.decoding += 1
    attempt.is_late = _is_late(attempt, now)
    replica.late_decoding += attempt.is_late
    replica.decoding_sequences += attempt.sequences
    replica.decoding_context_tokens += attempt.attended_tokens
    attempt.at_first_token = (
        replica.prefills_done,
        replica.prefill_tokens_done,
        replica.prefill_pairs_done,
        replica.batch_seconds,
        replica.context_token_seconds,
    )


def progress(attempt: Attempt, output_tokens: int, now: float) -> None:
    """So many tokens were decoded until now; fewer than before counts as no news."""
    replica = attempt.replica
    more = output_tokens - attempt.output_tokens
    if more <= 0 or attempt.first_token_s is None:
        return
    _mark(replica, now)
    # From one telling to the next: how far a step had come when the first token was relayed is not
    # known, and neither is how long after its last token a stream ended.
    told_s, attempt.progress_s = attempt.progress_s, now
    if told_s is not None:
        replica.paced_s += now - told_s
        replica.paced_steps += more / attempt.sequences
    attempt.output_tokens = output_tokens
    replica.context_tokens += more
    replica.attended_tokens += more
    replica.decoding_context_tokens += more


def end(attempt: Attempt, now: float) -> None:
    """The attempt leaves all sums."""
    replica = attempt.replica
    _mark(replica, now)
    if attempt.first_token_s is None:
        _leave_backlog(attempt, now)
    else:
        replica.decoding -= 1
        replica.late_decoding -= attempt.is_late
        replica.decoding_sequences -= attempt.sequences
        replica.decoding_context_tokens -= attempt.attended_tokens + attempt.output_tokens
    replica.in_flight -= 1
    if not attempt.flight.request.streamed:
        replica.silent -= 1
    target = attempt.tpot_target
    target.attempts -= 1
    if not target.attempts:
        replica.tpot_targets.remove(target)
    replica.sequences -= attempt.sequences
    replica.attended_tokens -= attempt.attended_tokens + attempt.output_tokens
    replica.uncached_tokens -= attempt.uncached_tokens
    replica.context_tokens -= attempt.prompt_tokens + attempt.output_tokens


def two_digits(target_s: float) -> float:
    """A target as it is counted: clients choose their own, and those of a replica are looked at one
    by one.
    """
    counted_s = _TWO_DIGITS.get(target_s)
    if counted_s is None:
        if len(_TWO_DIGITS) >= _MOST_TARGETS:
            _TWO_DIGITS.clear()
        counted_s = _TWO_DIGITS[target_s] = float(f"{target_s:.2g}")
    return counted_s


def _among(targets: list[TpotTarget], target_s: float) -> TpotTarget:
    """The one of a replica's targets that is so long. Few differ, so to look through them is
    cheaper than a dictionary, for which each is hashed.
    """
    for target in targets:
        if target.target_s == target_s:
            return target
    added = TpotTarget(target_s, 0)
    targets.append(added)
    return added


def _is_late(attempt: Attempt, first_token_s: float) -> bool:
    """Whether a first token at that time misses the target, which counts from the arrival."""
    flight = attempt.flight
    return first_token_s - flight.arrived_s > flight.ttft_target_s


def _leave_backlog(attempt: Attempt, now: float) -> None:
    replica = attempt.replica
    replica.prefilling -= 1
    replica.late_prefilling -= attempt.is_late
    replica.backlog_tokens -= attempt.uncached_tokens
    replica.backlog_pairs -= attempt.pairs
    replica.backlog_since_s = now


def _mark(replica: Replica, now: float) -> None:
    """Bring the integrals over time up to `now`, before the sums change."""
    elapsed_s = now - replica.marked_s
    if elapsed_s > 0.0:
        replica.batch_seconds += replica.decoding_sequences * elapsed_s
        replica.context_token_seconds += replica.decoding_context_tokens * elapsed_s
        replica.marked_s = now
