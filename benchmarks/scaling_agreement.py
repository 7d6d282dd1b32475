"""The same requests as a fluid and one by one: do both say the same of each scaler?

    python -m benchmarks.scaling_agreement
    python -m benchmarks.scaling_agreement --policy seconds --scalers headrace llmd_slo

20 minutes of demand that doubles, triples and falls, for two sizes of fleet and two engines.
The fluid is given the counts of the very requests that the events are made of.
"""

from __future__ import annotations

import argparse
import sys

from headrace.engine_model.profiles import profile
from headrace.simulator.scaling.demand import demand_of_trace
from headrace.simulator.scaling.event_run import run_events
from headrace.simulator.scaling.fluid_run import POOLS_BEHIND, run_fluid
from headrace.simulator.scaling.settings import (
    PLAIN_POLICY,
    ScalingSimulation,
)
from headrace.simulator.settings import Slo
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import Rates, RateStep, arrivals_of

SCALERS = ("headrace", "llmd_slo", "llmd_token:kv=0.2", "dynamo_planner:sla=0.7",
           "keda_queue:tokens=1500", "hpa_rps:share=0.6", "static:margin=1.5")  # fmt: skip
CASES = (
    ("8B, 1 to 4 replicas", "h100-llama-3.1-8b", Slo(2.0, 0.05), 900.0, 140.0, 20.0),
    ("8B, 3 to 10 replicas", "h100-llama-3.1-8b", Slo(2.0, 0.05), 900.0, 140.0, 60.0),
    ("32B, 1 to 5 replicas", "h100-qwen3-32b-tp2", Slo(3.0, 0.1), 2500.0, 600.0, 2.5),
)
LEVELS = (1.0, 2.0, 3.0, 1.7)
STEP_S = 300.0


def main() -> int:
    """Print a table."""
    options = _arguments()
    print("| demand | scaler | attainment, fluid | events | replica-hours, fluid | events |")
    print("|" + "---|" * 6, flush=True)
    for name, engine, slo, prompt, answer, per_s in CASES:
        settings = ScalingSimulation(profile(engine), slo, cold_start_s=60.0, policy=options.policy)
        steps = [
            RateStep(i * STEP_S, per_s * level, prompt, answer) for i, level in enumerate(LEVELS)
        ]
        rates = Rates(name, steps, len(steps) * STEP_S)
        requests = list(arrivals_of(rates, LognormalSpread(1.0), 1))
        demand = demand_of_trace(name, requests, settings.engine, seed=0)
        for scaler in options.scalers or SCALERS:
            fluid = run_fluid(settings, demand, scaler).scores
            events = run_events(settings, demand, requests, scaler).scores
            print(
                f"| {name} | {scaler} | {fluid.attainment:.2%} | {events.attainment:.2%} | "
                f"{fluid.replica_hours:.2f} | {events.replica_hours:.2f} |",
                flush=True,
            )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", choices=POOLS_BEHIND, default=PLAIN_POLICY, help="the router")
    parser.add_argument("--scalers", nargs="+", help="only these, with parameters if wanted")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
