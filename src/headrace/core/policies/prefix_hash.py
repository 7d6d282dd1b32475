"""Consistent hashing with bounded loads on the beginning of a prompt.

    bound = ceil(125 % * (requests in flight + this one) / replicas)
    cost  = place on the ring, counted from the prompt's key
            + BEHIND_ALL if the replica has `bound` requests in flight already

Equal beginnings go to the same replica as long as it has no more than its bounded share; then to
the next one on the ring. After Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with
Bounded Loads" (2016); 125 % and 256 places per replica are what KubeAI's `PrefixHash` uses.

The key is the hash of the first `KEY_BLOCKS` blocks, or of all that a shorter prompt has. A prompt
without one whole block has no key and nothing worth keeping together: all replicas cost 0 then, and
the fewest requests in flight decide.

Inputs: own requests in flight, the prompt's first blocks. The index is not asked.

Source: the paper; KubeAI's `PrefixHash`.

As there: bound, places, the ring. Different here: the key is of some 256 tokens (of a trace, of
four of its blocks: 2,048 tokens with Mooncake's), where KubeAI takes 100 characters.
"""

from __future__ import annotations

from bisect import bisect_left

from headrace.core.candidates import ENOUGH, Ask, Candidate, Scope, candidates_at, fewest_in_flight
from headrace.core.cost_term import CostTerm
from headrace.core.hash_ring import HashRing
from headrace.core.model import Replica

LOAD_PERCENT = 125
"""A replica's bound, of the mean requests in flight."""
KEY_BLOCKS = 4
"""Blocks of 256 bytes that make the key, some 256 tokens: few enough that a conversation outgrows
them at once and then stays, enough to tell system prompts with a common opening apart."""
BEHIND_ALL = 100_000.0
"""Places that a replica at its bound is put behind: more than a pool has replicas."""


class PrefixHash:
    """Prices by the place on a ring, which holds every replica it was shown until that one left.

    A replica that is ejected or draining keeps its places and is passed over, so that its keys
    come back to it.
    """

    scope = Scope.ALL
    holds = False

    def __init__(self) -> None:
        self._ring = HashRing()
        self._on_ring: list[Replica] | None = None

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price the first few replicas from the prompt's key on, by their place."""
        if not ask.marks:
            fewest = fewest_in_flight(replicas)
            return candidates_at(ask, fewest, [0.0] * len(fewest), now)
        if replicas is not self._on_ring:
            self._ring.add(replica.name for replica in replicas)
            self._on_ring = replicas
        walked, costs = self._walk(ask.marks[:KEY_BLOCKS][-1], replicas)
        return candidates_at(ask, walked, costs, now)

    def chosen(self, replica: str) -> None:
        """Nothing to remember."""

    def left(self, replica: str) -> None:
        """Its keys go to those that follow it on the ring."""
        self._ring.remove(replica)
        self._on_ring = None

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The place, and what is added at the bound."""
        place = candidate.cost % BEHIND_ALL
        return (
            CostTerm("from its prefix", place, "places"),
            CostTerm("at its load bound", candidate.cost - place, "places"),
        )

    def _walk(self, key: int, replicas: list[Replica]) -> tuple[list[Replica], list[float]]:
        """Those met first on the ring, one below its bound among them, and their costs."""
        bound = load_bound(sum([replica.in_flight for replica in replicas]), len(replicas))
        walked, costs, is_free = list[Replica](), list[float](), False
        for name in self._ring.walk(key):
            position = bisect_left(replicas, name, key=_name)
            if position == len(replicas) or replicas[position].name != name:
                continue
            replica = replicas[position]
            is_below = replica.in_flight < bound
            costs.append(len(walked) + (0.0 if is_below else BEHIND_ALL))
            walked.append(replica)
            is_free = is_free or is_below
            if is_free and len(walked) >= ENOUGH:
                break
        return walked, costs


def load_bound(in_flight: int, replicas: int) -> int:
    """Requests that a replica may have, the new one included: `LOAD_PERCENT` of the mean, rounded
    up. So at least one replica is always below it.
    """
    return -(-LOAD_PERCENT * (in_flight + 1) // (100 * replicas))


def _name(replica: Replica) -> str:
    return replica.name


POLICY = PrefixHash
