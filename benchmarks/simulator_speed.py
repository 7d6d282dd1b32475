"""How fast the simulator is, and how its time grows with the number of requests.

    python -m benchmarks.simulator_speed --trace TRACE.jsonl    # each policy, 16 replicas
    python -m benchmarks.simulator_speed --sizes 62500,250000,1000000
    python -m benchmarks.simulator_speed --profile --sizes 40000

The first plays a trace under each policy; the second generated conversations over 1,000 replicas
under `seconds`, in three sizes. Each run has a process of its own, so its memory is its own, and
seconds are of its CPU time. How much a core does in one differs between machines and, where its
other half is busy, from minute to minute. So each run is also told in yardsticks: a fixed amount of
plain Python (a heap, a dictionary, floats, calls), done in the same process before and after it.
For comparison: Dynamo's replay, in Rust, did 2,500 requests a second on a core like this with its
KV router, Vidur's event loop, in Python, 45 to 92.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import resource
import time
from collections.abc import Callable
from heapq import heappush, heapreplace
from pathlib import Path
from typing import NamedTuple

from headrace.core.policies import POLICIES
from headrace.edges.end_with_parent import end_with_parent
from headrace.engine_model.profiles import profile
from headrace.simulator.results import Scores
from headrace.simulator.runs import POOLED_REFERENCE, PolicyRun, run_policy
from headrace.simulator.settings import SimulationSettings
from headrace.simulator.workloads import FileWorkload, GeneratedWorkload
from headrace.traffic.reader import read_trace

ENGINE = "h100-llama-3.1-8b"
TRACE_REPLICAS = 16
FLEET_REPLICAS = 1000
RATE_PER_REPLICA = 0.8
"""Requests per second; about half of what such a replica carries of these conversations."""
ROWS_SHOWN = 25
YARDSTICK_TURNS = 400_000
YARDSTICK_QUEUE = 1000


class Measured(NamedTuple):
    """One run; `yardsticks` is its CPU time by that of the yardstick."""

    cpu_s: float
    wall_s: float
    yardsticks: float
    peak_mb: int
    scores: Scores


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="a trace, played under each policy")
    parser.add_argument("--sizes", default="", help="requests of generated traffic, with commas")
    parser.add_argument("--replicas", type=int, default=FLEET_REPLICAS)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    if options.trace is not None:
        _trace(options.trace, profiled=options.profile)
    if options.sizes:
        sizes = [int(size) for size in options.sizes.split(",")]
        _sizes(sizes, options.replicas, profiled=options.profile)


def _trace(path: Path, *, profiled: bool) -> None:
    with path.open(encoding="utf-8") as lines:
        workload = FileWorkload(read_trace(str(path), lines, seed=0))
    print(f"{workload.count:,} requests over {TRACE_REPLICAS} replicas")
    policies = ["seconds"] if profiled else [*POLICIES, POOLED_REFERENCE]
    for policy in policies:
        run = _measured(workload, policy, TRACE_REPLICAS, profiled=profiled)
        print(
            f"{policy:24} {run.cpu_s:6.2f} s CPU, {run.yardsticks:6.1f} yardsticks, "
            f"{run.wall_s:6.2f} s wall, {workload.count / run.cpu_s:8,.0f} requests/s"
        )


def _sizes(sizes: list[int], replicas: int, *, profiled: bool) -> None:
    print(f"seconds over {replicas:,} replicas")
    for size in sizes:
        workload = GeneratedWorkload("multi_turn", size, RATE_PER_REPLICA * replicas, seed=1)
        run = _measured(workload, "seconds", replicas, profiled=profiled)
        print(
            f"{size:10,} requests {run.cpu_s:8.1f} s CPU, {run.yardsticks:8.1f} yardsticks, "
            f"{run.wall_s:8.1f} s wall, {run.cpu_s / size * 1e6:6.0f} µs each, "
            f"{run.peak_mb:6,} MB, goodput {run.scores.goodput_share:.4f}, "
            f"{run.scores.completed:,} completed"
        )


def _measured(
    workload: FileWorkload | GeneratedWorkload, policy: str, replicas: int, *, profiled: bool
) -> Measured:
    """One run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, end_with_parent) as pool:
        return pool.apply(_run, (workload, policy, replicas, profiled))


def _run(
    workload: FileWorkload | GeneratedWorkload,
    policy: str,
    replicas: int,
    profiled: bool,
) -> Measured:
    settings = SimulationSettings(profile(ENGINE), replicas=replicas)
    yardstick_s = _yardstick_s()
    began_s = time.process_time()
    run = _profiled(lambda: run_policy(settings, workload, policy), profiled=profiled)
    cpu_s = time.process_time() - began_s
    yardstick_s = (yardstick_s + _yardstick_s()) / 2
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Measured(cpu_s, run.wall_s, cpu_s / yardstick_s, peak_mb, run.scores)


def _yardstick_s() -> float:
    """CPU seconds of a fixed amount of what an event loop in Python does."""
    began_s = time.process_time()
    agenda: list[tuple[float, int]] = []
    for turn in range(YARDSTICK_QUEUE):
        heappush(agenda, (float(turn), turn))
    sums: dict[int, float] = {}
    for turn in range(YARDSTICK_QUEUE, YARDSTICK_TURNS):
        at_s, owner = agenda[0]
        sums[owner % YARDSTICK_QUEUE] = _yardstick_step(sums.get(owner % YARDSTICK_QUEUE, 0.0))
        heapreplace(agenda, (at_s + 1.0 + sums[owner % YARDSTICK_QUEUE], turn))
    return time.process_time() - began_s


def _yardstick_step(sum_s: float) -> float:
    return 0.5 * sum_s + 1.0 / (1.0 + sum_s * sum_s)


def _profiled(work: Callable[[], PolicyRun], *, profiled: bool) -> PolicyRun:
    if not profiled:
        return work()
    profiler = cProfile.Profile()
    outcome = profiler.runcall(work)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(ROWS_SHOWN)
    return outcome


if __name__ == "__main__":
    main()
