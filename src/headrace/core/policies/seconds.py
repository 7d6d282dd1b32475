"""The replica on which a request costs the fewest seconds, its own and those of others.

    cost    = queue + slot wait + KV wait + prefill       its own time to first token
              + expected output tokens * decoding
              + WORTH * TTFT target * (TTFT_RISK * risk(TTFT) + risk(TPOT))
              + others
    decoding = DECODE_WEIGHT * (step time in that company - fast) + FAST_WEIGHT * fast
    fast    = the least of step time, FAST_ENOUGH * TPOT target, FAST_STEPS * step of an empty batch
    risk(t) = x^8 / (1 + x^8),  x = t / target            that a target is missed
    TPOT    = step time / (1 - PREFILL_SHARE * busy)
    busy    = share of the last seconds (`recent_s`) that prefills sent there take
    KV wait = tokens too many / tokens in use * answer    until enough answers have ended there
    answer  = mean answer * step time in that company     seconds that a stream lives
    others  = prefill * (1 + LATER_WEIGHT * busy / (1 - busy))       who comes later waits for it
              + prefill * streams there / answer * (queue + prefill / 2)      who comes meanwhile
              + WORTH * TTFT target * missed
              + AGAIN * prefill * last copies                 what the fleet forgets for it
              - what of the prefill is shared with those who need the same prefix
    missed  = streams there * (risk(TPOT after) - risk(TPOT before)) + (1 - risk(TPOT)) * stalled
    stalled = prefilling * (short(queue + prefill) - short(queue))
              + decoding * (short(queue + prefill)^2 - short(queue)^2)
    short(s) = s / (s + spare)     that an answer is too short to make up for s seconds of prefills
    spare   = mean answer * (TPOT target - step time / (1 - PREFILL_SHARE * busy))

In `missed` and what follows from it, targets are those of the streams there, each by its own.

Targets first, then seconds: a target that is surely met or surely missed adds the same everywhere,
so that the rest decides; near a target, it is what decides. Streams are slowed by what a request
makes them read in each step, and by its prefill, which interrupts them. Those whose
first token is late count less in `missed` and `stalled` (`LATE_HARMLESS`).

A prefix that N requests run with at this moment will be asked for again soon: a copy of it on
another replica is an investment, of which 1 / (1 + COPY_WEIGHT * N) is charged to the request.

A long prompt takes the place of what was idle there for longest. Last copies are the share of its
uncached tokens that take the place of blocks which no other replica holds. They are looked up for
the cheapest replicas until the pick is found, and left out for the others.

While a pool has no latency profile yet, the cost is the uncached tokens of all requests in flight
there plus those of this one.

Who comes meanwhile: by Little's law streams / answer requests a second come to a replica, and those
that come before the prefill is over wait for it, or for what is left of it.

Inputs: own requests in flight and tokens relayed, the prefix index, the latency profile as learned,
the targets of the request's tier.

Source: Headrace's own; docs/explanation/routing.md tells where its terms come from.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import Final, TypeAlias

from headrace.core.candidates import RANK, Ask, Candidate, Scope, predict_at
from headrace.core.cost_term import CostTerm
from headrace.core.crowding import LATE_HARMLESS, busy_share, risk
from headrace.core.model import Replica

WORTH: Final = 1.0
"""What a missed target weighs, in TTFT targets. More than this buys few fewer misses for much
longer waits; with half of it agents miss up to twice as often where replicas are few."""
TTFT_RISK: Final = 0.5
"""The wait counts in seconds already."""
PREFILL_SHARE: Final = 0.75
"""How much of the recent share of prefills a stream is taken to meet. With 1 a replica where the
targets are lost draws all that would lose them elsewhere: fewer misses yet, and long waits."""
LEAST_IDLE: Final = 0.1
"""Of a replica's time: however long a prefill takes, its streams go on."""
LATER_WEIGHT: Final = 2.0
"""In a queue that is busy for a share b of the time, work holds up those who come later by
b / (1 - b) of itself."""
DECODE_WEIGHT: Final = 0.3
"""A second of decoding hurts less than one of waiting for the first token."""
FAST_WEIGHT: Final = 0.05
"""Of such a second while steps are fast. If it weighed as much as others, prompts would leave their
prefix at light load for steps of a sixth of the target in place of a fifth."""
FAST_ENOUGH: Final = 0.25
"""Up to this share of their TPOT target steps are fast. With 0.3, agents behind contexts of 100,000
tokens come to share a replica, and more answers are slow."""
FAST_STEPS: Final = 2.0
"""So many steps of an empty batch are fast, however lax the target is: else it would keep all who
share a prefix on one replica."""
LEAST_SPARE: Final = 0.1
"""Of the TPOT target: what a stream is taken to have left even where its limit is reached."""
COPY_WEIGHT: Final = 0.5
COPY_TOKENS: Final = 8192
"""Prompts shorter than this are not worth a look at who shares them."""

AGAIN: Final = 0.3
"""The chance that what no replica has any more is asked for again; on agents and on conversations a
sixth to two fifths of it was."""

