"""Distributions of times: mean, percentiles, maximum.

    percentile(q) = value at place q · (n − 1) of the ranked values, between neighbours linearly

That is the definition of numpy and of `headrace simulate` (rank type 7 of Hyndman and Fan, 1996).
Gaps between tokens are too many to rank one by one: they are counted by whole microseconds, which
is exact enough for a time that a network measured, and needs memory only for different values.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import mul

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_PER_SECOND = 1e6
_MIDDLE = 0.5
"""A gap of n counts is between n and n + 1 microseconds: it is taken for the middle."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of seconds; all zero where there was nothing to measure."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


def distribution(values: Iterable[float]) -> Distribution:
    """Of the values, in any order."""
    ranked = sorted(values)
    if not ranked:
        return Distribution()
    mean = sum(ranked) / len(ranked)
    places = {name: percentile(ranked, share) for name, share in PERCENTILES.items()}
    return Distribution(count=len(ranked), mean=mean, **places, max=ranked[-1])


def percentile(ranked: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the ranked ones lie; there must be one or more."""
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)


class GapCounts:
    """How often each gap between tokens occurred, in whole microseconds."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, gaps_s: Iterable[float]) -> None:
        """Count some gaps, in seconds."""
        self._counts.update(map(int, map(mul, gaps_s, repeat(_PER_SECOND))))

    def merge(self, other: GapCounts) -> None:
        """Count those of another one, too."""
        self._counts.update(other._counts)

    def distribution(self) -> Distribution:
        """Of all that were counted."""
        total = self._counts.total()
        if not total:
            return Distribution()
        places = dict(zip(PERCENTILES, self._at(PERCENTILES.values()), strict=True))
        mean = sum(gap * count for gap, count in self._counts.items()) / total
        longest = (max(self._counts) + _MIDDLE) / _PER_SECOND
        return Distribution(total, (mean + _MIDDLE) / _PER_SECOND, **places, max=longest)

    def spread(self, points: int) -> list[float]:
        """So many of them, from the shortest to the longest, evenly spread over their ranks."""
        return self._at(number / (points - 1) for number in range(points)) if self._counts else []

    def _at(self, shares: Iterable[float]) -> list[float]:
        """The percentiles at these shares of all."""
        total, gaps = self._counts.total(), sorted(self._counts)
        upto = list(accumulate(self._counts[gap] for gap in gaps))  # `gaps[k]` fills places below
        found: list[float] = []
        for share in shares:
            place = share * (total - 1)
            below = gaps[bisect_right(upto, int(place))]
            above = gaps[bisect_right(upto, min(int(place) + 1, total - 1))]
            at = below + (above - below) * (place - int(place))
            found.append((at + _MIDDLE) / _PER_SECOND)
        return found
