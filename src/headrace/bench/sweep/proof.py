"""Shows with what confidence the highest rate lies between two rates of a sweep.

A search picks rates by what it saw there, so what it saw is too good for the one it picked and too
bad for the next. Here the two are run anew, with seeds of their own and for longer:

    1. Attempt number k is at one rate, with a chance a_k to be wrong: Bonferroni's inequality makes
       it a statement on all attempts together, with confidence 1 − Σ a_k. The first two have more
       of it than those that follow where they show nothing, further out or in between.
    2. An attempt is two runs. After the first it may be over, at the price of O'Brien and Fleming
       (1979) in the spending function of Lan and DeMets (1983): a(t) = 2 − 2 Φ(z_{a/2} / √t).
    3. A rate is met, or not, if the interval of the goodput share of its runs lies on one side of
       the share wanted: Wilson's interval of as many requests as would tell as much if each were
       drawn alone, by batch means and Student's t (`confidence`). The first tenth of a run fills
       queue and caches of the engine, and is left out.

Each rate can be wrong in one way only, as it is above or below the true one, so the chance covers
both. It holds where a higher rate is never better, and where runs last for longer than a queue
remembers; `benchmarks/sweep_coverage.py` plays it against servers whose highest rate is known.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, inf, log, sqrt
from statistics import NormalDist

from headrace.bench.figures.confidence import Series, interval_of, least_requests
from headrace.bench.figures.slo import MET as MET_ALL
from headrace.bench.figures.slo import OPEN, Slos
from headrace.bench.sweep.step import (
    INVALID,
    MET,
    NOT_MET,
    UNDECIDED,
    Run,
    Step,
    Trial,
    step_of,
    trial_of,
)

SPENT = (0.3, 0.3, 0.15, 0.15, 0.1)
"""Of the chance to be wrong, by attempt."""
RUNS = 2
"""Of an attempt; those that the generator spoilt are made again, as many at most."""
WARM_UP_SHARE = 0.1
BELOW = 1.1
"""The first attempt is so many times below the highest rate that the search found to be met: it
picked the luckiest, and its runs are short."""
FURTHER = 1.2
"""Where an end shows nothing the next attempt is so many times further out, the one behind that so
many times the square."""
FURTHEST = 2.0
"""What the attempts so far say of where an end would show is followed so far at once, as the search
doubles: of rates that are all on one side of the true one a curve tells little beyond them, and
nobody wants his endpoint to be sent ten times what it can do."""
MARGIN = 2.0
"""An attempt has so many times the requests that would show a rate met if none missed."""

FLATTEST = -2.0
"""Of the power: the odds to meet fall with the rate at least so fast."""
MOST_ODDS = 500.0
"""Of the logarithm: a curve between two rates that are near to each other is as good as a step, and
a float ends at 709."""
STUDENT = 1.15
"""Student's quantile with 19 degrees of freedom is so many times the normal one, at 1.5 %."""
LIKELY = 0.8
"""Standard deviations: an attempt where the next is made shows what it is four times in five."""
FINE, STEPS = 0.01, 100
"""Of the logarithm of the rate, what is tried."""

RESOLUTION = 0.005
"""Of a rate: a server without any randomness that gets so much too much shows it after an hour."""

