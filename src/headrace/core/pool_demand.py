"""What is asked of a pool and how well it is served: totals that only grow, for a scaler.

    arrived ──► requests, tokens          served ──► lengths, judged, misses
    shed    ──► refused for want of capacity
    refused ──► by an engine, for a fault of its own: of what arrived, no work

A request counts once, when it is first sent or held, whatever becomes of it. It misses a target
because of *load* unless something else explains it: its own prompt takes longer than the target
even on an idle replica, it had to be sent twice, or its replica broke it off.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import TYPE_CHECKING, Final, TypeAlias

from headrace.core.length_counter import LengthCounter

if TYPE_CHECKING:
    from headrace.core.attempts import Attempt
    from headrace.core.events import Ended
    from headrace.core.flights import Flight
    from headrace.core.model import Outcome

RECENT_S: Final = 60.0
"""Ratios to the targets are those of the requests that ended so lately."""
MOST_RECENT: Final = 512
WORST_SHARE: Final = 0.9

_SAYS_NOTHING = ("refused", "cut")
Ratios: TypeAlias = deque[tuple[float, float]]


class PoolDemand:
    """The totals of one pool, as this gateway sees them."""

    __slots__ = (
        "input_tokens",
        "judged",
        "lengths",
        "other_misses",
        "output_tokens",
        "refused_input_tokens",
        "refused_requests",
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
        self.refused_requests = 0
        self.refused_input_tokens = 0
        self.lengths = LengthCounter()
        self.judged = 0
        self.ttft_misses = 0
        self.tpot_misses = 0
        self.other_misses = 0
        self.ttft_recent = recent_ratios()
        self.tpot_recent = recent_ratios()

    def arrived(self, prompt_tokens: int, hit_tokens: int) -> None:
        """A request was sent for the first time, or held."""
        self.requests += 1
        self.input_tokens += prompt_tokens
        self.uncached_tokens += prompt_tokens - hit_tokens

    def refused(self, prompt_tokens: int) -> None:
        """An engine refused a request that had arrived, for a fault of its own."""
        self.refused_requests += 1
        self.refused_input_tokens += prompt_tokens

    def not_served(self, outcome: Outcome) -> None:
        """A request has ended otherwise. One that was wrong itself, or cut when the gateway stops,
        says nothing of the pool; the others were broken off by a replica, or none was reached.
        """
        if outcome not in _SAYS_NOTHING:
            self.judged += 1
            self.other_misses += 1

    def served(
        self, attempt: Attempt, event: Ended, flight: Flight, output_tokens: int, now: float
    ) -> None:
        """A request has ended, completed or left by its client. Its output tokens are counted
        elsewhere.
        """
        usage = event.usage
        if usage is None:
            self.lengths.add(attempt.prompt_tokens, attempt.hit_tokens, output_tokens)
        else:
            input_tokens, hit_tokens = usage.input_tokens, usage.cached_tokens
            if not attempt.replica.pool.reports_cached:
                hit_tokens = min(attempt.hit_tokens, input_tokens)
            self.lengths.add(input_tokens, hit_tokens, output_tokens)
        first_token_s = attempt.first_token_s
        if not attempt.is_timed or first_token_s is None:
            return
        self.judged += 1
        ttft_ratio = (first_token_s - flight.arrived_s) / flight.ttft_target_s
        self.ttft_recent.append((now, ttft_ratio))
        tpot_ratio = 0.0
        tpot_s = attempt.tpot_s(output_tokens, now)
        if tpot_s is not None:
            tpot_ratio = tpot_s / flight.tpot_target_s
            self.tpot_recent.append((now, tpot_ratio))
        if ttft_ratio > 1.0 or tpot_ratio > 1.0:
            self._missed(attempt, flight, late=ttft_ratio > 1.0)

    def _missed(self, attempt: Attempt, flight: Flight, *, late: bool) -> None:
        if len(flight.attempts) > 1 or _too_long_anyway(attempt, flight):
            self.other_misses += 1
        elif late:
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


def recent_ratios() -> Ratios:
    """Room for the newest measured ÷ promised of requests, each with the time of its end."""
    return deque(maxlen=MOST_RECENT)


def worst(ratios: Ratios, now: float) -> float:
    """The p90 of those of the last `RECENT_S`, 0 if there are none."""
    recent = sorted(ratio for at_s, ratio in ratios if at_s > now - RECENT_S)
    return recent[ceil(WORST_SHARE * len(recent)) - 1] if recent else 0.0
