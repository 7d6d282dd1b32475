"""What is asked of a pool and how well it is served: totals that only grow, for a scaler.

    arrived ──► requests, tokens          ended ──► lengths, judged, misses
    shed    ──► refused for want of capacity

A request counts once, when it is first sent or held, whatever becomes of it. It misses a target
because of *load* unless something else explains it: its own prompt takes longer than the target
even on an idle replica, it had to be sent twice, or its replica broke it off.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import TYPE_CHECKING

from headrace.core.length_sketch import LengthCounter

if TYPE_CHECKING:
    from headrace.core.attempts import Attempt
    from headrace.core.events import Ended
    from headrace.core.flights import Flight

RECENT_S = 60.0
"""Ratios to the targets are those of the requests that ended so lately."""
MOST_RECENT = 512
WORST_SHARE = 0.9

_AT_FAULT = frozenset(("unavailable", "timed_out", "broken"))
_NOT_SERVED = frozenset(("refused", "cut"))
"""Outcomes that say nothing of how a request was served: its own fault, or the gateway's stop."""


class PoolDemand:
    """The totals of one pool, as this gateway sees them."""

    __slots__ = (
        "input_tokens",
        "judged",
        "lengths",
        "other_misses",
        "output_tokens",
        "requests",
        "shed_requests",
        "tpot_misses",
        "tpot_recent",
        "ttft_misses",
        "ttft_recent",
        "uncached_tokens",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.input_tokens = 0
        self.uncached_tokens = 0
        self.output_tokens = 0
        self.shed_requests = 0
        self.lengths = LengthCounter()
        self.judged = 0
        self.ttft_misses = 0
        self.tpot_misses = 0
        self.other_misses = 0
        self.ttft_recent = RecentRatios()
        self.tpot_recent = RecentRatios()

    def arrived(self, prompt_tokens: int, hit_tokens: int) -> None:
        """A request was sent for the first time, or held."""
        self.requests += 1
        self.input_tokens += prompt_tokens
        self.uncached_tokens += prompt_tokens - hit_tokens

    def ended(self, attempt: Attempt, event: Ended, flight: Flight, now: float) -> None:
        """The last attempt of a request is over. Its output tokens are counted elsewhere."""
        outcome = event.outcome.value
        if outcome in _NOT_SERVED:
            return
        if outcome in _AT_FAULT:
            self.judged += 1
            self.other_misses += 1
            return
        output_tokens = event.counted_output_tokens
        usage, pool = event.usage, attempt.replica.pool
        if usage is None:
            self.lengths.add(attempt.prompt_tokens, attempt.hit_tokens, output_tokens)
        else:
            hit_tokens = usage.cached_tokens if pool.reports_cached else attempt.hit_tokens
            hit_tokens = min(hit_tokens, usage.input_tokens)
            self.lengths.add(usage.input_tokens, hit_tokens, output_tokens)
        if attempt.is_timed and attempt.first_token_s is not None:
            ttft_s = attempt.first_token_s - flight.arrived_s
            self._judge(attempt, flight, ttft_s, attempt.tpot_s(output_tokens, now), now)

    def _judge(
        self, attempt: Attempt, flight: Flight, ttft_s: float, tpot_s: float | None, now: float
    ) -> None:
        ttft_ratio = ttft_s / flight.ttft_target_s
        tpot_ratio = 0.0 if tpot_s is None else tpot_s / flight.tpot_target_s
        self.judged += 1
        self.ttft_recent.add(ttft_ratio, now)
        if tpot_s is not None:
            self.tpot_recent.add(tpot_ratio, now)
        if ttft_ratio <= 1.0 and tpot_ratio <= 1.0:
            return
        if len(flight.attempts) > 1 or _too_long_anyway(attempt, flight):
            self.other_misses += 1
        elif ttft_ratio > 1.0:
            self.ttft_misses += 1
        else:
            self.tpot_misses += 1


def _too_long_anyway(attempt: Attempt, flight: Flight) -> bool:
    """Whether the prompt alone takes longer than the TTFT that is wanted."""
    profile = attempt.replica.pool.latency.profile
    if profile is None:
        return False
    alone_s = profile.prefill_s(attempt.uncached_tokens, attempt.hit_tokens)
    return alone_s > flight.ttft_target_s


class RecentRatios:
    """Measured ÷ promised of the requests that ended in the last `RECENT_S`."""

    __slots__ = ("_ratios",)

    def __init__(self) -> None:
        self._ratios: deque[tuple[float, float]] = deque(maxlen=MOST_RECENT)

    def add(self, ratio: float, now: float) -> None:
        """Take in one request's."""
        self._ratios.append((now, ratio))

    def worst(self, now: float) -> float:
        """The p90 of them, 0 if there are none."""
        recent = sorted(ratio for at_s, ratio in self._ratios if at_s > now - RECENT_S)
        return recent[ceil(WORST_SHARE * len(recent)) - 1] if recent else 0.0
