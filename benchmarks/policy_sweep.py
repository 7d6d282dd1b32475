"""The best weights of each policy for a trace: every combination of its module's `SWEEP`, ranked.

    python -m benchmarks.policy_sweep conversation --replicas 8 --speed 1.6 [--policies dynamo_kv]

A combination is written as `policy:parameter=value,…`, which is what `headrace simulate --policies`
and `policy:` in headrace.yaml take.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import product

from benchmarks.routing_runs import Conditions, Outcome, Play, Runner
from benchmarks.routing_workloads import WORKLOADS
from headrace.core.policies import POLICIES, parameters_of, sweep_of

OURS = "seconds"


def baselines() -> list[str]:
    """All policies but ours, at their defaults."""
    return [name for name in sorted(POLICIES) if name != OURS]


def variants(policy: str) -> list[str]:
    """Every combination of the policy's sweep but the one that its defaults are."""
    sweep = sweep_of(policy)
    defaults = parameters_of(policy)
    found: list[str] = []
    for values in product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        if any(value != defaults[name] for name, value in chosen.items()):
            parameters = ",".join(f"{name}={value:g}" for name, value in chosen.items())
            found.append(f"{policy}:{parameters}")
    return found


def best(outcomes: dict[str, Outcome], count: int) -> list[str]:
    """The `count` best policies: in turn the next by misses and the next by mean TTFT."""
    by_misses = sorted(outcomes, key=lambda name: (outcomes[name].misses, outcomes[name].ttft_s))
    by_ttft = sorted(outcomes, key=lambda name: (outcomes[name].ttft_s, outcomes[name].misses))
    in_turn = [name for pair in zip(by_misses, by_ttft, strict=True) for name in pair]
    return list(dict.fromkeys(in_turn))[:count]


def table(outcomes: dict[str, Outcome], names: Iterable[str]) -> str:
    """One line per policy."""
    lines = [f"{'mean TTFT s':>12} {'p99':>8} {'misses':>8} {'TPOT ms':>8} {'hits':>6}  policy"]
    for name in names:
        found = outcomes[name]
        lines.append(
            f"{found.ttft_s:12.3f} {found.ttft_p99_s:8.2f} {found.misses:8.2%}"
            f" {found.tpot_s * 1000:8.1f} {found.hit_ratio:6.1%}  {name}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Sweep, print the best."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--index", choices=("approximate", "exact"), default="approximate")
    parser.add_argument("--policies", default=",".join(sorted(POLICIES)), help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the requests to play")
    parser.add_argument("--best", type=int, default=25, help="how many to print")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    where = Conditions(options.workload, options.replicas, options.speed, index_kind=options.index)
    names = [name for policy in options.policies.split(",") for name in (policy, *variants(policy))]
    plays = [Play(where, name, options.seed, options.scale) for name in names]
    with Runner(options.jobs, None) as runner:
        found = runner.run(
            plays, lambda over, total: print(f"\r{over} of {total}", end="", file=sys.stderr)
        )
    print(file=sys.stderr)
    outcomes = {play.policy: outcome for play, outcome in found.items()}
    print(table(outcomes, best(outcomes, options.best)))


if __name__ == "__main__":
    main()