_After: TypeAlias = tuple[float, float, float, float, float]
"""With the request there: queue, prefill and step time in seconds, the share of time that prefills
leave to streams, and its own risk to miss its TPOT target."""
_Common: TypeAlias = tuple[float, float, float, float, float, float, float]
"""What is the same for all replicas: the worth of a target in seconds, one over the TTFT and over
the TPOT target, tokens of a mean answer, for how long prefills are remembered, up to what step time
decoding is fast, and the share of its prefill that the request is charged."""


class Seconds:
    """Prices by predicted seconds; stateless."""

    scope = Scope.SHORTLIST
    holds = True

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price each replica in seconds, or in tokens where a pool has no profile yet."""
        mean = replicas[0].pool.output_tokens_mean
        copies = ask.runs_with(replicas) if ask.prompt_tokens > COPY_TOKENS else 0
        common = (
            WORTH * ask.ttft_target_s,
            1.0 / ask.ttft_target_s,
            1.0 / ask.tpot_target_s,
            mean if mean > 1.0 else 1.0,
            replicas[0].pool.recent_s,
            _fast_s(ask, replicas[0]),
            1.0 / (1.0 + COPY_WEIGHT * copies),
        )
        hits = ask.hits_of(replicas)
        candidates: list[Candidate] = []
        for at, replica in enumerate(replicas):
            if replica.latency.pool.profile is None:
                return _price_in_tokens(ask, replicas, now)
            candidates.append(_candidate(ask, replica, hits[at], common, now))
        if ask.prompt_tokens > COPY_TOKENS:
            _charge_last_copies(ask, replicas, candidates)
        return candidates

    def chosen(self, replica: str) -> None:
        """Nothing to remember."""

    def left(self, replica: str) -> None:
        """Nothing to forget."""

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The parts of the cost formula, or the tokens in flight."""
        if not candidate.in_seconds:
            own = candidate.uncached_tokens
            return (
                CostTerm("in flight", candidate.cost - own, "tokens"),
                CostTerm("uncached", own, "tokens"),
            )
        decoding_s = candidate.decoding_s
        known_s = candidate.ttft_s + decoding_s + candidate.others_s
        return (
            CostTerm("queue", candidate.queue_s, "s"),
            CostTerm("slot wait", candidate.slot_wait_s, "s"),
            CostTerm("prefill", candidate.prefill_s, "s"),
            CostTerm("decoding", decoding_s, "s"),
            CostTerm("risk of missing a target", candidate.cost - known_s, "s"),
            CostTerm("harm to others", candidate.others_s, "s"),
        )


POLICY = Seconds


def _candidate(
    ask: Ask, replica: Replica, hit_tokens: int, common: _Common, now: float
) -> Candidate:
    """One replica priced in seconds, whose pool has a profile."""
    worth_s, per_ttft, per_tpot, answer_tokens, recent_s, fast_s, share = common
    seen = predict_at(ask, replica, hit_tokens, now)
    _, uncached, backlog, context, capacity, queue_s, slot_wait_s, prefill_s, tpot_s, _ = seen
    streams = replica.in_flight
    answer_s = answer_tokens * tpot_s or 1.0  # a profile may say that steps cost nothing
    if capacity and streams and context + ask.prompt_tokens > capacity:
        slot_wait_s += _kv_wait_s(ask, replica, capacity, answer_s)
    busy = busy_share(replica, now)
    idle = 1.0 - PREFILL_SHARE * busy
    idle_after = idle - PREFILL_SHARE * prefill_s / recent_s
    if idle_after < LEAST_IDLE:
        idle_after = LEAST_IDLE
    own = risk(tpot_s * per_tpot / idle_after)
    missed = 0.0
    if streams:
        after = (queue_s, prefill_s, tpot_s, idle_after, own)
        missed = _missed(ask, replica, idle, after)
    others_s = worth_s * missed + prefill_s * (
        share * (2.0 + LATER_WEIGHT * busy / (1.0 - busy))
        - 1.0
        + streams / answer_s * (queue_s + 0.5 * prefill_s)
    )
    decoding_s = DECODE_WEIGHT * tpot_s
    decoding_s -= (DECODE_WEIGHT - FAST_WEIGHT) * (tpot_s if tpot_s < fast_s else fast_s)
    decoding_s *= ask.output_tokens
    late = risk((queue_s + slot_wait_s + share * prefill_s) * per_ttft)
    cost_s = (
        queue_s
        + slot_wait_s
        + prefill_s
        + decoding_s
        + worth_s * (TTFT_RISK * late + own)
        + others_s
    )
    return Candidate(
        cost_s,
        streams,
        replica.last_attempt,
        replica.name,
        hit_tokens,
        uncached,
        backlog,
        context,
        capacity,
        True,
        queue_s,
        slot_wait_s,
        prefill_s,
        tpot_s,
        ask.output_tokens,
        others_s,
        missed,
        decoding_s,
    )


