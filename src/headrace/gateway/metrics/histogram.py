"""Cumulative histograms cheap enough for every relayed chunk.

prometheus_client's own cost several times more per observation, because they lock and look
labels up; these are plain lists that the exporter copies when it is asked.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf

# fmt: off
TTFT_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0,
    15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0,
)
"""From a cached prompt on a small model to minutes in a queue before a 100k-token prefill."""

TPOT_BOUNDS_S = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.075,
    0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5,
)
"""Fine where objectives lie (10 to 100 ms); 1 ms is speculative decoding on fast hardware."""

ITL_BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15,
    0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)
"""Like TPOT's, and up to the stalls that a mean over the request would hide."""
# fmt: on


class Histogram:
    """Counts per bucket and their sum, in the unit of the bounds.

    `counts[i]` holds observations v with bounds[i-1] < v <= bounds[i]; the last one what is
    above every bound. A hot path may bump `counts` and `total` itself.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def count_gaps(self, times: list[float], since: float) -> float:
        """Count the gap before each of these times, the first one `since` then; return the last.

        From one gap to the next the bucket is the same or one nearby, so it is looked for there.
        """
        bounds, counts = self.bounds, self.counts
        last, top = since, len(bounds)
        bucket = found = 0
        low, high = -inf, bounds[0]  # the bucket's ends
        for now in times:
            gap = now - last
            last = now
            if gap > high or gap <= low:
                counts[bucket] += found
                found = 0
                while bucket < top and gap > bounds[bucket]:
                    bucket += 1
                while bucket > 0 and gap <= bounds[bucket - 1]:
                    bucket -= 1
                low = bounds[bucket - 1] if bucket > 0 else -inf
                high = bounds[bucket] if bucket < top else inf
            found += 1
        counts[bucket] += found
        self.total += last - since
        return last

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)
