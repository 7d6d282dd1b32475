"""How fast the simulator is, and how its time grows with the number of requests.

    python -m benchmarks.simulator_speed --trace TRACE.jsonl    # each policy, 16 replicas
    python -m benchmarks.simulator_speed --sizes 62500,250000,1000000
    python -m benchmarks.simulator_speed --profile --sizes 40000

The first plays a trace under each policy; the second generated conversations over 1,000 replicas
under `seconds`, in three sizes. Each run has a process of its own, so its memory is its own, and
seconds are of its CPU time, so they say the same on a busy machine. For comparison: Dynamo's
replay, in Rust, did 2,500 requests a second on a core like this with its KV router, Vidur's event
loop, in Python, 45 to 92.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import resource
import time
from collections.abc import Callable
from pathlib import Path

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

Measured = tuple[float, float, int, Scores]
"""CPU seconds, wall seconds, peak memory in MB, scores."""


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
        cpu_s, wall_s, _, _ = _measured(workload, policy, TRACE_REPLICAS, profiled=profiled)
        rate = workload.count / cpu_s
        print(f"{policy:24} {cpu_s:6.2f} s CPU, {wall_s:6.2f} s wall, {rate:8,.0f} requests/s")


def _sizes(sizes: list[int], replicas: int, *, profiled: bool) -> None:
    print(f"seconds over {replicas:,} replicas")
    for size in sizes:
        workload = GeneratedWorkload("multi_turn", size, RATE_PER_REPLICA * replicas, seed=1)
        cpu_s, wall_s, peak_mb, scores = _measured(workload, "seconds", replicas, profiled=profiled)
        print(
            f"{size:10,} requests {cpu_s:8.1f} s CPU, {wall_s:8.1f} s wall, "
            f"{cpu_s / size * 1e6:6.0f} µs each, {peak_mb:6,} MB, "
            f"goodput {scores.goodput_share:.4f}, {scores.completed:,} completed"
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
    began_s = time.process_time()
    run = _profiled(lambda: run_policy(settings, workload, policy), profiled=profiled)
    cpu_s = time.process_time() - began_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return cpu_s, run.wall_s, peak_mb, run.scores


def _profiled(work: Callable[[], PolicyRun], *, profiled: bool) -> PolicyRun:
    if not profiled:
        return work()
    profiler = cProfile.Profile()
    outcome = profiler.runcall(work)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(ROWS_SHOWN)
    return outcome


if __name__ == "__main__":
    main()
