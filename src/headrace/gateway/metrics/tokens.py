"""Counting tokens while they stream, so that the totals are the engine's own in the end."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from itertools import accumulate
from math import ceil, floor


class SettledCounter:
    """A counter that never goes down, yet ends where the engine's own count ends.

    Live estimates are added as they come. When the final count of a request is below what was
    counted for it, the excess is a debt, taken off what is added next: the exported value stands
    still for a moment instead of falling, which Prometheus would read as a restart.
    """

    __slots__ = ("debt", "value")

    def __init__(self) -> None:
        self.value = 0
        self.debt = 0

    def add(self, amount: int) -> int:
        """Count `amount`, which may be negative; return how far the value went up."""
        amount -= self.debt
        if amount < 0:
            self.debt = -amount
            return 0
        self.debt = 0
        self.value += amount
        return amount


class ChunkRatio:
    """Output tokens per content chunk of a pool, learned from streams that brought their usage.

    An engine usually counts an end-of-sequence token that no chunk carries. So a stream of c
    chunks and t tokens says that a chunk holds between (t - 1)/c and t/c tokens; where 1 lies
    between, it says 1, the case of every engine without speculative decoding.

    The ratio is the median of what the last streams say, each weighted by its chunks. Tool calls
    and characters of many bytes come several tokens to a chunk; a mean would take the surplus of
    such streams over to all others.
    """

    STREAMS = 64
    """Streams remembered, since the acceptance of drafts changes with the traffic."""

    __slots__ = ("_recent", "_sorted", "value")

    def __init__(self) -> None:
        self.value = 1.0
        """Tokens per chunk; 1 before anything was learned."""
        self._recent: deque[tuple[float, int]] = deque()  # (ratio, chunks), oldest first
        self._sorted: list[tuple[float, int]] = []

    def learn(self, chunks: int, output_tokens: int) -> None:
        """Take in one completed stream."""
        if chunks <= 0 or output_tokens <= 0:
            return
        most, least = output_tokens / chunks, (output_tokens - 1) / chunks
        stream = (min(max(1.0, least), most), chunks)
        self._recent.append(stream)
        insort(self._sorted, stream)
        if len(self._recent) > self.STREAMS:
            oldest = bisect_left(self._sorted, self._recent.popleft())
            del self._sorted[oldest]
        least_of_all, most_of_all = self._sorted[0][0], self._sorted[-1][0]
        # As it is with every engine that sends each token by itself.
        self.value = most_of_all if least_of_all == most_of_all else self._median()

    def _median(self) -> float:
        weights = list(accumulate([chunks for _, chunks in self._sorted]))
        return self._sorted[bisect_left(weights, weights[-1] / 2)][0]

    def at_most(self, chunks: int) -> int:
        """Tokens in so many chunks, rounded down: the live count stays behind rather than ahead."""
        return floor(chunks * self.value)

    def at_least(self, chunks: int) -> int:
        """Tokens in so many chunks for a stream cut short: never below what was relayed."""
        ratio = self.value
        return floor(chunks * ratio) if ratio >= 1 else ceil(chunks * ratio)
