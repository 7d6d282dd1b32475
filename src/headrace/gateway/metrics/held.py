"""How long requests waited at the gateway for a replica with room, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from headrace.gateway.metrics.histogram import TTFT_BOUNDS_S, Histogram


class HeldResult(StrEnum):
    """How the waiting of a request ended; label values in metrics."""

    DISPATCHED = "dispatched"
    REJECTED = "rejected"
    """Answered with an error by the gateway: too late for its tier, or the gateway stops."""
    LEFT = "left"
    """The client went away."""


class HeldKey(NamedTuple):
    """The labels of one distribution."""

    model_id: str
    tier: str
    result: HeldResult


class HeldTimes:
    """Distributions of waiting times by key, never more than a limit and one for each result."""

    def __init__(self) -> None:
        self._histograms: dict[HeldKey, Histogram] = {}

    def observe(self, key: HeldKey, held_s: float, limit: int) -> None:
        """Count one request; under "other" where `limit` keys are known and this is another."""
        histogram = self._histograms.get(key)
        if histogram is None:
            if len(self._histograms) >= limit:
                key = HeldKey("other", "other", key.result)
            histogram = self._histograms.setdefault(key, Histogram(TTFT_BOUNDS_S))
        histogram.observe(held_s)

    def __iter__(self) -> Iterator[tuple[HeldKey, Histogram]]:
        """In the order in which they were first seen."""
        return iter(self._histograms.items())
