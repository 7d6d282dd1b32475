"""How many answers are in time when for minutes more is asked for than can be done, simulated.

    python -m benchmarks.routing_overload [--seconds 300] [--replicas 4] [--json]

Requests are all alike, or answers and prompts vary (lognormal, CV 1), Poisson arrivals, nothing is
shed, a run drains. Capacity is the highest rate at which `pooled_reference` has 95 % in time. In
the long run no rule can have more than about 1 / load in time. One H100 with Llama 3.1 8B each;
TTFT 2 s, TPOT 50 ms.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

from headrace.edges.end_with_parent import end_with_parent
from headrace.engine_model.profiles import profile
from headrace.simulator.runs import POOLED_REFERENCE, run_policy
from headrace.simulator.settings import SimulationSettings
from headrace.simulator.workloads import FileWorkload
from headrace.traffic.trace import Trace, TraceRequest

ENGINE = "h100-llama-3.1-8b"
POLICIES = (
    "seconds",
    "round_robin",
    "least_requests",
    "sglang_cache_aware",
    "dynamo_kv",
    "dynamo_lmetric",
    "llmd_default",
)
LOADS = (1.2, 1.5, 2.0)
HALVINGS = 7


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens in and out; `cv` of both."""

    name: str
    prompt: int
    answer: int
    cv: float


TRAFFIC = (
    Lengths("long prompts, alike", 2000, 200, 0.0),
    Lengths("short prompts, alike", 200, 200, 0.0),
    Lengths("mixed", 2000, 200, 1.0),
    Lengths("long answers, mixed", 500, 800, 1.0),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One policy at one load."""

    traffic: str
    load: float
    policy: str
    goodput_share: float
    ttft_p50_s: float
    ttft_mean_s: float


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ProcessPoolExecutor(initializer=end_with_parent) as pool:
        plays = [
            pool.submit(_rows, lengths, options.replicas, options.seconds) for lengths in TRAFFIC
        ]
        rows = [row for play in plays for row in play.result()]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for lengths in TRAFFIC:
        print(f"\n| {lengths.name} | " + " | ".join(f"{load:.0%}" for load in LOADS) + " |")
        print("|---|" + "---|" * len(LOADS))
        for policy in POLICIES:
            cells = [
                f"{row.goodput_share:.1%}, {row.ttft_p50_s:.2f} s"
                for row in rows
                if (row.traffic, row.policy) == (lengths.name, policy)
            ]
            print(f"| {policy} | {' | '.join(cells)} |")


def _rows(lengths: Lengths, replicas: int, seconds: float) -> list[Row]:
    settings = SimulationSettings(engine=profile(ENGINE), replicas=replicas, seed=0)

    def play(policy: str, rate: float) -> Row:
        workload = FileWorkload(Trace("generated", 512, tuple(_requests(lengths, rate, seconds))))
        scores = run_policy(settings, workload, policy).scores
        ttft = scores.ttft_s
        return Row(lengths.name, 0.0, policy, scores.goodput_share, ttft.p50, ttft.mean)

    low, high = 0.5 * replicas, 200.0 * replicas
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        in_time = play(POOLED_REFERENCE, middle).goodput_share >= 0.95
        low, high = (middle, high) if in_time else (low, middle)
    return [
        Row(**{**asdict(play(policy, load * low)), "load": load})
        for load in LOADS
        for policy in POLICIES
    ]


def _requests(lengths: Lengths, rate: float, seconds: float) -> Iterator[TraceRequest]:
    rng, at_s = random.Random(1), 0.0
    sigma = math.sqrt(math.log(1 + lengths.cv**2))
    while (at_s := at_s + rng.expovariate(rate)) < seconds:
        prompt, answer = (
            max(1, round(mean * math.exp(sigma * rng.gauss(0, 1) - sigma**2 / 2)))
            for mean in (lengths.prompt, lengths.answer)
        )
        yield TraceRequest(at_s, prompt, answer)


if __name__ == "__main__":
    main()
