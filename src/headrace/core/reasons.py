"""A decision in one line of words."""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.baselines import DRAWN, RULED_OUT
from headrace.core.candidates import Candidate
from headrace.core.cost_term import CostTerm
from headrace.core.durations import in_words

# Shorter waits are not worth a word.
_WORTH_SAYING_S = 0.0005
_OF_PREFILL = {"prefill", "uncached"}
"""Terms that grow with the uncached tokens."""
_HARM = "harm to others"


def reason_for(
    candidates: list[Candidate], terms: Callable[[Candidate], tuple[CostTerm, ...]]
) -> str:
    """Say what the first candidate (the chosen one) costs and what the next one would have cost."""
    chosen = candidates[0]
    unit = terms(chosen)[0].unit
    text = f"replica {chosen.replica}: {_describe(chosen, terms(chosen))}"
    if len(candidates) == 1:
        return f"{text}; the only one to choose from"
    other = candidates[1]
    if unit == "turns" or (unit == "places" and chosen.cost < other.cost):
        return text
    if other.cost == chosen.cost:
        return f"{text}; {other.replica} would cost the same but {_tie_break(chosen, other)}"
    if _drawn(terms(chosen)):
        return f"{text}; drawn at random by its odds"
    less = other.cost - chosen.cost
    if less >= RULED_OUT / 2:
        why = _tipped(chosen, other, terms).name
        return f"{text}; {other.replica} is ruled out: {why}"
    if less <= 2 * DRAWN:
        return f"{text}; {other.replica} would cost the same but was not drawn"
    if unit == "s" and less < _WORTH_SAYING_S:
        # Of so little no cause is told: two equal replicas differ by it in what was learned.
        return f"{text}; {other.replica} would cost less than a millisecond more"
    text = f"{text}; {_amount(less, unit)} than {other.replica}"
    if unit not in {"s", "tokens"} or len(terms(chosen)) == 1:
        return text
    return f"{text}, {_drawback(chosen, other, _tipped(chosen, other, terms))}"


def _amount(less: float, unit: str) -> str:
    """How much less a choice costs."""
    if unit == "s":
        return f"{in_words(less)} less"
    if unit == "requests":
        return f"{less:,.0f} fewer"
    if unit == "ratio":
        return f"{100 * less:.2g} % less"
    if unit == "score":
        return f"{less:.2g} more"
    return f"{less:,.3g} {unit} fewer" if less < 100 else f"{less:,.0f} {unit} fewer"


def _tie_break(chosen: Candidate, other: Candidate) -> str:
    if other.in_flight > chosen.in_flight:
        return "has more requests in flight"
    if other.last_attempt > chosen.last_attempt:
        return "was used more recently"
    return "comes later by name"


def _describe(candidate: Candidate, terms: tuple[CostTerm, ...]) -> str:
    unit, cost = terms[0].unit, candidate.cost - _drawn(terms)
    prompt = candidate.hit_tokens + candidate.uncached_tokens
    prefill = f"prefill {candidate.uncached_tokens:,} of {prompt:,} tokens"
    if unit in _OF_COST:
        return f"{_OF_COST[unit](cost)}, {prefill}"
    if unit == "turns":
        return f"its turn, {prefill}"
    if unit == "places":
        return f"{_place(candidate)}, {prefill}"
    if unit == "tokens":
        return f"{terms[0].value:,.0f} uncached tokens in flight + {prefill}"
    if not candidate.in_seconds:
        return f"{in_words(cost)}, {prefill}"
    parts = [f"queue {in_words(candidate.queue_s)}"]
    if candidate.slot_wait_s >= _WORTH_SAYING_S:
        parts.append(f"wait for a slot {in_words(candidate.slot_wait_s)}")
    parts.append(f"{prefill} {in_words(candidate.prefill_s)}")
    return " + ".join(parts)


def _drawn(terms: tuple[CostTerm, ...]) -> float:
    """What puts a candidate first that was drawn by its odds; 0 if none was."""
    return sum(term.value for term in terms if term.name == "drawn")


def _place(candidate: Candidate) -> str:
    if not candidate.cost:
        return "the first place on the ring for this prefix"
    places = _counted(candidate.cost, "place")
    return f"{places} further on the ring, since all before are at their load bound"


def _counted(number: float, what: str) -> str:
    return f"{number:,.0f} {what}{'' if number == 1 else 's'}"


def _tipped(
    chosen: Candidate, other: Candidate, terms: Callable[[Candidate], tuple[CostTerm, ...]]
) -> CostTerm:
    """The other one's term by which it is worst, compared with the chosen one; how much it is so
    is its value.
    """
    pairs = zip(terms(chosen), terms(other), strict=True)
    mine, worst = max(pairs, key=lambda pair: pair[1].value - pair[0].value)
    return CostTerm(worst.name, worst.value - mine.value, worst.unit)


def _drawback(chosen: Candidate, other: Candidate, term: CostTerm) -> str:
    if term.name == "queue" and other.in_seconds:
        return f"where the queue is {in_words(other.queue_s)}"
    if term.name == "slot wait":
        return f"where a slot is free in {in_words(other.slot_wait_s)}"
    if term.name == "decoding":
        return f"where each token would take {in_words(other.tpot_s)}"
    if term.name == "in flight":
        return f"which has {other.cost - other.uncached_tokens:,.0f} uncached tokens in flight"
    # Where nobody is, the harm is what later arrivals wait, for the prefill.
    is_of_prefill = term.name in _OF_PREFILL or (term.name == _HARM and not other.in_flight)
    if not is_of_prefill:
        more = in_words(term.value) if term.unit == "s" else f"{term.value:,.0f} {term.unit}"
        return f"where {term.name} costs {more} more"
    if other.uncached_tokens == chosen.uncached_tokens:
        # As much work, so it is the replica.
        return "which prefills more slowly"
    return f"which would prefill {_counted(other.uncached_tokens, 'token')}"


_OF_COST: dict[str, Callable[[float], str]] = {
    "requests": lambda cost: f"{_counted(cost, 'request')} in flight",
    "blocks": lambda cost: f"{_counted(cost, 'block')} to prefill and to hold",
    "blocks²": lambda cost: f"{cost:,.3g} blocks to prefill times to hold",
    "ratio": lambda cost: f"{100 * cost:.3g} % of its KV cache in use",
    "score": lambda cost: f"score {-cost:.6g}",
}
"""What a cost says in the units of other routers' rules."""
