"""What is measured per model, pool and replica, and the bound on how many of them there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from headrace.core.model import Endpoint, Outcome
from headrace.gateway.metrics.histogram import (
    ITL_BOUNDS_S,
    TPOT_BOUNDS_S,
    TTFT_BOUNDS_S,
    Histogram,
)
from headrace.gateway.metrics.tokens import SettledCounter
from headrace.gateway.metrics.windows import RollingQuantile, RollingRate


class SeriesKey(NamedTuple):
    """The labels every `llm_*` metric has."""

    model_id: str
    pool: str
    replica: str


OVERFLOW = SeriesKey("other", "other", "other")
"""Where the rest is counted once there are too many: sums stay true, only the split is lost."""


class Series:
    """All accumulators of one model on one replica."""

    __slots__ = (
        "aborted_output_tokens",
        "cached_tokens",
        "dispatched",
        "in_flight",
        "input_tokens",
        "itl",
        "key",
        "output_rate",
        "output_tokens",
        "requests",
        "retries",
        "tpot",
        "tpot_recent",
        "ttft",
        "ttft_recent",
        "usage_missing",
    )

    def __init__(self, key: SeriesKey) -> None:
        self.key = key
        self.ttft = Histogram(TTFT_BOUNDS_S)
        self.tpot = Histogram(TPOT_BOUNDS_S)
        self.itl = Histogram(ITL_BOUNDS_S)
        self.ttft_recent = RollingQuantile()
        self.tpot_recent = RollingQuantile()
        self.input_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = SettledCounter()
        self.output_rate = RollingRate()
        self.aborted_output_tokens = 0
        self.dispatched = 0
        self.in_flight = 0
        self.requests: dict[tuple[Endpoint, Outcome], int] = {}
        self.retries: dict[Outcome, int] = {}
        self.usage_missing: dict[Endpoint, int] = {}

    def count_output(self, tokens: int, now: float) -> None:
        """Add output tokens; a negative number takes back what was counted too much."""
        self.output_rate.add(self.output_tokens.add(tokens), now)

    def observe_ttft(self, ttft_s: float, now: float, times: int = 1) -> None:
        """Take in one request's time to first token, or so many alike; -1 takes one back."""
        self.ttft.observe(ttft_s, times)
        self.ttft_recent.observe(ttft_s, now, times)

    def observe_tpot(self, tpot_s: float, now: float, times: int = 1) -> None:
        """Take in one request's mean time per output token, or so many alike."""
        self.tpot.observe(tpot_s, times)
        self.tpot_recent.observe(tpot_s, now, times)


class SeriesTable:
    """Series by key, never more than `limit` and one for the overflow."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.known: dict[tuple[str, str, str], Series] = {}
        """What there is, by the fields of its key: a plain tuple is made faster than a key."""
        self.overflows = 0

    def get(self, key: SeriesKey) -> Series:
        """The series of a key, made if there is room, else the overflow's."""
        series = self.known.get(key)
        if series is None:
            if len(self.known) >= self.limit and key != OVERFLOW:
                self.overflows += 1
                return self.get(OVERFLOW)
            series = self.known[key] = Series(key)
        return series

    def in_flight(self, replica: str) -> int:
        """Attempts that still run on a replica."""
        return sum(each.in_flight for each in self if each.key.replica == replica)

    def forget_replica(self, replica: str) -> None:
        """Drop everything about a replica that left."""
        for series in [series for series in self if series.key.replica == replica]:
            del self.known[series.key]

    def __iter__(self) -> Iterator[Series]:
        """Series in the order in which they were first seen."""
        return iter(self.known.values())

    def __len__(self) -> int:
        return len(self.known)
