"""Headrace's scaler against its peers' rules, each swept, on many shapes of demand.

    python -m benchmarks.scaling_compare --shapes ramp,steps,spikes,regular,week --seeds 2
    python -m benchmarks.scaling_compare --rates servegen_m-large_10min.csv --rate-scale 4 --days 7

Everything as a fluid (`headrace simulate scaling --mode fluid`), cold start 240 s, TTFT 2 s, TPOT
50 ms. Every demand is scaled so that its mean takes `--mean` replicas at their TPOT target, except
a file with `--rate-scale`. Per demand:

    headrace    as it comes: attainment, and replica-hours over those of the oracle
    at 99 %     headrace with the target that is cheapest at 99 % (fitted, as they are)
    cheapest    the cheapest run of any baseline at 99 %, with any of its parameters
    beaten by   runs of baselines with more attainment and fewer replica-hours than headrace
    gap         (cheapest - headrace) / (cheapest - oracle), if headrace as it comes reaches 99 %

`--scalers` plays only some of the baselines, beside headrace and the oracle. `--policy seconds`
plays all behind a gateway that holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.scaling_shapes import DAY_S, SHAPES, jittered
from headrace.edges.cores import usable_cores
from headrace.engine_model.profiles import profile
from headrace.simulator.scaling.demand import Demand, tick_for
from headrace.simulator.scaling.fluid_run import POOLS_BEHIND
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
         "beaten by", "gap")  # fmt: skip


def main() -> int:
    """Run, print, and say where the figures are."""
    options = _arguments()
    settings = ScalingSimulation(profile(options.profile), max_replicas=2048, policy=options.policy)
    rows: list[dict[str, object]] = []
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS), flush=True)
    for name, plain in _demands(options, settings):
        rates = jittered(plain, options.seed) if options.jitter else plain
        scores = compare(settings, name, rates, options)
        row = summary(name, scores, settings.goal)
        rows.append(row | {"runs": [each.document() for each in scores]})
        print("| " + " | ".join(str(row[head]) for head in HEADS) + " |", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1))
    return 0


def compare(
    settings: ScalingSimulation, name: str, rates: Rates, options: argparse.Namespace
) -> list[ScalingScores]:
    """All scalers with all their parameters on one demand."""
    demand = Demand(
        rates,
        LognormalSpread(1.0),
        settings.engine,
        tick_s=tick_for(rates.end_s),
        seed=options.seed,
    )
    targets = [each for each in options.own_targets.split(",") if each]
    written = [OWN, *(f"{OWN}:attainment={target}" for target in targets)]
    written += [ORACLE, *(each for name in options.scalers for each in combinations(name))]
    workload = ScalingWorkload(name, demand)
    runs = run_scalers(settings, workload, written, processes=options.jobs, report=lambda *_: None)
    return [run.scores for run in runs]


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
    closed = gap_closed(only_own, goal)
    beaten = better_in_both(scores)
    return {
        "demand": name,
        "headrace": _said(own, oracle),
        "headrace at 99 %": _said(own_best, oracle),
        "oracle h": f"{oracle.replica_hours:,.0f}",
        "cheapest baseline": _named(best, oracle),
        "default": _named(plain, oracle),
        "beaten by": f"{len(beaten)}" + (f" ({beaten[0].scaler})" if beaten else ""),
        "gap": "–" if closed is None else f"{closed:.0%}",
    }


def _cheapest(scores: list[ScalingScores]) -> ScalingScores | None:
    return min(scores, key=lambda each: each.replica_hours) if scores else None


def _said(score: ScalingScores | None, oracle: ScalingScores) -> str:
    if score is None:
        return "not reached"
    return f"{score.attainment:.2%}, {score.replica_hours / oracle.replica_hours:.2f}×"


def _named(score: ScalingScores | None, oracle: ScalingScores) -> str:
    return "none" if score is None else f"{score.scaler}: {_said(score, oracle)}"


def _demands(
    options: argparse.Namespace, settings: ScalingSimulation
) -> Iterator[tuple[str, Rates]]:
    for seed in range(options.seeds):
        for shape in options.shapes.split(",") if options.shapes else ():
            yield f"{shape} {seed}", scaled_to(SHAPES[shape](seed), settings, options.mean)
    if options.rates is None:
        return
    with options.rates.open(encoding="utf-8") as lines:
        rates = read_rates(options.rates.name, lines).scaled(options.rate_scale)
    days = int(rates.end_s // DAY_S)
    if options.days:
        for place in range(0, days, max(days // options.days, 1)):
            yield f"{options.rates.stem}, day {place}", rates.piece(place * DAY_S, DAY_S)
    else:
        yield options.rates.stem, rates


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
    parser.add_argument("--mean", type=float, default=20.0)
    parser.add_argument("--rates", type=Path)
    parser.add_argument("--rate-scale", type=float, default=1.0)
    parser.add_argument("--days", type=int, default=0, help="so many single days of --rates")
    parser.add_argument("--jitter", action="store_true", help="changes off their full ten minutes")
    baselines = [name for name in NAMES if name not in {OWN, ORACLE}]
    parser.add_argument("--scalers", type=baselines_of, default=baselines, help="of the baselines")
    parser.add_argument("--own-targets", default="0.98,0.985,0.9925,0.995,0.9975")
    parser.add_argument("--profile", default="h100-llama-3.1-8b")
    parser.add_argument("--policy", choices=POOLS_BEHIND, default=PLAIN_POLICY, help="the router")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes")
    parser.add_argument("--json", type=Path, help="write all runs there")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
