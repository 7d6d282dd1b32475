"""A decision in one line of words."""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.candidates import Candidate, CostTerm
from headrace.core.durations import in_words

# Shorter waits are not worth a word.
_WORTH_SAYING_S = 0.0005


def reason_for(
    candidates: list[Candidate], terms: Callable[[Candidate], tuple[CostTerm, ...]]
) -> str:
    """Say what the first candidate (the chosen one) costs and what the next one would have cost."""
    chosen = candidates[0]
    unit = terms(chosen)[0].unit
    text = f"replica {chosen.replica}: {_describe(chosen, unit)}"
    if len(candidates) == 1:
        return f"{text}; the only one to choose from"
    other = candidates[1]
    if unit == "turns" or (unit == "places" and chosen.cost < other.cost):
        return text
    if other.cost == chosen.cost:
        return f"{text}; {other.replica} would cost the same but {_tie_break(chosen, other)}"
    less = other.cost - chosen.cost
    if unit == "requests":
        return f"{text}; {less:,.0f} fewer than {other.replica}"
    amount = f"{in_words(less)} less" if unit == "s" else f"{less:,.0f} tokens fewer"
    tipped = _tipped(chosen, other, terms)
    return f"{text}; {amount} than {other.replica}, {_drawback(chosen, other, tipped)}"


def _tie_break(chosen: Candidate, other: Candidate) -> str:
    if other.in_flight > chosen.in_flight:
        return "has more requests in flight"
    if other.last_attempt > chosen.last_attempt:
        return "was used more recently"
    return "comes later by name"


def _describe(candidate: Candidate, unit: str) -> str:
    prompt = candidate.hit_tokens + candidate.uncached_tokens
    prefill = f"prefill {candidate.uncached_tokens:,} of {prompt:,} tokens"
    if unit == "turns":
        return f"its turn, {prefill}"
    if unit == "requests":
        return f"{_counted(candidate.cost, 'request')} in flight, {prefill}"
    if unit == "places":
        return f"{_place(candidate)}, {prefill}"
    if candidate.queue_s is None or candidate.prefill_s is None:
        in_flight = candidate.cost - candidate.uncached_tokens
        return f"{in_flight:,.0f} uncached tokens in flight + {prefill}"
    parts = [f"queue {in_words(candidate.queue_s)}"]
    if candidate.slot_wait_s and candidate.slot_wait_s >= _WORTH_SAYING_S:
        parts.append(f"wait for a slot {in_words(candidate.slot_wait_s)}")
    parts.append(f"{prefill} {in_words(candidate.prefill_s)}")
    return " + ".join(parts)


def _place(candidate: Candidate) -> str:
    if not candidate.cost:
        return "the first place on the ring for this prefix"
    places = _counted(candidate.cost, "place")
    return f"{places} further on the ring, since all before are at their load bound"


def _counted(number: float, what: str) -> str:
    return f"{number:,.0f} {what}{'' if number == 1 else 's'}"


def _tipped(
    chosen: Candidate, other: Candidate, terms: Callable[[Candidate], tuple[CostTerm, ...]]
) -> str:
    """The name of the term in which the other one is worst, compared with the chosen one."""
    pairs = zip(terms(chosen), terms(other), strict=True)
    worst = max(pairs, key=lambda pair: pair[1].value - pair[0].value)
    return worst[1].name


def _drawback(chosen: Candidate, other: Candidate, term: str) -> str:
    if term == "queue" and other.queue_s is not None:
        return f"where the queue is {in_words(other.queue_s)}"
    if term == "slot wait" and other.slot_wait_s is not None:
        return f"where a slot is free in {in_words(other.slot_wait_s)}"
    if term == "decoding" and other.tpot_s is not None:
        return f"where each token would take {in_words(other.tpot_s)}"
    if term == "in flight":
        return f"which has {other.cost - other.uncached_tokens:,.0f} uncached tokens in flight"
    if other.uncached_tokens == chosen.uncached_tokens:
        # As much work, so it is the replica.
        return "which prefills more slowly"
    return f"which would prefill {_counted(other.uncached_tokens, 'token')}"
