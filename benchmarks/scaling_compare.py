"""Headrace's scaler against its peers' rules, each swept, on many shapes of demand.

    python -m benchmarks.scaling_compare --shapes ramp,steps,spikes,regular,week --seeds 2
    python -m benchmarks.scaling_compare --shapes ramp,steps --mean 6 60 --pace 0.5 1 3 --jitters 2
    python -m benchmarks.scaling_compare --rates servegen_m-large_10min.csv --rate-scale 4 --days 7

Everything as a fluid (`headrace simulate scaling --mode fluid`), TTFT 2 s, TPOT 50 ms. Every demand
is scaled so that its mean takes `--mean` replicas at their TPOT target, except a file with
`--rate-scale`. Per demand:

    headrace    as it comes: attainment, and replica-hours over those of the oracle
    at 99 %     headrace with the target that is cheapest at 99 % (fitted, as they are)
    cheapest    the cheapest run of any baseline at 99 %, with any of its parameters
    beaten by   runs of baselines with more attainment and fewer replica-hours than headrace
    gap         (cheapest - headrace) / (cheapest - oracle), if headrace as it comes reaches 99 %
    gap, fitted the same with headrace's own target fitted

At the end how many demands there were, and on how many of them each of this was so. `--scalers`
plays only some of the baselines, beside headrace and the oracle. `--policy seconds` plays all
behind a gateway that holds.

`--history` gives single days of a file what came before them, to all that remember anything:

    learned    each day meets a new pool that has learned from the days before (`simulate scaling
               --history`)
    run        headrace is played through the whole file, and judged by the day; others as `learned`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks.scaling_shapes import DAY_S, SHAPES, jittered, paced
from headrace.core.scaling.demand_history import DemandSample
from headrace.edges.cores import usable_cores
from headrace.engine_model.profiles import profile
from headrace.simulator.scaling.demand import Demand, history_of, tick_for
from headrace.simulator.scaling.fluid_run import POOLS_BEHIND, run_pieces
from headrace.simulator.scaling.runs import ScalingWorkload, run_scalers
from headrace.simulator.scaling.scalers import NAMES, ORACLE, OWN
from headrace.simulator.scaling.scalers.static import mean_replicas
from headrace.simulator.scaling.scores import ScalingScores
from headrace.simulator.scaling.settings import (
    PLAIN_POLICY,
    ScalingSimulation,
)
from headrace.simulator.scaling.sweep import (
    better_in_both,
    combinations,
    gap_closed,
    is_reference,
)
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import Rates, read_rates

HEADS = ("demand", "headrace", "headrace at 99 %", "oracle h", "cheapest baseline", "default",
         "beaten by", "gap", "gap, fitted")  # fmt: skip
ASKED = 1 / 3
"""Of the gap that is to be closed."""


def main() -> int:
    """Run, print, and say where the figures are."""
    options = _arguments()
    settings = ScalingSimulation(
        profile(options.profile),
        cold_start_s=options.cold_start,
        max_replicas=2048,
        policy=options.policy,
    )
    rows: list[dict[str, object]] = []
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS), flush=True)
    played: list[list[ScalingScores]] = []
    days = DayByDay(settings, options)
    for case in demands(options, settings):
        scores = compare(settings, case, options, days)
        played.append(scores)
        row = summary(case.name, scores, settings.goal)
        rows.append(row | {"runs": [each.document() for each in scores]})
        print("| " + " | ".join(str(row[head]) for head in HEADS) + " |", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1))
    print(counted(played, settings.goal))
    return 0


class Case(NamedTuple):
    """One demand to be played. `past` is what came before it: the days of a file before `day`."""

    name: str
    rates: Rates
    past: Rates | None = None
    day: int = 0


class DayByDay:
    """headrace through a whole file, judged by the day; played once for each of its targets."""

    def __init__(self, settings: ScalingSimulation, options: argparse.Namespace) -> None:
        self._settings = settings
        self._options = options
        self._known: dict[str, list[ScalingScores]] = {}

    def scores(self, written: str, day: int) -> ScalingScores:
        """Of one day."""
        if written not in self._known:
            demand = demand_of(self._settings, read_file(self._options), self._options.seed)
            self._known[written] = run_pieces(self._settings, demand, written, DAY_S)
        return self._known[written][day]


def compare(
    settings: ScalingSimulation, case: Case, options: argparse.Namespace, days: DayByDay
) -> list[ScalingScores]:
    """All scalers with all their parameters on one demand."""
    history = () if case.past is None else history_of(case.past)
    demand = demand_of(settings, case.rates, options.seed, history)
    targets = [each for each in options.own_targets.split(",") if each]
    own = [OWN, *(f"{OWN}:attainment={target}" for target in targets)]
    others = [ORACLE, *(each for name in options.scalers for each in combinations(name))]
    goes_on = options.history == "run"
    runs = run_scalers(
        settings,
        ScalingWorkload(case.name, demand),
        others if goes_on else [*own, *others],
        processes=options.jobs,
        report=lambda *_: None,
    )
    own_scores = [days.scores(each, case.day) for each in own] if goes_on else []
    return [*own_scores, *(run.scores for run in runs)]


def demand_of(
    settings: ScalingSimulation, rates: Rates, seed: int, history: Sequence[DemandSample] = ()
) -> Demand:
    """Rates as they are played."""
    tick_s, spread = tick_for(rates.end_s), LognormalSpread(1.0)
    return Demand(rates, spread, settings.engine, tick_s=tick_s, seed=seed, history=history)


def summary(name: str, scores: list[ScalingScores], goal: float) -> dict[str, object]:
    """One row."""
    own = next(each for each in scores if each.scaler == OWN)
    oracle = next(each for each in scores if each.scaler == ORACLE)
    reached = [each for each in scores if each.attainment >= goal]
    own_best = _cheapest([e for e in reached if e.scaler.partition(":")[0] == OWN])
    others = [each for each in reached if not is_reference(each.scaler)]
    best = _cheapest(others)
    plain = _cheapest([each for each in others if ":" not in each.scaler])
    only_own = [each for each in scores if each.scaler.partition(":")[0] != OWN or each is own]
    closed, closed_fitted = gap_closed(only_own, goal), gap_closed(scores, goal)
    beaten = better_in_both(scores)
    return {
        "demand": name,
        "headrace": _said(own, oracle),
        "headrace at 99 %": _said(own_best, oracle),
        "oracle h": f"{oracle.replica_hours:,.0f}",
        "cheapest baseline": _named(best, oracle),
        "default": _named(plain, oracle),
        "beaten by": f"{len(beaten)}" + (f" ({beaten[0].scaler})" if beaten else ""),
        "gap": _share(closed),
        "gap, fitted": _share(closed_fitted),
    }


def counted(played: Sequence[list[ScalingScores]], goal: float) -> str:
    """On how many demands nobody is better in both figures, and how much of the gap is closed."""
    own = [next(each for each in scores if each.scaler == OWN) for scores in played]
    fitted = [gap_closed(scores, goal) for scores in played]
    plain = [
        gap_closed([e for e in scores if e is mine or e.scaler.partition(":")[0] != OWN], goal)
        for mine, scores in zip(own, played, strict=True)
    ]
    said = {
        "demands": len(played),
        "a baseline better in both": sum(bool(better_in_both(scores)) for scores in played),
        "headrace at the goal": sum(each.attainment >= goal for each in own),
        "a third closed": sum(each is not None and each >= ASKED for each in plain),
        "a third closed, target fitted": sum(e is not None and e >= ASKED for e in fitted),
    }
    return ", ".join(f"{what}: {count}" for what, count in said.items())


def _share(closed: float | None) -> str:
    return "–" if closed is None else f"{closed:.0%}"


def _cheapest(scores: list[ScalingScores]) -> ScalingScores | None:
    return min(scores, key=lambda each: each.replica_hours) if scores else None


def _said(score: ScalingScores | None, oracle: ScalingScores) -> str:
    if score is None:
        return "not reached"
    return f"{score.attainment:.2%}, {score.replica_hours / oracle.replica_hours:.2f}×"


def _named(score: ScalingScores | None, oracle: ScalingScores) -> str:
    return "none" if score is None else f"{score.scaler}: {_said(score, oracle)}"


def demands(options: argparse.Namespace, settings: ScalingSimulation) -> Iterator[Case]:
    """What the options name: shapes, a file or its days, jittered or as they are."""
    for case in _plain_demands(options, settings):
        if not options.jitters:
            yield case
        for jitter in range(options.jitters):
            yield Case(f"{case.name}, jittered {jitter}", jittered(case.rates, jitter))


def _plain_demands(options: argparse.Namespace, settings: ScalingSimulation) -> Iterator[Case]:
    shapes: list[str] = options.shapes.split(",") if options.shapes else []
    sizes = product(options.mean, options.pace)
    for seed, shape, (mean, pace) in product(range(options.seeds), shapes, sizes):
        rates = paced(SHAPES[shape](seed), pace)
        yield Case(f"{shape} {seed}, {mean:g}, {pace:g}x", scaled_to(rates, settings, mean))
    if options.rates is None:
        return
    rates = read_file(options)
    days = int(rates.end_s // DAY_S)
    if not options.days and not options.day:
        yield Case(options.rates.stem, rates)
        return
    for place in options.day or range(0, days, max(days // options.days, 1)):
        begin_s, name = place * DAY_S, f"{options.rates.stem}, day {place}"
        past = rates.piece(0.0, begin_s) if options.history and place else None
        yield Case(name, rates.piece(begin_s, DAY_S), past, place)


def read_file(options: argparse.Namespace) -> Rates:
    """What `--rates` names, scaled."""
    with options.rates.open(encoding="utf-8") as lines:
        return read_rates(options.rates.name, lines).scaled(options.rate_scale)


def scaled_to(rates: Rates, settings: ScalingSimulation, replicas: float) -> Rates:
    """The same with a mean that takes so many replicas at their TPOT target."""
    once = Demand(rates, LognormalSpread(1.0), settings.engine, tick_s=15.0, seed=0, gap_cv=0.0)
    return rates.scaled(replicas / mean_replicas(settings, once))


def baselines_of(text: str) -> list[str]:
    """The baselines in a list; headrace and the oracle are none."""
    names = [each.strip() for each in text.split(",") if each.strip()]
    unknown = [each for each in names if each not in NAMES or each in {OWN, ORACLE}]
    if unknown:
        raise argparse.ArgumentTypeError(f"no baseline {unknown[0]!r}")
    return names


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", default="", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--mean", type=float, nargs="+", default=[20.0], help="of shapes")
    parser.add_argument("--pace", type=float, nargs="+", default=[1.0], help="of shapes: 3 is fast")
    parser.add_argument("--rates", type=Path)
    parser.add_argument("--rate-scale", type=float, default=1.0)
    parser.add_argument("--days", type=int, default=0, help="so many single days of --rates")
    parser.add_argument("--day", type=int, nargs="+", default=[], help="these days of --rates")
    parser.add_argument(
        "--history", choices=("learned", "run"), help="of single days: those of --rates before them"
    )
    parser.add_argument(
        "--jitters", type=int, default=0, help="so many draws with changes off their ten minutes"
    )
    baselines = [name for name in NAMES if name not in {OWN, ORACLE}]
    parser.add_argument("--scalers", type=baselines_of, default=baselines, help="of the baselines")
    parser.add_argument("--own-targets", default="0.98,0.985,0.9925,0.995,0.9975")
    parser.add_argument("--profile", default="h100-llama-3.1-8b")
    parser.add_argument("--cold-start", type=float, default=240.0, help="in seconds")
    parser.add_argument("--policy", choices=POOLS_BEHIND, default=PLAIN_POLICY, help="the router")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes")
    parser.add_argument("--json", type=Path, help="write all runs there")
    options = parser.parse_args(given)
    if options.history and (
        options.rates is None or options.jitters or not options.days + len(options.day)
    ):
        parser.error("--history is for single days of --rates, as they are: give --days or --day")
    return options


if __name__ == "__main__":
    sys.exit(main())
