"""One rate of a sweep: its runs, and whether they show that the targets are met there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from headrace.bench.figures.confidence import Interval, design_effect, least_requests, wilson
from headrace.bench.figures.percentiles import percentile
from headrace.bench.figures.scores import Scores, Summary, summarise
from headrace.bench.figures.slo import OPEN, Slo, Slos
from headrace.bench.record import Record, RunInfo

MET, NOT_MET, UNDECIDED, INVALID = "met", "not met", "undecided", "invalid"
"""INVALID: the generator was late in every run, so nothing was learned of the engine."""
GROWTH_SHARE = 0.25
"""Of the target of TTFT: if the median grew by more in the second half, a queue was building up."""
GROWTH_REQUESTS = 40
"""Fewer tell no trend."""


class Run(Protocol):
    """A run as the sweep needs it."""

    @property
    def records(self) -> Sequence[Record]:
        """Of all its requests."""
        ...

    @property
    def info(self) -> RunInfo:
        """What it was."""
        ...


@dataclass(frozen=True, slots=True)
class Count:
    """Requests of one tier in one run."""

    met: int
    judged: int
    alone: float
    """So many requests, each drawn alone, would tell as much."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run at a rate."""

    seed: int
    summary: Summary
    tiers: dict[str, Count]
    growing: bool
    """TTFT was still growing at its end: a longer run may well miss the targets."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """A run without some of its records."""

    records: Sequence[Record]
    info: RunInfo


def without_backlog(run: Run, slos: Slos) -> Run:
    """From the first request on that met its targets; all of them if none did.

    What came before waited for what an engine still did of an earlier run: some go on working for
    clients that have left.
    """
    records = sorted(run.records, key=lambda record: record.intended_s)
    for place, record in enumerate(records):
        if slos.of(record.tier).outcome(record) == MET:
            return _Rest(records[place:], run.info)
    return run


def trial_of(seed: int, run: Run, slos: Slos) -> Trial:
    """Judge one run."""
    met: dict[str, list[bool]] = {}
    for record in sorted(run.records, key=lambda record: record.intended_s):
        outcome = slos.of(record.tier).outcome(record)
        if not record.left and outcome != OPEN:
            met.setdefault(record.tier, []).append(outcome == MET)
    return Trial(
        seed=seed,
        summary=summarise(run.records, run.info, slos),
        tiers={
            tier: Count(sum(flags), len(flags), len(flags) / design_effect(flags))
            for tier, flags in sorted(met.items())
        },
        growing=is_growing(run.records, slos),
    )


@dataclass(frozen=True, slots=True)
class Look:
    """A run that is too short to show anything, on the way to where the search begins."""

    rate_rps: float
    trial: Trial
    slos: Slos

    @property
    def is_met(self) -> bool:
        """Whether a higher rate is worth a look."""
        met = all(
            count.met >= self.slos.of(tier).share * count.judged
            for tier, count in self.trial.tiers.items()
        )
        return bool(self.trial.tiers) and met and self.is_valid

    @property
    def is_valid(self) -> bool:
        """Whether the generator was in time."""
        return self.trial.summary.verdict.valid


@dataclass(frozen=True, slots=True)
class Step:
    """All runs at one rate, and what they show together."""

    rate_rps: float
    trials: tuple[Trial, ...]
    state: str
    """`MET`, `NOT_MET`, `UNDECIDED` or `INVALID`."""
    reason: str
    """Why it is so, in words."""
    goodput_share: float
    goodput_interval: Interval
    chance: float | None = None
    """That this judgement is wrong, at most; None: it is one of the search, which claims nothing of
    its answer. See `proof`."""

    @property
    def is_shown(self) -> bool:
        """Decided as a part of the answer."""
        return self.chance is not None and self.state in {MET, NOT_MET}

    @property
    def scores(self) -> Scores:
        """Of `summary`."""
        return self.summary.all

    @property
    def summary(self) -> Summary:
        """Of the run whose goodput is the middle one; of two the worse."""
        valid = [trial for trial in self.trials if trial.summary.verdict.valid] or self.trials
        ranked = sorted(valid, key=lambda trial: trial.summary.all.goodput_share)
        return ranked[(len(ranked) - 1) // 2].summary


def step_of(rate_rps: float, trials: Sequence[Trial], slos: Slos, confidence: float) -> Step:
    """Judge a rate by its runs, of which there is one at least.

    Runs in which the generator was late say nothing of the engine; they count only where there
    are no others.
    """
    valid = [trial for trial in trials if trial.summary.verdict.valid]
    counts = _counts(valid or trials)
    state, reason = _judge(valid, counts, slos, confidence)
    if not valid:
        state, reason = INVALID, trials[-1].summary.verdict.headline.removeprefix("INVALID RUN: ")
    every = [count for tier in counts.values() for count in tier]
    judged = sum(count.judged for count in every)
    return Step(
        rate_rps=rate_rps,
        trials=tuple(trials),
        state=state,
        reason=reason,
        goodput_share=sum(count.met for count in every) / judged if judged else 0.0,
        goodput_interval=_interval(every, confidence),
    )


def _counts(trials: Sequence[Trial]) -> dict[str, list[Count]]:
    """Of each tier, by run."""
    counts: dict[str, list[Count]] = {}
    for trial in trials:
        for tier, count in trial.tiers.items():
            counts.setdefault(tier, []).append(count)
    return counts


def _interval(counts: Sequence[Count], confidence: float) -> Interval:
    """Of some runs together."""
    judged, alone = sum(count.judged for count in counts), sum(count.alone for count in counts)
    met = sum(count.met for count in counts)
    return wilson(met / judged * alone if judged else 0.0, alone, confidence)


def _judge(
    trials: Sequence[Trial], counts: Mapping[str, Sequence[Count]], slos: Slos, confidence: float
) -> tuple[str, str]:
    if not counts:
        return UNDECIDED, "no request to judge"
    found = [_judge_tier(tier, slos.of(tier), each, confidence) for tier, each in counts.items()]
    for wanted in (NOT_MET, UNDECIDED):
        if reasons := [reason for state, reason in found if state == wanted]:
            return wanted, "; ".join(reasons)
    if 2 * sum(trial.growing for trial in trials) > len(trials):
        return UNDECIDED, "TTFT was still growing at the end: longer runs would tell"
    return MET, "; ".join(reason for _, reason in found)


def _judge_tier(name: str, slo: Slo, counts: Sequence[Count], confidence: float) -> tuple[str, str]:
    met, judged = sum(count.met for count in counts), sum(count.judged for count in counts)
    interval = _interval(counts, confidence)
    said = (
        f"{f'{name}: ' if name else ''}{met:,} of {judged:,} met, "
        f"{interval.low * 100:.1f} to {interval.high * 100:.1f} % against {slo.share * 100:g} %"
    )
    sides = {count.met >= slo.share * count.judged for count in counts}
    if interval.high < slo.share and sides == {False}:
        return NOT_MET, said
    if interval.low >= slo.share and sides == {True}:
        return MET, said
    wanted = least_requests(slo.share, confidence)
    if judged < wanted and met == judged:
        return UNDECIDED, f"{said}: {wanted:,} requests are needed to show it"
    return UNDECIDED, f"{said}: runs with other seeds disagree" if len(sides) > 1 else said


def is_growing(records: Sequence[Record], slos: Slos) -> bool:
    """Whether TTFT (else E2E) grew through the run's second half, beyond what a target allows."""
    ranked = sorted(records, key=lambda record: record.intended_s)
    values = [
        record.e2e_s if (ttft_s := record.ttft_s) is None else ttft_s
        for record in ranked
        if not record.left
    ]
    if len(values) < GROWTH_REQUESTS:
        return False
    quarter = len(values) // 4
    before_s, after_s = (
        percentile(sorted(part), 0.5) for part in (values[quarter : 2 * quarter], values[-quarter:])
    )
    targets = (slos.default, *slos.tiers.values())
    target_s = min((slo.ttft_s for slo in targets), default=inf)
    room_s = GROWTH_SHARE * target_s if target_s < inf else before_s
    return after_s - before_s > room_s
