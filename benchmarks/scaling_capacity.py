"""What `core/scaling/capacity.py` says that n replicas carry, against the event simulator.

    python -m benchmarks.scaling_capacity [--profile NAME] [--replicas 2,8,20]

For each pool the rate is searched at which the simulated gateway and engines still serve 99 % of
requests within the targets; printed is that rate over the one that capacity answers.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator

from headrace.core.length_counter import sketch_of
from headrace.core.scaling.capacity import pool_requests_per_s
from headrace.core.scaling.settings import EngineFigures, ScalingTarget
from headrace.engine_model.profiles import profile
from headrace.simulator.driver import Simulation
from headrace.simulator.engines import engine_specs
from headrace.simulator.results import scores_of
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import TraceRequest

TARGET = ScalingTarget(2.0, 0.05, 0.99)
MIXES = {"chat": (355, 292), "document": (1500, 140)}
SECONDS = 120.0
HALVINGS = 4


def requests(rate: float, mix: tuple[float, float], seed: int) -> Iterator[TraceRequest]:
    """Poisson arrivals with log-normal lengths (coefficient of variation 1)."""
    rng = random.Random(seed)
    sigma = math.sqrt(math.log(2.0))
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate)
        if at_s > SECONDS:
            return
        prompt, answer = (
            max(int(mean * math.exp(rng.gauss(-sigma * sigma / 2, sigma))), 1) for mean in mix
        )
        yield TraceRequest(at_s, prompt, answer, ())


def share(name: str, replicas: int, rate: float, mix: tuple[float, float]) -> float:
    """The share of requests in time."""
    settings = SimulationSettings(profile(name), replicas=replicas)
    run = Simulation(settings, "seconds", engine_specs(settings), requests(rate, mix, 1), 16)
    return scores_of("seconds", run.run(), settings.slo).goodput_share


def main() -> None:
    """Print one row for each pool."""
    parser = argparse.ArgumentParser(description="capacity against the event simulator")
    parser.add_argument("--profile", default="h100-llama-3.1-8b,h100-qwen3-32b-tp2")
    parser.add_argument("--replicas", default="2,8,20")
    arguments = parser.parse_args()
    print("profile mix replicas predicted_rps simulated_rps simulated/predicted at_predicted")
    for name in arguments.profile.split(","):
        spec = profile(name)
        figures = EngineFigures(
            spec.latency, spec.kv_capacity_tokens, spec.max_sequences, spec.max_batched_tokens
        )
        for label, mix in MIXES.items():
            lengths = sketch_of(
                (each.input_tokens, 0, each.output_tokens) for each in requests(30.0, mix, 2)
            )
            for replicas in map(int, arguments.replicas.split(",")):
                predicted = pool_requests_per_s(figures, TARGET, lengths, replicas)
                low, high = 0.8 * predicted, 1.3 * predicted
                at_predicted = share(name, replicas, predicted, mix)
                for _ in range(HALVINGS):
                    middle = (low + high) / 2
                    met = share(name, replicas, middle, mix)
                    low, high = (middle, high) if met >= TARGET.attainment else (low, middle)
                found = (low + high) / 2
                print(
                    f"{name} {label} {replicas} {predicted:.2f} {found:.2f} "
                    f"{found / predicted:.3f} {at_predicted:.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
