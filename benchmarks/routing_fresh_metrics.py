"""What the rules that read engines' metrics lose by how old these are, simulated.

    python -m benchmarks.routing_fresh_metrics [--load 0.9] [--scale 0.5] [--json]

Everywhere else a gateway scrapes each engine once a second and is told with a lag of a second, so
what it sees is one to two seconds old. llm-d reads metrics every 50 ms. Here its rules, and others
that read queue and KV usage, are played both ways, beside rules that count for themselves, which
see no difference. Fleets of 8, three seeds, capacity as in `routing_grid`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean

from benchmarks.routing_capacity import capacities
from benchmarks.routing_runs import Conditions, Play, Runner
from benchmarks.routing_workloads import WORKLOADS

REPLICAS = 8
SEEDS = 3
FRESH_S = 0.05
COUNTING = ("seconds", "dynamo_lmetric", "aibrix_prefix_cache")
READING = ("llmd_default", "llmd_precise", "smg_least_load", "least_kv_cache")


@dataclass(frozen=True, slots=True)
class Row:
    """A rule on one kind of traffic; `misses` is 1 - goodput share."""

    workload: str
    policy: str
    is_fresh: bool
    ttft_s: float
    misses: float


def conditions(workload: str, speed: float, *, fresh: bool) -> Conditions:
    """The usual ones, or with metrics read every `FRESH_S` and told at once."""
    usual = Conditions(workload, REPLICAS, round(speed, 4))
    return usual._replace(lag_s=0.0, period_s=FRESH_S) if fresh else usual


def rows(runner: Runner, workloads: Sequence[str], load: float, scale: float) -> list[Row]:
    """Play every rule on every kind of traffic."""
    speeds = capacities(runner, [(name, REPLICAS) for name in workloads], scale)
    asked = [
        (workload, policy, fresh)
        for workload in workloads
        for fresh in (False, True)
        for policy in (*READING, *(() if fresh else COUNTING))
    ]
    plays = {
        (workload, policy, fresh): [
            Play(
                conditions(workload, load * speeds[workload, REPLICAS], fresh=fresh),
                policy,
                seed,
                scale,
            )
            for seed in range(SEEDS)
        ]
        for workload, policy, fresh in asked
    }
    outcomes = runner.run(play for some in plays.values() for play in some)
    return [
        Row(
            *which,
            mean(outcomes[play].ttft_s for play in some),
            mean(outcomes[play].misses for play in some),
        )
        for which, some in plays.items()
    ]


def as_markdown(found: Sequence[Row]) -> str:
    """Mean TTFT and misses: a line per kind of traffic, a column per rule, two if it reads."""
    columns = [(policy, False) for policy in COUNTING]
    columns += [(policy, fresh) for policy in READING for fresh in (False, True)]
    names = [f"{policy}, fresh" if fresh else policy for policy, fresh in columns]
    lines = [f"| traffic | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for workload in dict.fromkeys(row.workload for row in found):
        by = {(row.policy, row.is_fresh): row for row in found if row.workload == workload}
        cells = [f"{by[each].ttft_s:.3f} s, {by[each].misses:.1%}" for each in columns]
        lines.append(f"| {workload} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with Runner(options.jobs, None) as runner:
        found = rows(runner, options.workloads.split(","), options.load, options.scale)
    print(json.dumps([asdict(row) for row in found]) if options.json else as_markdown(found))


if __name__ == "__main__":
    main()
