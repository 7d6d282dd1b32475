"""What came of a run, in columns: records are read once, and all figures follow from the columns.

    TTFT   of every request that got a first token, from its intended time
    TPOT   of every whole answer with two tokens or more: (last − first token) / (tokens − 1)
    ITL    every gap between the tokens of whole answers
    E2E    of every whole answer, from its intended time to its end

A request that left on purpose counts into TTFT and into nothing else. `Group` is a set of requests
with the same class of length, tier and replica, or several of them together.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf

from headrace.bench.figures.percentiles import GapCounts
from headrace.bench.figures.slo import MET, Slos
from headrace.bench.record import Record

GroupKey = tuple[str, str, str]
"""Length class, tier, replica."""


class Group:
    """Columns of some requests. Times are seconds; a row per request that has the figure."""

    __slots__ = (
        "cached_known_tokens",
        "cached_tokens",
        "e2e_s",
        "errors",
        "examples",
        "gaps",
        "input_tokens",
        "interrupted",
        "left",
        "met_but_for_lag",
        "outcomes",
        "output_tokens",
        "requests",
        "tpot_s",
        "ttft_s",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.left = 0
        self.interrupted = 0
        self.outcomes: Counter[str] = Counter()
        """Of all that did not leave, by the name of what came of them."""
        self.met_but_for_lag = 0
        """Of those that missed, who did so only by leaving late."""
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        """What was said of the first error of each kind."""
        self.ttft_s = array("d")
        self.tpot_s = array("d")
        self.e2e_s = array("d")
        self.gaps = GapCounts()
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0
        self.cached_known_tokens = 0
        """Input tokens of the requests whose usage said how many of them were cached."""

    def add(self, record: Record, outcome: str) -> None:
        """Count one request; `outcome` is what its targets say of it."""
        self.requests += 1
        intended_s, first_s = record.intended_s, record.first_token_s
        if first_s is not None:
            self.ttft_s.append(first_s - intended_s)
        self._add_tokens(record)
        if record.left:
            self.left += 1
            return
        self.outcomes[outcome] += 1
        if record.was_interrupted:
            self.interrupted += 1
            return
        if record.error:
            self.errors[record.error] += 1
            self.examples.setdefault(record.error, record.error_detail)
            return
        self.e2e_s.append(record.ended_s - intended_s)
        if (tpot_s := record.tpot_s) is not None:
            self.tpot_s.append(tpot_s)
        if record.itl_s:
            self.gaps.add(record.itl_s)

    def _add_tokens(self, record: Record) -> None:
        if record.status == 200:  # a prompt that was refused was not read
            self.input_tokens += record.input_tokens
        self.output_tokens += record.output_tokens
        if record.cached_tokens is not None:
            self.cached_tokens += record.cached_tokens
            self.cached_known_tokens += record.input_tokens

    def merge(self, other: Group) -> None:
        """Count the requests of another one, too."""
        self.requests += other.requests
        self.left += other.left
        self.interrupted += other.interrupted
        self.outcomes.update(other.outcomes)
        self.met_but_for_lag += other.met_but_for_lag
        self.errors.update(other.errors)
        self.examples = {**other.examples, **self.examples}
        self.ttft_s.extend(other.ttft_s)
        self.tpot_s.extend(other.tpot_s)
        self.e2e_s.extend(other.e2e_s)
        self.gaps.merge(other.gaps)
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens
        self.cached_known_tokens += other.cached_known_tokens


class Results:
    """All groups of a run, the smallest ones; each set that is asked for is put together."""

    def __init__(self, records: Iterable[Record], slos: Slos, late_after_s: float = inf) -> None:
        """`late_after_s`: who left later than this is late."""
        self._groups: dict[GroupKey, Group] = {}
        for record in records:
            key = (record.length_class, record.tier, record.replica)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group()
            slo = slos.of(record.tier)
            outcome = slo.outcome(record)
            group.add(record, outcome)
            if outcome != MET and not record.left and record.lag_s > late_after_s:
                group.met_but_for_lag += slo.is_met_but_for_lag(record)

    def all(self) -> Group:
        """Every request."""
        return _merged(self._groups.values())

    def by_length_class(self) -> dict[str, Group]:
        """By the name of the class, in order of names; empty where there is one without a name."""
        return self._by(lambda key: key[0])

    def by_tier(self) -> dict[str, Group]:
        """By the name of the tier."""
        return self._by(lambda key: key[1])

    def by_replica(self) -> dict[str, Group]:
        """By the replica that served them; those that none served are under an empty name."""
        return self._by(lambda key: key[2])

    def _by(self, name_of: Callable[[GroupKey], str]) -> dict[str, Group]:
        names = sorted({name_of(key) for key in self._groups})
        if names in ([], [""]):
            return {}
        return {
            name: _merged(group for key, group in self._groups.items() if name_of(key) == name)
            for name in names
        }


def _merged(groups: Iterable[Group]) -> Group:
    """One group as it stands, several together."""
    found = list(groups)
    if len(found) == 1:
        return found[0]
    merged = Group()
    for group in found:
        merged.merge(group)
    return merged