RunRequests = Callable[[float, int, int], Run]
"""Runs at a rate, with a seed, so many requests."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which rates the highest that meets the targets lies, with `confidence`."""

    low_rps: float | None
    """None: no rate is shown to meet them."""
    high_rps: float | None
    """None: no rate is shown not to."""
    confidence: float
    estimate_rps: float | None = None
    """The rate in between at which the attempts' shares, as a curve, cross the share wanted: the
    best guess, of which nothing is shown. None: the shares of all attempts were on one side."""

    @property
    def in_words(self) -> str:
        """As a part of a headline."""
        sure = f"with {self.confidence * 100:g} % confidence the highest rate"
        if self.low_rps is None and self.high_rps is None:
            return "nothing of this is shown with confidence"
        if self.low_rps is None:
            within = f"{sure} is below {self.high_rps:.4g}"
        elif self.high_rps is None:
            within = f"{sure} is {self.low_rps:.4g} or more"
        else:
            within = f"{sure} lies between {self.low_rps:.4g} and {self.high_rps:.4g}"
        near = "" if self.estimate_rps is None else f", most likely near {self.estimate_rps:.4g}"
        return within + near


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an attempt saw, of the tier that is nearest to its targets."""

    rate_rps: float
    judged: int
    share: float
    alone: float
    wanted: float

    @property
    def odds(self) -> float:
        """Logarithm of the odds to meet ÷ those wanted, which may be other ones in each tier.

        Half a request more of each keeps it finite.
        """
        met = self.share * self.judged
        return log((met + 0.5) / (self.judged - met + 0.5)) - _log_odds(self.wanted)


class Proof:
    """The attempts so far."""

    def __init__(
        self,
        run_requests: RunRequests,
        slos: Slos,
        *,
        attempt_s: float,
        confidence: float,
        precision: float,
        seeds: Iterator[int],
        on_step: Callable[[Step], None],
    ) -> None:
        self._run_requests, self._slos = run_requests, slos
        self._attempt_s, self._confidence = attempt_s, confidence
        self._precision, self._seeds, self._on_step = precision, seeds, on_step
        self.steps: dict[float, Step] = {}
        self.runs: dict[float, Run] = {}
        """The last run of each rate that is met."""
        self.interrupted = False
        self._seen: list[_Seen] = []

    def prove(self, low_rps: float | None, high_rps: float | None) -> None:
        """Try to show that the one rate meets the targets and the other does not."""
        low_rps = None if low_rps is None else _rounded(low_rps / BELOW)
        for spent in SPENT:
            chance = spent * (1.0 - self._confidence)
            rate = self._next(low_rps, high_rps, chance)
            if rate is None or self.interrupted:
                return
            self._attempt(rate, chance)

    @property
    def bounds(self) -> Bounds:
        """What is shown."""
        low, high = self.ends
        low = None if low is None else _rounded(low * (1.0 - RESOLUTION))
        high = None if high is None else _rounded(high * (1.0 + RESOLUTION))
        curve = _curve_of(self._seen)
        sides = {each.share >= each.wanted for each in self._seen}
        # What all rates are above, or below, may be anywhere.
        estimate = None if curve is None or len(sides) < 2 else _rounded(curve.estimate_rps)
        if estimate is not None:
            estimate = min(max(estimate, low or 0.0), high or inf)
        return Bounds(low, high, self._confidence, estimate)

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The rates that are shown: the highest that is met below the lowest that is not, and that
        one.
        """
        high = min((at for at, step in self.steps.items() if step.state == NOT_MET), default=None)
        met = [at for at, step in self.steps.items() if step.state == MET]
        return max((at for at in met if high is None or at < high), default=None), high

    # ------------------------------------------------------------ where

    def _next(self, low_rps: float | None, high_rps: float | None, chance: float) -> float | None:
        """First the two that were found, then an end that is missing, then the nearer one."""
        low, high = self.ends
        if low is None and low_rps is not None and low_rps not in self.steps:
            return low_rps
        if high is None and high_rps is not None and high_rps not in self.steps:
            return high_rps
        tried = sorted(self.steps)
        if low is None and low_rps is not None:
            far = tried[0] / FURTHER ** sum(at <= low_rps for at in tried)
            near = max(_nearest(self._seen, chance, -1) or far, tried[0] / FURTHEST)
            return _rounded(min(near, far))
        if high is None and high_rps is not None:
            if self.steps[tried[-1]].state == INVALID:
                return None  # further out the generator is late all the more
            far = tried[-1] * FURTHER ** sum(at >= high_rps for at in tried)
            near = min(_nearest(self._seen, chance, +1) or far, tried[-1] * FURTHEST)
            return _rounded(max(near, far))
        if low is None or high is None or high / low <= 1.0 + self._precision:
            return None
        up = min(_nearest(self._seen, chance, -1) or low, high)
        down = max(_nearest(self._seen, chance, +1) or high, low)
        gain, rate = max((up / low, up), (high / down, down))
        return rate if gain > 1.0 + self._precision / 2 and rate not in self.steps else None

    # ------------------------------------------------------------ an attempt

    def _attempt(self, rate: float, chance: float) -> None:
        trials, series = list[Trial](), dict[str, list[Series]]()
        requests = ceil(self._requests(rate, chance) / RUNS)
        step, run, spoilt = None, None, 0
        while len(trials) - spoilt < RUNS and spoilt < RUNS:
            seed = next(self._seeds)
            run = self._run_requests(rate, seed, requests)
            if run.info.interrupted:
                self.interrupted = True
                return
            trials.append(trial_of(seed, run, self._slos))
            if trials[-1].summary.verdict.valid:
                for tier, each in _series(run, self._slos).items():
                    series.setdefault(tier, []).append(each)
            else:
                spoilt += 1
            looks = len(trials) - spoilt
            step = self._judged(rate, trials, series, _spent(chance, looks / RUNS, looks == RUNS))
            if step.state in {MET, NOT_MET}:
                break
        assert step is not None
        self.steps[rate] = step
        if run is not None and step.state == MET:
            self.runs[rate] = run
        self._on_step(step)

    def _requests(self, rate: float, chance: float) -> int:
        least = least_requests(self._slos.highest_share(), 1.0 - 2.0 * chance)
        return max(round(rate * self._attempt_s), ceil(MARGIN * least))

    def _judged(
        self, rate: float, trials: Sequence[Trial], series: dict[str, list[Series]], chance: float
    ) -> Step:
        step = step_of(rate, trials, self._slos, self._confidence)
        if step.state == INVALID or not series:
            return replace(step, chance=chance)
        states, reasons, seen = list[str](), list[str](), list[_Seen]()
        for tier, runs in sorted(series.items()):
            share = self._slos.of(tier).share
            interval, alone = interval_of(runs, 1.0 - 2.0 * chance / len(series))
            met, missed = interval.low >= share, interval.high < share
            states.append(MET if met else NOT_MET if missed else UNDECIDED)
            total, good = sum(len(run.met) for run in runs), sum(sum(run.met) for run in runs)
            seen.append(_Seen(rate, total, good / total, alone, share))
            reasons.append(
                f"{f'{tier}: ' if tier else ''}{good:,} of {total:,} "
                f"met, which tell as much as {alone:,.0f} drawn alone: {interval.low * 100:.1f} to "
                f"{interval.high * 100:.1f} % against {share * 100:g} %"
            )
        state = next((each for each in (NOT_MET, UNDECIDED) if each in states), MET)
        if state == MET and all(trial.growing for trial in trials):
            state = UNDECIDED
            reasons.append("TTFT was still growing at the end")
        self._seen = [each for each in self._seen if each.rate_rps != rate]
        self._seen.append(min(seen, key=lambda each: each.share - each.wanted))
        near = [run for runs in series.values() for run in runs]
        return replace(
            step,
            state=state,
            reason="; ".join(reasons),
            goodput_interval=interval_of(near, self._confidence)[0],
            chance=chance,
        )


