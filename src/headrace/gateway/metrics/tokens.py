"""Counting tokens while they stream, so that the totals are the engine's own in the end."""

from __future__ import annotations

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
    chunks and t tokens says that a chunk holds between (t - 1)/c and t/c tokens; while 1 lies
    within what recent streams say, the ratio is exactly 1, the case of every engine without
    speculative decoding. Old streams fade with a factor per stream, since the acceptance of
    drafts changes with the traffic.
    """

    FADE = 0.98

    __slots__ = ("_chunks", "_end_tokens", "_tokens")

    def __init__(self) -> None:
        self._chunks = 0.0
        self._tokens = 0.0
        self._end_tokens = 0.0

    def learn(self, chunks: int, output_tokens: int) -> None:
        """Take in one completed stream."""
        if chunks <= 0 or output_tokens <= 0:
            return
        self._chunks = self._chunks * self.FADE + chunks
        self._tokens = self._tokens * self.FADE + output_tokens
        self._end_tokens = self._end_tokens * self.FADE + 1

    @property
    def value(self) -> float:
        """Tokens per chunk; 1 before anything was learned."""
        if not self._chunks:
            return 1.0
        most = self._tokens / self._chunks
        least = (self._tokens - self._end_tokens) / self._chunks
        return min(max(1.0, least), most)

    def at_most(self, chunks: int) -> int:
        """Tokens in so many chunks, rounded down: the live count stays behind rather than ahead."""
        return floor(chunks * self.value)

    def at_least(self, chunks: int) -> int:
        """Tokens in so many chunks for a stream cut short: never below what was relayed."""
        ratio = self.value
        return floor(chunks * ratio) if ratio >= 1 else ceil(chunks * ratio)
