"""Whether the targets were met, in a line, and the exit code that says the same.

A run is judged only if it can be trusted. Where the generator itself was late, its delay is in
every figure, so the headline says that first, and the exit code is that of a run that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from headrace.bench.figures.confidence import least_requests, wilson
from headrace.bench.figures.slo import WHOLE, Slo
from headrace.bench.record import RunInfo
from headrace.core.durations import in_words

MET_CODE, NOT_MET_CODE = 0, 1
WORDS = "words"
"""How prompts are sized where nothing else tells."""
STOPPED_S = 0.1
"""A standstill of the generator's process worth a line."""
OFF_SHARE = 0.05
"""Prompts or answers that are off the plan by more than this are another load."""
ONE_PIECE_S = 1e-4
"""Seconds per token of a stream that nothing decodes so fast: its tokens were held back."""

ONE_PIECE = (
    "at least half of the answers came in one piece: something on the way holds streams back, such "
    "as a proxy that buffers, so TTFT is the time of the whole answer, and TPOT says nothing"
)
WHOLE_ANSWERS = (
    "answers were not streamed and have no TTFT: what came within the TTFT target is their end"
)


@dataclass(frozen=True, slots=True)
class Judged:
    """How the requests of one tier did."""

    tier: str
    slo: Slo
    met: int
    judged: int
    failed: int
    met_but_for_lag: int = 0
    """Of those that missed, who did so only by leaving late."""

    @property
    def is_met_but_for_lag(self) -> bool:
        """Enough would have met every target, had the generator been on time."""
        return self.met + self.met_but_for_lag >= self.slo.share * self.judged

    @property
    def is_met(self) -> bool:
        """Enough of them met every target."""
        return self.margin >= 0.0

    @property
    def margin(self) -> float:
        """By how much the share is above the one wanted; below it, negative."""
        return (self.met / self.judged if self.judged else -1.0) - self.slo.share

    def in_words(self) -> str:
        """`interactive: 98.2 % of 1,200 within TTFT 1.00 s (99 % wanted), 3 failed`."""
        name = f"{self.tier}: " if self.tier else ""
        if not self.judged:
            return f"{name}no request to judge"
        near, wanted = wilson(self.met, self.judged), self.slo.in_words()
        said = (
            f"{name}{_percent(self.met / self.judged)} of {self.judged:,} requests "
            f"{'gave' if wanted == WHOLE else 'met'} {wanted} ({self.slo.share * 100:g} % wanted; "
            f"95 % interval {_percent(near.low)} to {_percent(near.high)})"
        )
        return f"{said}, {self.failed:,} failed" if self.failed else said

    def doubt(self) -> str:
        """What to say where so few requests show nothing, however good they are; or nothing."""
        least = least_requests(self.slo.share)
        if not self.is_met or self.judged >= least:
            return ""
        name = f"{self.tier}: " if self.tier else ""
        return (
            f"{name}so few requests ({self.judged:,}) do not show {self.slo.share * 100:g} %: that "
            f"takes {least:,} or more"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer; `lines` are the tiers that it does not name, and what casts doubt on it."""

    met: bool
    valid: bool
    headline: str
    lines: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: met, in a run that can be trusted. 1: anything else."""
        return MET_CODE if self.met and self.valid else NOT_MET_CODE


def verdict_of(
    tiers: Sequence[Judged], info: RunInfo, median_tpot_s: float | None = None
) -> Verdict:
    """Judge a run by its tiers; there is one at least. `median_tpot_s` is that of all answers."""
    met = all(tier.is_met for tier in tiers)
    lines = [tier.in_words() for tier in tiers]
    reason = "" if info.valid else info.invalid_reason or "the generator was at fault"
    own = sum(tier.met_but_for_lag for tier in tiers)
    if own and not met and not reason and all(tier.is_met_but_for_lag for tier in tiers):
        reason = f"the generator was late: {own:,} requests missed their targets by that alone"
    if reason:
        headline = f"INVALID RUN: {reason}"
    else:
        worst = min(tiers, key=lambda tier: tier.margin)
        headline = f"{'MET' if met else 'NOT MET'}: {worst.in_words()}"
        lines.remove(worst.in_words())
    if info.interrupted:
        headline += " (interrupted: what still ran counts only if it had missed a target)"
    times = (
        [] if info.streamed or all(tier.slo.ttft_s == inf for tier in tiers) else [WHOLE_ANSWERS]
    )
    if info.streamed and median_tpot_s is not None and median_tpot_s < ONE_PIECE_S:
        times.append(ONE_PIECE)
    few = [] if reason else [doubt for tier in tiers if (doubt := tier.doubt())]
    return Verdict(
        met, not reason, headline, (*lines, *times, *few, *_doubts(info, valid=not reason))
    )


def _doubts(info: RunInfo, *, valid: bool) -> list[str]:
    """What a reader of the figures must know."""
    lag, doubts = info.lag, list[str]()
    if lag.stopped_s > STOPPED_S:
        doubts.append(
            f"the generator stood still for {in_words(lag.stopped_s)} or more: what came meanwhile "
            "was read late"
        )
    if not valid and lag.late_share > 0:
        doubts.append(
            f"the generator sent {_percent(lag.late_share)} of its requests more than "
            f"{in_words(lag.late_after_s)} late (p99 {in_words(lag.p99_s)}, "
            f"longest {in_words(lag.max_s)}): its own delay is in these figures"
        )
    doubts += _lengths(info)
    if info.without_usage:
        doubts.append(
            f"{info.without_usage:,} answers had no usage: their output tokens are chunks counted"
        )
    if info.odd_usage:
        doubts.append(
            f"{info.odd_usage:,} answers had a usage that cannot be and is not believed: their "
            "tokens are counted as without it"
        )
    return doubts


def _lengths(info: RunInfo) -> list[str]:
    """What to say where the load was another one than planned."""
    found = list[str]()
    prompts, answers = info.input_of_planned, info.output_of_planned
    if prompts is not None and abs(prompts - 1.0) > OFF_SHARE:
        remedy = "; --tokenizer FILE sizes them exactly" if info.tokens_by == WORDS else ""
        found.append(
            f"prompts had {prompts * 100:.0f} % of the tokens planned (sized by {info.tokens_by})"
            f"{remedy}"
        )
    if answers is not None and answers < 1.0 - OFF_SHARE and not info.natural_ends:
        found.append(
            f"answers had {answers * 100:.0f} % of the tokens planned: the endpoint ends them "
            "sooner, and longer ones would load it more (--natural-ends says that this is meant)"
        )
    if answers is not None and answers > 1.0 + OFF_SHARE:
        found.append(
            f"answers had {answers * 100:.0f} % of the tokens planned: the endpoint does not keep "
            "to max_tokens"
        )
    return found


def _percent(share: float) -> str:
    """Two decimals near a whole, where a tenth of a per cent is many requests."""
    if 0.9999 < share < 1.0:
        return "over 99.99 %"
    return f"{share * 100:.2f} %" if 0.99 <= share < 1.0 else f"{share * 100:.1f} %"
