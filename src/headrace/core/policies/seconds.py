"""The replica on which a request costs the fewest seconds, its own and those of others.

    cost = queue + slot wait + prefill + OTHERS_WEIGHT * prefill
           + DECODE_WEIGHT * expected output tokens * step time in that company

`queue` is the prefill backlog ahead, `prefill` that of the uncached tokens; the second `prefill`
is what later arrivals wait for it. It is charged whatever is in flight now, since they are yet to
come: this is what keeps conversations where their prefix is cached. The step time includes the
sequences and KV tokens already there, so that decoding streams are not piled up where prefixes are
hit.

While a pool has no latency profile yet, the cost is the uncached tokens of all requests in flight
there plus those of this one.
"""

from __future__ import annotations

from headrace.core.candidates import Ask, Candidate, CostTerm, Row, Scope, predict
from headrace.core.model import Replica

OTHERS_WEIGHT = 1.0
DECODE_WEIGHT = 0.3


class Seconds:
    """Prices by predicted seconds; stateless."""

    scope = Scope.SHORTLIST

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Row]:
        """Price each replica in seconds, or in tokens where a pool has no profile yet."""
        predictions = predict(ask, replicas, now)
        if predictions is None:
            return _price_in_tokens(ask, replicas)
        rows: list[Row] = []
        prefill_weight = 1.0 + OTHERS_WEIGHT
        decode_weight = DECODE_WEIGHT * ask.output_tokens
        for replica, seen in zip(replicas, predictions, strict=True):
            cost_s = seen[5] + seen[6] + seen[7] * prefill_weight + seen[8] * decode_weight
            rows.append((cost_s, replica.in_flight, replica.last_attempt, replica.name, *seen))
        return rows

    def chosen(self, replica: str) -> None:
        """Nothing to remember."""

    def left(self, replica: str) -> None:
        """Nothing to forget."""

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The parts of the cost formula, or the tokens in flight."""
        prefill_s, tpot_s = candidate.prefill_s, candidate.tpot_s
        queue_s, slot_wait_s = candidate.queue_s, candidate.slot_wait_s
        if queue_s is None or slot_wait_s is None or prefill_s is None or tpot_s is None:
            own = candidate.uncached_tokens
            return (
                CostTerm("in flight", candidate.cost - own, "tokens"),
                CostTerm("uncached", own, "tokens"),
            )
        decoding_s = DECODE_WEIGHT * candidate.output_tokens * tpot_s
        return (
            CostTerm("queue", queue_s, "s"),
            CostTerm("slot wait", slot_wait_s, "s"),
            CostTerm("prefill", prefill_s, "s"),
            CostTerm("wait of later arrivals", OTHERS_WEIGHT * prefill_s, "s"),
            CostTerm("decoding", decoding_s, "s"),
        )


POLICY = Seconds


def _price_in_tokens(ask: Ask, replicas: list[Replica]) -> list[Row]:
    """Seconds of different pools cannot be compared while one of them has none: all in tokens."""
    rows: list[Row] = []
    prompt_tokens, output_tokens, any_hit = ask.prompt_tokens, ask.output_tokens, bool(ask.hits)
    hit_tokens = 0
    for replica in replicas:
        if any_hit:
            hit_tokens = ask.hit_tokens(replica.index)
        uncached = prompt_tokens - hit_tokens
        rows.append(
            (
                float(replica.uncached_tokens + uncached),
                replica.in_flight,
                replica.last_attempt,
                replica.name,
                hit_tokens,
                uncached,
                replica.backlog_tokens,
                replica.context_tokens,
                replica.report.kv_capacity_tokens,
                None,
                None,
                None,
                None,
                output_tokens,
            )
        )
    return rows
