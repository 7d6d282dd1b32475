"""What a better view would bring: `seconds` and the defaults beside policies that see everything.

    python -m benchmarks.routing_clairvoyant [--scale 0.5] [--seeds 2] [--log FILE]

The cells are some of the routing grid's, so that its log serves here, too; none where many hundred
requests are held, each of which is tried again on copies of all engines at each event. Each figure
is the mean over seeds. `bound` is each prompt alone beside one endless cache; what the others see
is told in `routing_true_state` and `routing_foresight`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from benchmarks.routing_bound import UNLOADED_REFERENCE
from benchmarks.routing_capacity import capacities
from benchmarks.routing_grid import Cell
from benchmarks.routing_runs import Outcome, Play, Runner
from benchmarks.routing_seeing import SEEING
from benchmarks.routing_tuning import OURS, baselines

CELLS = (
    Cell("conversation", 8, 0.9),
    Cell("multi_turn", 8, 0.9),
    Cell("agentic", 8, 0.7),
    Cell("single_shots", 8, 0.9),
    Cell("code_completion", 8, 0.9),
    Cell("conversation", 8, 0.7),
    Cell("multi_turn", 8, 0.7),
    Cell("agentic", 8, 0.9),
    Cell("agentic", 2, 0.7),
    Cell("conversation", 8, 0.4),
    Cell("single_shots", 8, 0.7),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Play and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=0.5, help="share of the requests to play")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--log", type=Path, help="where each run is kept; go on from there")
    options = parser.parse_args(arguments)
    rows: list[tuple[Cell, dict[str, float], dict[str, float]]] = []
    policies = (OURS, UNLOADED_REFERENCE, *SEEING, *baselines())
    with Runner(options.jobs, options.log) as runner:
        fleets = [(cell.workload, cell.replicas) for cell in CELLS]
        speeds = capacities(runner, fleets, options.scale)
        for cell in CELLS:
            where, seeds = cell.conditions(speeds), range(options.seeds)
            plays = {
                policy: [Play(where, policy, seed, options.scale) for seed in seeds]
                for policy in policies
            }
            outcomes = runner.run([play for some in plays.values() for play in some])
            rows.append((cell, *_compared(plays, outcomes)))
            print(f"{len(rows)} of {len(CELLS)} cells", file=sys.stderr, flush=True)
    print("\n".join(_table(rows)))


def _compared(
    plays: dict[str, list[Play]], outcomes: dict[Play, Outcome]
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean TTFT and misses of each column; the default is the best one for each."""
    ttft_s = {name: fmean(outcomes[play].ttft_s for play in some) for name, some in plays.items()}
    misses = {name: fmean(outcomes[play].misses for play in some) for name, some in plays.items()}
    for figures in (ttft_s, misses):
        figures["best default"] = min(figures[name] for name in baselines())
    return ttft_s, misses


def _table(rows: list[tuple[Cell, dict[str, float], dict[str, float]]]) -> list[str]:
    """Mean TTFT in seconds, with the change against the best default, and misses."""
    columns = (OURS, *SEEING)
    lines = [
        f"| traffic | best default | {' | '.join(columns)} | bound |",
        "|" + "---|" * (len(columns) + 3),
    ]
    changes: dict[str, list[float]] = {name: [] for name in (*columns, UNLOADED_REFERENCE)}
    for cell, ttft_s, misses in rows:
        best_s = ttft_s["best default"]
        for name, found in changes.items():
            found.append(ttft_s[name] / best_s - 1)
        figures = [
            f"{ttft_s[name]:.3f} ({changes[name][-1]:+.0%}), {misses[name]:.1%}" for name in columns
        ]
        label = f"{cell.workload} ×{cell.replicas} {cell.load:g}"
        best = f"{best_s:.3f}, {misses['best default']:.1%}"
        bound = f"{ttft_s[UNLOADED_REFERENCE]:.3f} ({changes[UNLOADED_REFERENCE][-1]:+.0%})"
        lines.append(f"| {label} | {best} | {' | '.join(figures)} | {bound} |")
    medians = " | ".join(f"{median(changes[name]):+.1%}" for name in columns)
    lines.append(f"| median | | {medians} | {median(changes[UNLOADED_REFERENCE]):+.1%} |")
    return lines


if __name__ == "__main__":
    main()
