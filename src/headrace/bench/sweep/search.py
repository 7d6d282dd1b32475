"""The highest rate that still meets the targets, by doubling and then halving the gap.

    1. From the first rate upwards by doubling until the targets are not met; downwards by halving
       if they are not met there.
    2. Between the highest rate that met and the lowest one that did not: the geometric middle,
       until the two are as near as `precision`.
    3. A rate is met, or not, only if the interval of the goodput share of its runs lies on one side
       of the share that is wanted, and if its runs agree. Else the rate runs again with another
       seed, at most `repeats` times; what is open then is *undecided*, and said to be.
    4. What such a search finds is a guess: it looks many times and picks. So the two rates of the
       answer are run anew, for longer, until it is shown with `confidence` that the highest rate
       lies between them, or how far apart they must be for that: `proof`. Where nobody asks
       for that, they must at least have held with a second seed.
    5. Before it looks below the first rate, or where a look at it missed: `ALONE_REQUESTS`, one at
       a time, but for those before the first that met its targets. If these do not meet the
       targets, by the rule of 3 for one run, no rate can, and the search is over.

           latency at a rate = latency alone + waiting,    waiting >= 0

       (Kleinrock, Queueing Systems I, 1975: T = x + W.) A lower rate only takes away the waiting,
       of which one request at a time has none. None of them shares its run's queue with another,
       so that its interval needs no second run.

    6. Before all that it climbs: at a low rate a run that can show anything takes minutes. While a
       look of `look_s` has too few requests for that, and they met their targets, the rate is
       doubled; where one does not, or has enough, step 1 begins below it. A look is no part of the
       answer.

Run number k of the sweep has seed + k: no run may send what another one left in the engine's prefix
cache, so no two have the same draws. A rate at which the generator was late is *invalid*: it bounds
the search, and the answer says whose limit it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from math import ceil, sqrt

from headrace.bench.figures.confidence import CONFIDENCE, least_requests
from headrace.bench.figures.scores import document_of
from headrace.bench.figures.slo import Slos
from headrace.bench.sweep.proof import Bounds, Proof, RunRequests
from headrace.bench.sweep.step import (
    INVALID,
    MET,
    NOT_MET,
    UNDECIDED,
    Look,
    Run,
    Step,
    Trial,
    step_of,
    trial_of,
    without_backlog,
)

SCHEMA = "headrace-bench-sweep/1"

MARGIN = 1.25
FEWEST_REQUESTS = 100
KEPT_RATES = 4
"""Of the rates that met, the highest, whose records stay in memory."""

ALONE_REQUESTS = 20
"""Two that miss show that 99 % is out of reach, four 95 %, eight 80 % (Wilson's interval)."""

LOOK_REQUESTS = 20
"""Of a look, at least."""

RunAtRate = Callable[[float, int], Run]
"""Runs at a rate in requests per second, with a seed."""
RunAlone = Callable[[int, int], Run]
"""Runs so many requests, each when the one before it is over, with a seed."""


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Where to look and how exactly."""

    start_rps: float = 1.0
    """The first rate."""
    least_rps: float = 0.01
    """Below it nothing is looked for."""
    most_rps: float = 100_000.0
    """Nor above it."""
    precision: float = 0.05
    """The lowest rate that is not met may lie this share above the highest one that is."""
    repeats: int = 3
    """Most runs at one rate."""
    most_runs: int = 40
    """Of the whole sweep."""
    confidence: float = CONFIDENCE
    """Of the answer, and of each interval."""
    proof_s: float = 360.0
    """Of an attempt to show a rate of the answer, at least; 0: none is made."""
    look_s: float = 0.0
    """Of a look on the way up; 0: none is taken, and the first rate gets a whole run."""
    seed: int = 0
    """Of the first run; each one that follows has the next."""

    def __post_init__(self) -> None:
        if not 0.0 < self.least_rps <= self.start_rps <= self.most_rps:
            raise ValueError(
                f"rates from {self.least_rps:g} to {self.most_rps:g} with the first at "
                f"{self.start_rps:g}; give 0 < least <= first <= most"
            )
        for name, least in (("precision", 0.001), ("repeats", 1), ("most_runs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name):g}; give {least:g} or more")
        for name in ("proof_s", "look_s"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} is {getattr(self, name):g}; give 0 or more")
        if not 0.5 <= self.confidence < 1.0:
            raise ValueError(f"confidence is {self.confidence:g}; give 0.5 or more, below 1")


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The curve, and the answer with what is not known."""

    settings: SweepSettings
    slos: Slos
    steps: tuple[Step, ...]
    """In order of rates."""
    highest_met_rps: float | None
    """The answer; None: no rate met the targets."""
    lowest_not_met_rps: float | None
    undecided_rps: tuple[float, ...]
    """Rates between the two that were tried and not decided."""
    limited_by_generator: bool
    """The next higher rate was invalid: the engine may well hold more."""
    finished: bool
    """All was tried that `precision` wants; else runs ran out, or somebody stopped it."""
    best: Run | None
    """A run at `highest_met_rps`."""
    alone: Step | None = None
    """Requests one at a time, at rate 0; None: there was no need to ask."""
    bounds: Bounds | None = None
    """What is shown; None: nobody tried."""

    @property
    def is_out_of_reach(self) -> bool:
        """The targets are missed without any load: no rate can meet them."""
        return self.alone is not None and self.alone.state == NOT_MET

    @property
    def exit_code(self) -> int:
        """0: some rate meets the targets. 1: none."""
        return 0 if self.highest_met_rps is not None else 1

    @property
    def headline(self) -> str:
        """The answer in a sentence or two."""
        if self.alone is not None and self.is_out_of_reach:
            return (
                "NO RATE CAN MEET the targets: requests sent one at a time miss them "
                f"({self.alone.reason}), and a lower rate takes away nothing but waiting"
            )
        if self.highest_met_rps is None:
            parts = ["NO RATE FOUND that shows the targets met"]
        else:
            found = "found" if self.bounds is None or self.bounds.low_rps is None else "shown"
            rate = _rate(self.highest_met_rps)
            parts = [f"{rate} is the highest rate {found} to meet the targets"]
        if self.undecided_rps:
            parts.append(f"undecided at {', '.join(f'{each:.4g}' for each in self.undecided_rps)}")
        if self.lowest_not_met_rps is not None:
            parts.append(f"not met from {_rate(self.lowest_not_met_rps)}")
        if self.limited_by_generator and self.highest_met_rps is None:
            parts.append(f"the generator itself was late at {_rate(self.steps[0].rate_rps)}")
        elif self.limited_by_generator:
            parts.append("above it the generator itself was late: this is its limit")
        if not self.finished:
            parts.append("the search was not finished")
        if self.bounds is not None:
            parts.append(self.bounds.in_words)
        return "; ".join(parts)

    def document(self) -> dict[str, object]:
        """As JSON wants it."""
        return {
            "schema": SCHEMA,
            "headline": self.headline,
            "highest_met_rps": self.highest_met_rps,
            "lowest_not_met_rps": self.lowest_not_met_rps,
            "bounds": None if self.bounds is None else document_of(self.bounds),
            "undecided_rps": list(self.undecided_rps),
            "limited_by_generator": self.limited_by_generator,
            "finished": self.finished,
            "settings": document_of(self.settings),
            "slos": document_of(self.slos),
            "steps": [document_of(step) for step in self.steps],
            "alone": None if self.alone is None else document_of(self.alone),
        }


def sweep(
    run_at_rate: RunAtRate,
    settings: SweepSettings,
    slos: Slos,
    *,
    on_step: Callable[[Step], None] | None = None,
    on_look: Callable[[Look], None] | None = None,
    run_alone: RunAlone | None = None,
    run_requests: RunRequests | None = None,
) -> SweepResult:
    """Search; somebody who ends it (`KeyboardInterrupt`) gets what is known.

    Args:
        run_at_rate: makes one run and returns it; it ends when all its answers have.
        settings: where to look and how exactly.
        slos: the targets.
        on_step: is told of each rate when it is judged.
        on_look: is told of each look on the way up.
        run_alone: makes a run without any load; without it a search downwards goes on to
            `least_rps` where nothing meets the targets.
        run_requests: makes a run of so many requests; without it no look is taken, and without it
            or with `proof_s` 0 nothing is said of the answer's confidence.
    """
    search = _Search(
        run_at_rate,
        settings,
        slos,
        on_step=on_step or (lambda _: None),
        run_alone=run_alone,
        run_requests=run_requests if settings.proof_s > 0.0 else None,
    )
    try:
        if run_requests is not None and settings.look_s > 0.0:
            search.climb(run_requests, on_look or (lambda _: None))
        finished = search.search() and search.prove()
    except KeyboardInterrupt:  # between two runs, or while one begins: a run itself says so
        finished = False
    return search.result(finished=finished)


class _Search:
    """What was tried so far."""

    def __init__(
        self,
        run_at_rate: RunAtRate,
        settings: SweepSettings,
        slos: Slos,
        *,
        on_step: Callable[[Step], None],
        run_alone: RunAlone | None,
        run_requests: RunRequests | None,
    ) -> None:
        self._run_at_rate, self._settings, self._slos = run_at_rate, settings, slos
        self._run_requests, self._proof = run_requests, None
        self._on_step, self._run_alone = on_step, run_alone
        self._first_rps, self._misses_at_first = settings.start_rps, False
        self._alone: Step | None = None
        self._trials: dict[float, list[Trial]] = {}
        self._steps: dict[float, Step] = {}
        self._runs_left = settings.most_runs
        self._kept: dict[float, Run] = {}
        self._interrupted = False

    def climb(self, run_requests: RunRequests, on_look: Callable[[Look], None]) -> None:
        """Begin where a run is short, or where the targets are first missed."""
        enough, rate, spoilt = requests_per_run(self._slos), self._first_rps, 0
        while self._may_run() and rate <= self._settings.most_rps:
            requests = max(round(rate * self._settings.look_s), LOOK_REQUESTS)
            if requests >= enough:
                self._first_rps = rate
                return
            seed = self._next_seed()
            run = run_requests(rate, seed, requests)
            if run.info.interrupted:
                self._interrupted = True
                return
            look = Look(rate, trial_of(seed, run, self._slos), self._slos)
            on_look(look)
            if look.is_met:
                self._first_rps, rate, spoilt = rate, rate * 2, 0
            elif look.is_valid or spoilt:
                self._misses_at_first = look.is_valid and rate == self._settings.start_rps
                return
            else:
                spoilt += 1

    def search(self) -> bool:
        """Run at one rate after the other; whether there was nothing left to try."""
        while (rate := self._next()) is not None:
            if not self._may_run():
                return False
            looks_down = bool(self._steps) and rate < min(self._steps)
            if (
                (looks_down or self._misses_at_first)
                and self._alone is None
                and self._run_alone is not None
            ):
                self._look_alone(self._run_alone)
                if self._alone is not None and self._alone.state == NOT_MET:
                    return True
                continue  # it took a run, and may have been interrupted
            self._try(rate)
        return True

    def prove(self) -> bool:
        """Show the answer with confidence, where that is wanted; whether nobody stopped it."""
        found = self.result(finished=True)
        if self._interrupted or self._run_requests is None or found.is_out_of_reach:
            return not self._interrupted
        runs = self._settings.most_runs - self._runs_left
        proof = self._proof = Proof(
            self._run_requests,
            self._slos,
            attempt_s=self._settings.proof_s,
            confidence=self._settings.confidence,
            precision=self._settings.precision,
            seeds=count(self._settings.seed + runs),
            on_step=self._on_step,
        )
        try:
            proof.prove(found.highest_met_rps, found.lowest_not_met_rps)
        finally:
            self._steps |= proof.steps
            self._kept |= proof.runs
        return not proof.interrupted

    def _next(self) -> float | None:
        """Where to run next: an end that is missing, the gap between them, an end to confirm."""
        settings, steps = self._settings, self._in_order()
        if not steps:
            return self._first_rps
        lowest, highest = steps[0], steps[-1]
        if self._highest_met() is None:
            hopeless = lowest.rate_rps <= settings.least_rps or lowest.state == INVALID
            if hopeless or _is_too_short(lowest):
                return None
            return max(lowest.rate_rps / 2, settings.least_rps)
        if all(step.state not in {NOT_MET, INVALID} for step in steps):
            if highest.rate_rps >= settings.most_rps:
                return self._unconfirmed()
            return min(highest.rate_rps * 2, settings.most_rps)
        if (gap := self._gap()) is not None:
            return _round_rate(sqrt(gap[0] * gap[1]))
        return self._unconfirmed()

    def result(self, *, finished: bool) -> SweepResult:
        shown = (None, None) if self._proof is None else self._proof.ends
        met, steps = shown[0] or self._highest_met(), self._in_order()
        above = [step for step in steps if met is None or step.rate_rps > met]
        not_met = next((step.rate_rps for step in above if step.state == NOT_MET), None)
        not_met = shown[1] or not_met
        undecided = tuple(
            step.rate_rps
            for step in above
            if step.state == UNDECIDED and (not_met is None or step.rate_rps < not_met)
        )
        return SweepResult(
            settings=self._settings,
            slos=self._slos,
            steps=tuple(steps),
            highest_met_rps=met,
            lowest_not_met_rps=not_met,
            undecided_rps=undecided,
            limited_by_generator=_is_limited_by_generator(above),
            finished=finished and not self._interrupted,
            best=None if met is None else self._kept.get(met),
            alone=self._alone,
            bounds=self._bounds(),
        )

    def _bounds(self) -> Bounds | None:
        if self._proof is not None:
            return self._proof.bounds
        out_of_reach = self._alone is not None and self._alone.state == NOT_MET
        if self._run_requests is None or out_of_reach:
            return None
        return Bounds(None, None, self._settings.confidence)  # it did not come to that

    def _try(self, rate: float) -> None:
        """Run at this rate once, and again until it is decided or may not run again."""
        self._run(rate)
        while self._may_run() and self._steps[rate].state in {UNDECIDED, INVALID}:
            if len(self._trials[rate]) >= self._settings.repeats:
                break
            self._run(rate)
        if rate in self._steps:
            self._on_step(self._steps[rate])

    def _look_alone(self, run_alone: RunAlone) -> None:
        """Run requests one at a time, which have all that a lower rate could give them."""
        seed = self._next_seed()
        run = run_alone(ALONE_REQUESTS, seed)
        if run.info.interrupted:
            self._interrupted = True
            return
        trial = trial_of(seed, without_backlog(run, self._slos), self._slos)
        self._alone = step_of(0.0, [trial], self._slos, self._settings.confidence)
        self._on_step(self._alone)

    def _next_seed(self) -> int:
        """Of a run, which is one fewer that is left."""
        seed = self._settings.seed + self._settings.most_runs - self._runs_left
        self._runs_left -= 1
        return seed

    def _run(self, rate: float) -> None:
        """Once more at this rate; then judge it anew."""
        trials = self._trials.setdefault(rate, [])
        seed = self._next_seed()
        run = self._run_at_rate(rate, seed)
        if run.info.interrupted:
            self._interrupted = True
            return
        trials.append(trial_of(seed, run, self._slos))
        step = step_of(rate, trials, self._slos, self._settings.confidence)
        self._steps[rate] = step
        if run.info.valid and step.state != NOT_MET:
            self._keep(rate, run)

    def _keep(self, rate: float, run: Run) -> None:
        """One run is shown if this is the answer; the answer may still fall to a lower rate."""
        self._kept[rate] = run
        met = [step.rate_rps for step in self._in_order() if step.state == MET]
        least = met[-KEPT_RATES] if len(met) > KEPT_RATES else 0.0
        self._kept = {each: kept for each, kept in self._kept.items() if each >= least}

    def _unconfirmed(self) -> float | None:
        """A rate of the answer that rests on one run, where there may be more."""
        if self._run_requests is not None:
            return None
        met, steps = self._highest_met(), self._in_order()
        not_met = next((step.rate_rps for step in steps if step.state == NOT_MET), None)
        for rate in (met, not_met):
            if rate is not None and len(self._trials[rate]) < min(2, self._settings.repeats):
                return rate
        return None

    def _may_run(self) -> bool:
        return self._runs_left > 0 and not self._interrupted

    def _in_order(self) -> list[Step]:
        return [self._steps[rate] for rate in sorted(self._steps)]

    def _highest_met(self) -> float | None:
        """Of the rates below the lowest one that is not met: a higher one met by luck."""
        highest = None
        for step in self._in_order():
            if step.state == NOT_MET:
                break
            if step.state == MET:
                highest = step.rate_rps
        return highest

    def _gap(self) -> tuple[float, float] | None:
        """Two neighbouring rates that are still too far apart; first above the one that met."""
        met, steps = self._highest_met(), self._in_order()
        rates = [step.rate_rps for step in steps if met is None or step.rate_rps >= met]
        upto = next((step.rate_rps for step in steps if step.state in {NOT_MET, INVALID}), None)
        if met is None or upto is None:
            return None
        for low, high in pairwise(rates):
            if low >= upto:
                break
            if high / low > 1 + self._settings.precision and _round_rate(sqrt(low * high)) not in {
                low,
                high,
            }:
                return low, high
        return None


def requests_per_run(slos: Slos, confidence: float = CONFIDENCE) -> int:
    """So many requests make a run that can show its targets met, with some that miss."""
    return max(ceil(least_requests(slos.highest_share(), confidence) * MARGIN), FEWEST_REQUESTS)


def _is_limited_by_generator(above: Sequence[Step]) -> bool:
    """Whether nothing but the generator ends what is above the answer.

    What the search found met there, and what longer runs left open, ends nothing.
    """
    ends = (
        step.state
        for step in above
        if step.state != MET and (step.state != UNDECIDED or step.chance is None)
    )
    return next(ends, None) == INVALID


def _is_too_short(step: Step) -> bool:
    """All met, and still too few to show it: a lower rate would not show it either."""
    return step.state == UNDECIDED and step.goodput_share == 1.0


def _round_rate(rate: float) -> float:
    """To four digits, so that it is written as it was."""
    return float(f"{rate:.4g}")


def _rate(rps: float) -> str:
    return f"{rps:.4g} requests/s"