def _fast_s(ask: Ask, replica: Replica) -> float:
    """Up to what step time decoding is fast: the same for all replicas, else a slow one would gain
    by its slow steps. 0 while their pool has no profile.
    """
    profile = replica.latency.pool.profile
    if profile is None:
        return 0.0
    by_target_s, by_engine_s = FAST_ENOUGH * ask.tpot_target_s, FAST_STEPS * profile.per_step_s
    return by_target_s if by_target_s < by_engine_s else by_engine_s


def _charge_last_copies(ask: Ask, replicas: list[Replica], candidates: list[Candidate]) -> None:
    """Add what the fleet loses to the cheapest replicas, until one is the cheapest with it.

    The others are not the pick without it already, and to look at what each would evict takes as
    long as it is much.
    """
    charged = [False] * len(candidates)
    ranked = [(RANK(candidate), at) for at, candidate in enumerate(candidates)]
    heapify(ranked)
    while True:
        at = ranked[0][1]
        candidate = candidates[at]
        uncached = candidate.uncached_tokens
        if charged[at] or uncached <= COPY_TOKENS:
            return
        charged[at] = True
        lost = ask.last_copies(replicas[at].index, uncached) / uncached
        loss_s = AGAIN * candidate.prefill_s * (lost if lost < 1.0 else 1.0)
        candidates[at] = candidate = candidate.harming(loss_s)
        heapreplace(ranked, (RANK(candidate), at))


def _missed(ask: Ask, replica: Replica, idle: float, after: _After) -> float:
    """Targets of those who are there that are expected to be missed for this choice; `idle` is the
    share of time that recent prefills leave to streams without it.
    """
    own_s, there = ask.tpot_target_s, replica.tpot_targets
    if not there or (len(there) == 1 and there[0].target_s == own_s):
        return _missed_of(ask, replica, own_s, idle, after)
    missed = 0.0
    queue_s, prefill_s, tpot_s, idle_after, _ = after
    for each in there:
        target_s = each.target_s
        theirs = (queue_s, prefill_s, tpot_s, idle_after, risk(tpot_s / target_s / idle_after))
        of_all = _missed_of(ask, replica, target_s, idle, theirs)
        missed += each.attempts / replica.in_flight * of_all
    return missed


def _missed_of(ask: Ask, replica: Replica, target_s: float, idle: float, after: _After) -> float:
    """The same, if all who are there had this TPOT target; the risk in `after` is that of missing
    it.
    """
    latency = replica.latency
    profile = latency.pool.profile
    assert profile is not None
    queue_s, prefill_s, tpot_s, _, risk_after = after
    step_s = tpot_s - latency.decode_factor * (
        profile.per_sequence_s * ask.sequences + profile.per_kv_token_s * ask.attended_tokens
    )
    # Seconds of prefills that an answer of mean length can meet and be in time yet.
    spare_s, least_s = target_s - step_s / idle, LEAST_SPARE * target_s
    mean = replica.pool.output_tokens_mean
    spare_s = (spare_s if spare_s > least_s else least_s) * (mean if mean > 1.0 else 1.0)
    short = queue_s / (spare_s + queue_s)
    shorter = (queue_s + prefill_s) / (spare_s + queue_s + prefill_s)
    prefilling = replica.prefilling - LATE_HARMLESS * replica.late_prefilling
    decoding = replica.decoding - LATE_HARMLESS * replica.late_decoding
    stalled = (shorter - short) * (prefilling + decoding * (shorter + short))
    more = risk_after - risk(step_s * (1.0 / target_s) / idle)
    return (prefilling + decoding) * more + (1.0 - risk_after) * stalled


def _kv_wait_s(ask: Ask, replica: Replica, capacity: float, answer_s: float) -> float:
    """Seconds until the KV cache has room for the prompt. An engine begins its prefill no sooner,
    and lets whoever comes later wait behind it.

    What several requests hold together takes its room once. In use are the prompts that were sent
    there, done or not, and what was decoded; blocks that are cached for nobody make room at once.
    """
    used = replica.context_tokens - ask.shared_tokens(replica.index)
    over = used + ask.prompt_tokens - ask.tokens_in_use(replica.index) - capacity
    return max(0.0, over) / max(1.0, used) * answer_s


def _price_in_tokens(ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
    """Seconds of different pools cannot be compared while one of them has none: all in tokens.

    These have no place for seconds until a full engine has room: it is left out beside others.
    """
    candidates: list[Candidate] = []
    hits = ask.hits_of(replicas)
    all_full = all(now < each.busy_until_s for each in replicas)
    for at, replica in enumerate(replicas):
        if now < replica.busy_until_s and not all_full:
            continue
        hit_tokens = hits[at]
        uncached = ask.prompt_tokens - hit_tokens
        candidates.append(
            Candidate(
                float(replica.uncached_tokens + uncached),
                replica.in_flight,
                replica.last_attempt,
                replica.name,
                hit_tokens,
                uncached,
                replica.backlog_tokens,
                replica.context_tokens,
                replica.report.kv_capacity_tokens,
                False,
                0.0,
                0.0,
                0.0,
                0.0,
                ask.output_tokens,
            )
        )
    return candidates
