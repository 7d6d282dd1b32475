"""What the best reaction could reach that does not know what comes: a limit, no scaler.

    python -m benchmarks.scaling_reaction --shapes ramp,steps,spikes,regular
    python -m benchmarks.scaling_reaction --rates demand.csv --rate-scale 4 --days 14

It sees each change at once, knows exactly what it takes, works off no backlog, has replicas in
parts and no chance to provide for. At all times it holds `margin` times the highest load of the
last `hold`; what it orders is ready a cold start later:

    paid(t)  = margin * max of load from t - hold to t
    ready(t) = min of paid from t - cold start to t

Behind `least_requests` all miss that come while load is above `ready`; behind a gateway that holds
only the part above it. Margin and hold are fitted to the demand, as the parameters of baselines
are. × is against the same with the next cold start known: max of load from t to t + cold start.

    within    of all requests, those that come within a cold start after a rise by more than a
              quarter: whoever holds no more than that free misses them, however he reacts
    1.25×     the most that is met with so many replica-hours, whatever margin and hold
    at 99 %   the cheapest margin and hold that meet 99 %
    all       what meets all: the highest load, at all times

Where two figures stand in a cell, the second is behind a gateway that holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.scaling_compare import demands
from benchmarks.scaling_shapes import SHAPES
from headrace.engine_model.profiles import profile
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.scaling.windows import highest, lowest
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import Rates

TICK_S = 15.0
HOLDS_S = (0.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 86_400.0, 1e9)
FREE = 1.25
GOAL = 0.99
PRECISION = 1e-4
HOURS = (1.15, 1.25, 1.5, 2.0)
"""Over those of who knows the next cold start."""
HEADS = ("demand", "rises", "within", *(f"{hours:g}×" for hours in HOURS), "at 99 %",
         "at 99 %, holding", "all")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Course:
    """Requests and load, in replicas fully used, of each tick."""

    requests: Sequence[float]
    loads: Sequence[float]
    ahead: int
    """Ticks of a cold start."""

    @property
    def known(self) -> float:
        """Replica-ticks of who knows the next cold start."""
        return sum(highest(self.loads, 0, self.ahead))


@dataclass(frozen=True, slots=True)
class Reaction:
    """A perfect one that holds what the last `hold_s` took."""

    course: Course
    hold_s: float
    paid: Sequence[float]
    """With a margin of 1."""
    ready: Sequence[float]

    def met(self, margin: float, *, holding: bool) -> float:
        """The share of requests that are met."""
        missed = 0.0
        for count, load, ready in zip(
            self.course.requests, self.course.loads, self.ready, strict=True
        ):
            room = ready * margin
            if load > room * (1.0 + 1e-9):
                missed += count * (1.0 - room / load) if holding else count
        return 1.0 - missed / sum(self.course.requests)

    def margin_for(self, goal: float, *, holding: bool) -> float:
        """The least that meets so much."""
        low, high = 1.0, max(self.course.loads) / min(each for each in self.ready if each > 0.0)
        if self.met(low, holding=holding) >= goal:
            return low
        while high - low > PRECISION:
            middle = (low + high) / 2
            low, high = (
                (low, middle) if self.met(middle, holding=holding) >= goal else (middle, high)
            )
        return high


def course_of(rates: Rates, settings: ScalingSimulation) -> Course:
    """Without the chance of single arrivals."""
    demand = Demand(rates, LognormalSpread(1.0), settings.engine, tick_s=TICK_S, seed=0, gap_cv=0.0)
    per_step_s, tpot_s = settings.engine.latency.per_step_s, settings.slo.tpot_s
    loads = [
        demand.requests[tick] / TICK_S / demand.mix(tick).rate_at(tpot_s, per_step_s)
        for tick in range(demand.ticks)
    ]
    return Course(list(demand.requests), loads, round(settings.cold_start_s / TICK_S))


def reaction(course: Course, hold_s: float) -> Reaction:
    """Its numbers with a margin of 1."""
    count = len(course.loads)
    paid = highest(course.loads, -min(round(hold_s / TICK_S), count), 0)
    ready = lowest(paid, -course.ahead, 0)
    return Reaction(course, hold_s, paid, ready)


def summary(name: str, course: Course) -> tuple[str, ...]:
    """One row."""
    tried = [reaction(course, hold_s) for hold_s in HOLDS_S]
    at_once = tried[0]
    within = 1.0 - at_once.met(FREE, holding=False)
    late = [load > ready * FREE for load, ready in zip(course.loads, at_once.ready, strict=True)]
    rises = sum(now and not before for before, now in pairwise([False, *late]))
    cells = [name, str(rises), f"{within:.2%}"]
    for hours in HOURS:
        most = [
            max(each.met(hours * course.known / sum(each.paid), holding=holding) for each in tried)
            for holding in (False, True)
        ]
        cells.append(" / ".join(f"{each:.2%}" for each in most))
    for holding in (False, True):
        fitted = [(each.margin_for(GOAL, holding=holding), each) for each in tried]
        margin, best = min(fitted, key=lambda each: each[0] * sum(each[1].paid))
        hold = "always" if best.hold_s > 1e8 else f"{best.hold_s / 60:g} min"
        cells.append(f"{margin:.2f}, {hold}: {margin * sum(best.paid) / course.known:.2f}×")
    cells.append(f"{max(course.loads) * len(course.loads) / course.known:.2f}×")
    return tuple(cells)


def main() -> int:
    """Print a row per demand."""
    options = _arguments()
    settings = ScalingSimulation(profile(options.profile), max_replicas=2048)
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS), flush=True)
    for case in demands(options, settings):
        row = summary(case.name, course_of(case.rates, settings))
        print("| " + " | ".join(row) + " |", flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", default="", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", type=Path)
    parser.add_argument("--rate-scale", type=float, default=1.0)
    parser.add_argument("--days", type=int, default=0, help="so many single days of --rates")
    parser.add_argument("--day", type=int, nargs="+", default=[], help="these days of --rates")
    parser.add_argument("--jitters", type=int, default=0)
    parser.add_argument("--profile", default="h100-llama-3.1-8b")
    parser.set_defaults(mean=[20.0], pace=[1.0], history=None)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