@dataclass(frozen=True, slots=True)
class _Curve:
    """Logarithm of the odds to meet ÷ those wanted, over that of the rate: a line through `x`, `y`.

    `wanted` is the strictest share.
    """

    x: float
    y: float
    slope: float
    wanted: float

    @property
    def estimate_rps(self) -> float:
        """Where the odds are those wanted."""
        return exp(self.x - self.y / self.slope)

    def share_at(self, rate_rps: float) -> float:
        """That meets at a rate."""
        odds = self.y + self.slope * (log(rate_rps) - self.x) + _log_odds(self.wanted)
        return 1.0 / (1.0 + exp(min(-odds, MOST_ODDS)))


def _log_odds(share: float) -> float:
    return log(share / (1.0 - share))


def _curve_of(seen: Sequence[_Seen]) -> _Curve | None:
    """The odds to meet the targets are taken for a power of the rate, through the attempts so far.
    None if they were at fewer than two rates.
    """
    if len({each.rate_rps for each in seen}) < 2:
        return None
    wanted = max(each.wanted for each in seen)
    weights = [each.alone * each.share * (1.0 - each.share) + 0.5 for each in seen]
    total = sum(weights)
    x = sum(w * log(each.rate_rps) for w, each in zip(weights, seen, strict=True)) / total
    y = sum(w * each.odds for w, each in zip(weights, seen, strict=True)) / total
    up = sum(w * (log(s.rate_rps) - x) * (s.odds - y) for w, s in zip(weights, seen, strict=True))
    down = sum(w * (log(s.rate_rps) - x) ** 2 for w, s in zip(weights, seen, strict=True))
    return _Curve(x, y, min(up / down, FLATTEST), wanted)


def _nearest(seen: Sequence[_Seen], chance: float, side: int) -> float | None:
    """The rate nearest to the true one at which an attempt would show what it is, most likely.

    Below the true rate for side −1, above it for +1; None if that cannot be told.
    """
    curve = _curve_of(seen)
    if curve is None:
        return None
    z = NormalDist().inv_cdf(1.0 - chance) * STUDENT + LIKELY
    for step in range(1, STEPS):
        rate = curve.estimate_rps * exp(side * step * FINE)
        share, wanted = curve.share_at(rate), curve.wanted
        alone = min(seen, key=lambda each: abs(log(each.rate_rps / rate))).alone
        if abs(share - wanted) >= z * sqrt(max(share, wanted) * (1 - min(share, wanted)) / alone):
            return _rounded(rate)
    return None


def _spent(chance: float, share: float, is_last: bool) -> float:
    """Of the chance to be wrong, what the look at this share of an attempt may use."""
    if share <= 0.0:
        return 0.0
    normal = NormalDist()

    def by(time: float) -> float:
        return 2.0 - 2.0 * normal.cdf(normal.inv_cdf(1.0 - chance / 2.0) / sqrt(time))

    return chance - by((RUNS - 1) / RUNS) if is_last else by(share)


def _series(run: Run, slos: Slos) -> dict[str, Series]:
    """By tier, without the run's beginning and without those that nobody judges."""
    records = sorted(run.records, key=lambda record: record.intended_s)
    found: dict[str, Series] = {}
    for record in records[int(len(records) * WARM_UP_SHARE) :]:
        slo = slos.of(record.tier)
        outcome = slo.outcome(record)
        if not record.left and outcome != OPEN:
            series = found.setdefault(record.tier, Series(array("b"), array("f")))
            series.met.append(outcome == MET_ALL)
            series.near.append(slo.nearness(record))
    return found


def _rounded(rate: float) -> float:
    """To four digits, so that it is written as it was."""
    return float(f"{rate:.4g}")
