"""What a request must meet to be goodput, by tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from headrace.bench.record import Record
from headrace.core.durations import in_words

MET, FAILED, TTFT, TPOT, E2E, OPEN = "met", "failed", "ttft", "tpot", "e2e", "open"
"""What came of a request: every target met, no whole answer, the first target it missed, or nobody
knows: somebody stopped the run before it had missed one."""
OUTCOMES = (MET, FAILED, TTFT, TPOT, E2E, OPEN)
FARTHEST = 2.0
"""A latency of so many targets, or more, and a failure: missed is missed."""
WHOLE = "a whole answer"
"""What is asked for where there is no target."""


@dataclass(frozen=True, slots=True)
class Slo:
    """Targets of one tier; what is infinite asks for nothing."""

    ttft_s: float = inf
    """Intended sending to first token."""
    tpot_s: float = inf
    """Mean seconds per output token after the first; answers of one token have none to meet."""
    e2e_s: float = inf
    """Intended sending to the end of the answer."""
    share: float = 0.99
    """So many of the requests must meet all of them, from 0 to 1."""

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} is {getattr(self, name):g}; give more than 0 seconds")
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share is {self.share:g}; give a number between 0 and 1")

    def outcome(self, record: Record) -> str:
        """One of `OUTCOMES`. An answer that is not streamed has its first token at its end."""
        if record.error and not record.was_interrupted:
            return FAILED
        ttft_s, e2e_s = record.ttft_s, record.ended_s - record.intended_s
        if (e2e_s if ttft_s is None else ttft_s) > self.ttft_s:
            return TTFT
        if record.was_interrupted:
            return E2E if e2e_s > self.e2e_s else OPEN
        tpot_s = record.tpot_s
        if tpot_s is not None and tpot_s > self.tpot_s:
            return TPOT
        return E2E if e2e_s > self.e2e_s else MET

    def is_met_but_for_lag(self, record: Record) -> bool:
        """Whether it missed its targets only as it left late: the generator's fault."""
        e2e_s, ttft_s, tpot_s = record.e2e_s, record.ttft_s, record.tpot_s
        return (
            not record.error
            and (e2e_s if ttft_s is None else ttft_s) - record.lag_s <= self.ttft_s
            and (tpot_s is None or tpot_s <= self.tpot_s)
            and e2e_s - record.lag_s <= self.e2e_s
        )

    def nearness(self, record: Record) -> float:
        """Latency ÷ target, of the target that it came nearest to; `FARTHEST` at most."""
        if record.error:
            return FARTHEST
        e2e_s, ttft_s, tpot_s = record.e2e_s, record.ttft_s, record.tpot_s
        return min(
            FARTHEST,
            max(
                (e2e_s if ttft_s is None else ttft_s) / self.ttft_s,
                0.0 if tpot_s is None else tpot_s / self.tpot_s,
                e2e_s / self.e2e_s,
            ),
        )

    def in_words(self) -> str:
        """`TTFT 2.00 s, TPOT 50.0 ms`; `a whole answer` where there is no target."""
        targets = (("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("E2E", self.e2e_s))
        return ", ".join(f"{name} {in_words(at)}" for name, at in targets if at < inf) or WHOLE


@dataclass(frozen=True, slots=True)
class Slos:
    """The targets of each tier, and those of requests whose tier has none of its own."""

    default: Slo = field(default_factory=Slo)
    tiers: Mapping[str, Slo] = field(default_factory=dict[str, Slo])

    def of(self, tier: str) -> Slo:
        """The targets of a tier."""
        return self.tiers.get(tier, self.default)

    def highest_share(self) -> float:
        """The strictest share that any tier asks for."""
        return max(slo.share for slo in (self.default, *self.tiers.values()))
