"""What the rules of other routers have in common when they are written as costs.

They pick by thresholds, by scores where more is better, and by chance among equals. As a cost the
lowest of which wins:

- who a rule does not consider costs `RULED_OUT` more than by its load or score alone;
- a score is negative;
- who is drawn among equals costs `DRAWN` less than these.
"""

from __future__ import annotations

from heapq import nsmallest

from headrace.core.candidates import ENOUGH, Ask, Candidate, candidates_at
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica
from headrace.core.ties import Ties

RULED_OUT = 1e8
"""More than any load or score, in whatever unit, and small enough to leave these 7 digits."""
DRAWN = 1e-9
"""Less than any difference that a rule would make."""


class Memoryless:
    """For rules without a memory: neither their picks nor who leaves change what they do."""

    def chosen(self, replica: str) -> None:
        """Nothing to remember."""

    def left(self, replica: str) -> None:
        """Nothing to forget."""


def hit_tokens_of(ask: Ask, replicas: list[Replica]) -> list[int]:
    """Tokens of the prompt that each replica has cached, in the order of `replicas`.

    One pass over the holders and one over the replicas, so that large fleets stay affordable.
    """
    held: dict[int, int] = {}
    for _, mask in ask.hits:
        indices = _indices(mask)
        held.update(dict.fromkeys(indices, ask.hit_tokens(indices[0])))
    if not held:
        return [0] * len(replicas)
    tokens_of = held.get
    return [tokens_of(replica.index, 0) for replica in replicas]


def matched_share(hit_tokens: int, prompt_tokens: int, block_tokens: int) -> float:
    """Blocks of a prompt that are cached, of all its full blocks, from 0 to 1."""
    blocks = prompt_tokens // block_tokens
    return hit_tokens // block_tokens / blocks if blocks else 0.0


def ruled_out(candidate: Candidate) -> float:
    """What of a candidate's cost says that the rule does not consider it; 0 if it does."""
    return RULED_OUT if candidate.cost >= RULED_OUT / 2 else 0.0


def load_and_rule(
    candidate: Candidate, load: str, unit: str, rule: str
) -> tuple[CostTerm, CostTerm]:
    """The terms of a cost that is a load and, of those that the rule does not consider, more."""
    excluded = ruled_out(candidate)
    return CostTerm(load, candidate.cost - excluded, unit), CostTerm(rule, excluded, unit)


def draw(costs: list[float], ties: Ties) -> None:
    """Let chance decide among the lowest costs where several are equal."""
    lowest = min(costs)
    equal = [position for position, cost in enumerate(costs) if cost == lowest]
    if len(equal) > 1:
        costs[equal[ties.below(len(equal))]] -= DRAWN


def cheapest_candidates(
    ask: Ask, replicas: list[Replica], costs: list[float], now: float
) -> list[Candidate]:
    """At most `ENOUGH` candidates, those that cost least; equal ones as the house does.

    Of a large fleet the others are not worth making: nobody is told of them.
    """
    if len(replicas) <= ENOUGH:
        return candidates_at(ask, replicas, costs, now)
    bound = nsmallest(ENOUGH, costs)[-1]
    close = [position for position, cost in enumerate(costs) if cost <= bound]
    if len(close) > ENOUGH:
        # Names need no comparison: it is in their order that replicas come.
        keys = [(costs[i], replicas[i].in_flight, replicas[i].last_attempt, i) for i in close]
        close = [key[-1] for key in nsmallest(ENOUGH, keys)]
    return candidates_at(ask, [replicas[i] for i in close], [costs[i] for i in close], now)


def _indices(mask: int) -> list[int]:
    """The positions of the bits that are set, lowest first."""
    if mask.bit_count() > 8:
        return [index for index, bit in enumerate(reversed(f"{mask:b}")) if bit == "1"]
    indices: list[int] = []
    while mask:
        lowest = mask & -mask
        indices.append(lowest.bit_length() - 1)
        mask ^= lowest
    return indices
