"""llm-d's published ramp: does its law, re-implemented, land near 95.8 % at 5.93 replicas?

    Qwen3-32B, two H100 each, 2 → 10 → 1 requests/s, TTFT 3 s, TPOT 100 ms, ready after 100 s,
    1 to 8 replicas (a static 8 is its 100 %)

As the guide has it, `--published`: stages of 5 to 6 minutes, prompts of 4,000 and answers of 1,000
tokens that hardly vary, evenly spaced, 3 to 8 replicas. Else a slower and finer ramp of what varies
more: prompts of `--prompt` and answers of `--answer` tokens in the mean (lognormal, CV 1), Poisson
arrivals, steps of 1 request/s that last 5, 10 or 20 minutes.

Source of both: llm-d's guide `workload-autoscaling/slo-aware`, its `benchmark-templates`.

Single requests, or `--mode fluid`. Each scaler as it comes; the oracle at 99 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from headrace.engine_model.profiles import profile
from headrace.simulator.scaling.demand import demand_of_trace
from headrace.simulator.scaling.runs import ScalingWorkload, run_scaler
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.settings import Slo
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import Rates, RateStep, arrivals_of

PUBLISHED = "published: 95.8 % at 5.93 replicas; static 8: 100 %"
PUBLISHED_STAGES = ((2, 330), (4, 360), (6, 360), (8, 360), (10, 360), (4, 360), (1, 300))
"""Requests/s and seconds."""
PUBLISHED_PROMPT, PUBLISHED_ANSWER, PUBLISHED_CV = 4000.0, 1000.0, 0.08
PUBLISHED_LEAST = 3
EVEN_CV = 0.01
"""Of gaps that are all but alike."""
LEVELS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
SCALERS = ("llmd_slo", "headrace", "llmd_token", "dynamo_planner", "keda_queue", "oracle")


def main() -> int:
    """Print a table per duration."""
    options = _arguments()
    engine = profile("h100-qwen3-32b-tp2")
    settings = ScalingSimulation(
        engine,
        Slo(3.0, 0.1),
        cold_start_s=100.0,
        min_replicas=max(options.min, PUBLISHED_LEAST) if options.published else options.min,
        max_replicas=options.max,
        policy=options.policy,
    )
    print(PUBLISHED)
    print("| step | scaler | attainment | mean replicas | peak | changes |\n" + "|---" * 6 + "|")
    for step, ramp, spread, gap_cv in _ramps(options):
        requests = list(arrivals_of(ramp, spread, options.seed, gap_cv=gap_cv))
        demand = demand_of_trace("ramp", requests, engine, seed=0)
        played = None if options.mode == "fluid" else requests
        workload = ScalingWorkload("ramp", demand, played)
        # A static fleet of any size is held at the maximum.
        static = f"static:margin={10 * settings.max_replicas}"
        for scaler in options.scalers.split(",") if options.scalers else (*SCALERS, static):
            scores = run_scaler(settings, workload, scaler).scores
            mean = scores.replica_hours * 3600 / demand.end_s
            name = scores.scaler.partition(":margin")[0]
            cells = (step, name, f"{scores.attainment:.2%}", f"{mean:.2f}")
            said = " | ".join((*cells, str(scores.peak), str(scores.changes)))
            print(f"| {said} |", flush=True)
    return 0


def _ramps(options: argparse.Namespace) -> Iterator[tuple[str, Rates, LognormalSpread, float]]:
    """What the steps are called, rates, spread of lengths and of gaps."""
    if options.published:
        yield "published", published_ramp(), LognormalSpread(PUBLISHED_CV), EVEN_CV
        return
    for minutes in options.minutes:
        yield f"{minutes} min", _ramp(minutes, options), LognormalSpread(1.0), 1.0


def published_ramp() -> Rates:
    """The stages of the guide, one after another."""
    steps: list[RateStep] = []
    begin_s = 0.0
    for level, span_s in PUBLISHED_STAGES:
        steps.append(RateStep(begin_s, float(level), PUBLISHED_PROMPT, PUBLISHED_ANSWER))
        begin_s += span_s
    return Rates("published", steps, begin_s)


def _ramp(minutes: int, options: argparse.Namespace) -> Rates:
    step_s = 60.0 * minutes
    steps = [
        RateStep(i * step_s, float(level), options.prompt, options.answer)
        for i, level in enumerate(LEVELS)
    ]
    return Rates("ramp", steps, len(steps) * step_s)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompt", type=float, default=4000.0)
    parser.add_argument("--answer", type=float, default=1000.0)
    parser.add_argument("--minutes", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--published", action="store_true", help="the stages of llm-d's guide")
    parser.add_argument("--scalers", help="only these, as they come")
    parser.add_argument("--min", type=int, default=1)
    parser.add_argument("--max", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="another draw of the requests")
    parser.add_argument("--mode", choices=("events", "fluid"), default="events")
    parser.add_argument("--policy", default="least_requests", help="the router, of events")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
