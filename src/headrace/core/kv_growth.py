"""When a KV cache will be full if its usage goes on growing as it lately has."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

WINDOW: Final = 20
"""Samples to look back on: twenty seconds of scrapes by default. Longer than one step of a long
prompt, shorter than the rise it is to warn of."""
FEWEST: Final = 5
"""Samples below which nothing is said to grow."""


class KvSample(NamedTuple):
    """KV usage (0 to 1) as seen at `at_s`."""

    at_s: float
    usage_ratio: float


def exhaustion_s(samples: Sequence[KvSample], now: float) -> float:
    """Seconds from `now` until usage reaches 1: 0 when it has, infinite when it does not grow.

    `samples` are in the order of time. The growth is Sen's slope, the median of the slopes
    between all pairs (P. K. Sen, "Estimates of the regression coefficient based on Kendall's
    tau", 1968): up to 29 % of the samples may be far off, as when a long request ends and gives
    its blocks back, without pulling it along. It is taken from the last sample on.
    """
    if not samples:
        return inf
    last = samples[-1]
    if last.usage_ratio >= 1:
        return 0.0
    growth_per_s = _slope(samples) if len(samples) >= FEWEST else 0.0
    if growth_per_s <= 0:
        return inf
    return max(0.0, last.at_s + (1 - last.usage_ratio) / growth_per_s - now)


def _slope(samples: Sequence[KvSample]) -> float:
    """The median slope per second between any two samples of different times, 0 without two."""
    slopes = sorted(
        (later.usage_ratio - earlier.usage_ratio) / (later.at_s - earlier.at_s)
        for index, earlier in enumerate(samples)
        for later in samples[index + 1 :]
        if later.at_s > earlier.at_s
    )
    if not slopes:
        return 0.0
    middle = len(slopes) // 2
    return (slopes[middle] + slopes[-1 - middle]) / 2
