"""What `seconds` loses by pricing a shortlist of a large fleet instead of all of it, simulated.

    python -m benchmarks.shortlist [--replicas 64,256] [--seeds 3] [--requests 100] [--json]

Each run is played twice with the same seed: as it is, and with every replica priced. Engines are
one H100 with Llama 3.1 8B each; traffic comes at about 90 % of what such a fleet carries
(`SPEEDS`). A difference in TTFT is (shortlist - all) / all, over the means of all seeds; `spread`
is the half-width of what single seeds gave.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import NamedTuple

from benchmarks.routing_workloads import GENERATORS
from headrace.core import routing
from headrace.edges.end_with_parent import end_with_parent
from headrace.engine_model.profiles import profile
from headrace.simulator.runs import run_policy
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.generated import taken
from headrace.traffic.shared_system_prompts import SharedSystemPrompts, shared_system_prompts
from headrace.traffic.trace import Trace, TraceRequest

PROFILE = "h100-llama-3.1-8b"
SPEEDS = {
    "multi_turn": 2.3,
    "agentic": 0.32,
    "shared_system_prompts": 14.0,
    "single_shots": 11.0,
    "code_completion": 11.0,
}
"""Requests per second and replica: of the first two nine tenths of the capacity that `routing_grid`
finds for 32 replicas. That of the others was not searched for: at these most are in time."""


class Play(NamedTuple):
    """One run; `scored` is how many replicas are all priced."""

    workload: str
    replicas: int
    seed: int
    requests: int
    scored: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What came of it; `misses` is 1 - goodput share, `hits` the share of input that was cached."""

    ttft_s: float
    ttft_p99_s: float
    misses: float
    hits: float


def _shared(replicas: int, requests_per_s: float, seed: int) -> tuple[int, Iterator[TraceRequest]]:
    """Three system prompts for two replicas, some far more popular than others."""
    shape = SharedSystemPrompts(prompts=3 * replicas // 2)
    return shape.block_tokens, shared_system_prompts(
        shape, requests_per_s=requests_per_s, seed=seed
    )


_MADE: dict[str, Callable[[int, float, int], tuple[int, Iterator[TraceRequest]]]] = {
    **GENERATORS,
    "shared_system_prompts": _shared,
}


def _traffic(play: Play) -> Trace:
    rate = SPEEDS[play.workload] * play.replicas
    block_tokens, stream = _MADE[play.workload](play.replicas, rate, play.seed)
    return taken(play.workload, block_tokens, stream, play.requests * play.replicas)


def played(play: Play) -> Scores:
    """Play it in this process."""
    routing.MOST_SCORED = play.scored
    settings = SimulationSettings(engine=profile(PROFILE), replicas=play.replicas, seed=play.seed)
    scores = run_policy(settings, _traffic(play), "seconds").scores
    return Scores(scores.ttft_s.mean, scores.ttft_s.p99, 1 - scores.goodput_share, scores.hit_ratio)


def _means(scores: list[Scores]) -> Scores:
    return Scores(*(fmean(values) for values in zip(*map(_values, scores), strict=True)))


def _values(scores: Scores) -> tuple[float, ...]:
    return tuple(asdict(scores).values())


def _row(workload: str, replicas: int, short: list[Scores], full: list[Scores]) -> str:
    a, b = _means(short), _means(full)
    single = [one.ttft_s / other.ttft_s - 1 for one, other in zip(short, full, strict=True)]
    spread = (max(single) - min(single)) / 2
    return (
        f"| {workload} ×{replicas} | {a.ttft_s:.3f} / {b.ttft_s:.3f}"
        f" | {a.ttft_s / b.ttft_s - 1:+.1%} ± {spread:.1%}"
        f" | {a.ttft_p99_s:.2f} / {b.ttft_p99_s:.2f}"
        f" | {1 - a.misses:.2%} / {1 - b.misses:.2%} | {a.hits:.1%} / {b.hits:.1%} |"
    )


HEAD = (
    "| shortlist / all | mean TTFT s | difference | p99 s | goodput | hits |\n"
    "|---|---|---|---|---|---|"
)


def main() -> None:
    """Play everything and print the table."""
    options = _options()
    cells = [(workload, size) for size in options.replicas for workload in options.workloads]
    plays = [
        Play(workload, size, seed, options.requests, scored)
        for workload, size in cells
        for seed in range(options.seeds)
        for scored in (routing.MOST_SCORED, math.inf)
    ]
    results: dict[Play, Scores] = {}
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(
        options.jobs, mp_context=context, initializer=end_with_parent
    ) as executor:
        for play, scores in zip(plays, executor.map(played, plays), strict=True):
            results[play] = scores
            print(f"{len(results)} of {len(plays)}: {play} {scores}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([[play, asdict(scores)] for play, scores in results.items()]))
        return
    print(HEAD)
    for workload, size in cells:
        own = [play for play in plays if (play.workload, play.replicas) == (workload, size)]
        full = [results[play] for play in own if play.scored == math.inf]
        print(_row(workload, size, [results[p] for p in own if p.scored != math.inf], full))


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--replicas", type=_sizes, default=[64, 256], help="sizes (64,256)")
    parser.add_argument(
        "--workloads",
        type=lambda text: text.split(","),
        default=list(SPEEDS),
        help=f"which ({','.join(SPEEDS)})",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--requests", type=int, default=100, help="for each replica (100)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--json", action="store_true", help="figures as JSON, not a table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
