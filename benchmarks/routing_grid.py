"""The policy `seconds` against every baseline, at defaults and tuned, on a fixed grid of 60 cells.

    python -m benchmarks.routing_grid [--quick] [--json FILE] [--markdown FILE] [--log FILE]

A cell is a workload, a number of replicas, a load, and what the gateway sees: metrics 1 or 5 s old,
engines whose coefficients are off by up to 30 %, an index of its own or KV events. Load 1.0 is the
fleet's capacity: the highest speed at which `pooled_reference` keeps a goodput share of 0.95. Each
baseline's parameters are tuned for each workload and kind of index at load 0.9 (as `headrace
simulate --sweep` does); the best combinations of all are played in the cells beside all defaults.

Every run stands in the log when it is over, so that a stopped grid goes on where it was, and
`--again seconds` plays only our policy anew. After a change of the simulator, begin a new log.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.routing_bound import UNLOADED_REFERENCE
from benchmarks.routing_capacity import Fleet, capacities
from benchmarks.routing_runs import Conditions, Outcome, Play, Runner
from benchmarks.routing_table import CellResult, as_document, as_markdown, summary_lines
from benchmarks.routing_tuning import OURS, baselines, tuned
from benchmarks.routing_workloads import SEEDS, WORKLOADS
from headrace.edges.cores import usable_cores
from headrace.simulator.runs import POOLED_REFERENCE

TUNING_LOAD = 0.9
TUNING_REPLICAS = 8
REPORT_EVERY_S = 15.0


class Cell(NamedTuple):
    """A place in the grid; `load` is a share of capacity."""

    workload: str
    replicas: int
    load: float
    mismatch: float = 0.0
    lag_s: float = 1.0
    index_kind: str = "approximate"

    def conditions(self, speeds: dict[Fleet, float]) -> Conditions:
        """What to play in it."""
        speed = round(self.load * speeds[self.workload, self.replicas], 4)
        return Conditions(
            self.workload, self.replicas, speed, self.mismatch, self.lag_s, self.index_kind
        )

    def tuning(self) -> Cell:
        """Where its baselines are tuned."""
        return Cell(self.workload, TUNING_REPLICAS, TUNING_LOAD, index_kind=self.index_kind)


def grid() -> list[Cell]:
    """All cells."""
    return [cell for name in WORKLOADS for cell in _cells(name)]


def _cells(name: str) -> Iterator[Cell]:
    small, middle, large = WORKLOADS[name].fleets
    if name == "code_completion":
        yield from (Cell(name, middle, load) for load in (0.7, 0.9, 1.1))
        yield from (Cell(name, replicas, 0.9) for replicas in (small, large))
        yield Cell(name, middle, 0.9, mismatch=0.3, lag_s=5.0)
        return
    yield from (Cell(name, middle, load) for load in (0.4, 0.7, 0.9, 1.1))
    if not WORKLOADS[name].has_reuse:  # where nothing is cached, no index is better than another
        yield from (Cell(name, replicas, 0.9) for replicas in (small, large))
        yield Cell(name, middle, 0.9, mismatch=0.3)
        yield Cell(name, middle, 0.9, lag_s=5.0)
        yield Cell(name, middle, 0.9, mismatch=0.3, lag_s=5.0)
        return
    yield from (Cell(name, replicas, load) for replicas in (small, large) for load in (0.7, 1.0))
    yield Cell(name, middle, 0.9, mismatch=0.3)
    yield Cell(name, middle, 0.9, lag_s=5.0)
    yield Cell(name, middle, 0.9, index_kind="exact")
    yield Cell(name, middle, 0.9, mismatch=0.3, lag_s=5.0, index_kind="exact")


QUICK = (
    Cell("conversation", 8, 0.9),
    Cell("agentic", 8, 0.9),
    Cell("single_shots", 8, 0.9),
    Cell("multi_turn", 8, 0.9, mismatch=0.3, lag_s=5.0, index_kind="exact"),
)


@dataclass(slots=True)
class Progress:
    """Lines on stderr: what is played, how far it is, how long it will take."""

    began_s: float
    stage: str = ""
    stage_began_s: float = 0.0
    reported_s: float = 0.0

    def begin(self, stage: str) -> None:
        """Name what follows."""
        self.stage, self.stage_began_s = stage, time.monotonic()
        self.say("")

    def say(self, what: str) -> None:
        """One line."""
        minutes = (time.monotonic() - self.began_s) / 60
        print(f"[{minutes:5.1f} min] {self.stage}{what}", file=sys.stderr, flush=True)
        self.reported_s = time.monotonic()

    def done(self, over: int, total: int) -> None:
        """A run is over."""
        now = time.monotonic()
        if now - self.reported_s >= REPORT_EVERY_S or over == total:
            left_min = (now - self.stage_began_s) / over * (total - over) / 60
            self.say(f": {over:,} of {total:,} runs, about {left_min:.1f} min left")


def evaluated(
    runner: Runner,
    cells: Sequence[Cell],
    speeds: dict[Fleet, float],
    combinations: dict[tuple[str, str], list[str]],
    *,
    seeds: int,
    scale: float,
    line: Progress,
) -> list[CellResult]:
    """Play every policy in every cell with every seed."""
    defaults = baselines()
    plays: dict[tuple[Cell, str], list[Play]] = {}
    for cell in cells:
        where = cell.conditions(speeds)
        chosen = combinations.get((cell.workload, cell.index_kind), [])
        for policy in (OURS, POOLED_REFERENCE, UNLOADED_REFERENCE, *defaults, *chosen):
            plays[cell, policy] = [Play(where, policy, seed, scale) for seed in range(seeds)]
    # By cell and seed, so that the processes make each trace once.
    in_order = sorted(
        (play for some in plays.values() for play in some),
        key=lambda play: (play.conditions, play.seed),
    )
    outcomes = runner.run(in_order, line.done)
    results: list[CellResult] = []
    for cell in cells:
        by_policy: dict[str, list[Outcome]] = {
            policy: [outcomes[play] for play in some]
            for (of, policy), some in plays.items()
            if of == cell
        }
        results.append(CellResult(*cell, by_policy))
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Play the grid, print the table."""
    options = _options(arguments)
    cells = [cell for cell in (QUICK if options.quick else grid()) if options.cells in _label(cell)]
    if not cells:
        sys.exit(f"no cell has {options.cells!r} in its label; labels are like {_label(QUICK[0])}")
    seeds = options.seeds or (2 if options.quick else SEEDS)
    scale = options.scale or (0.3 if options.quick else 1.0)
    line = Progress(time.monotonic())
    fleets = [(cell.workload, cell.replicas) for cell in cells]
    fleets += [(cell.workload, TUNING_REPLICAS) for cell in cells]
    with Runner(options.jobs, options.log, options.again) as runner:
        line.begin("capacity by pooled_reference")
        speeds = capacities(runner, fleets, scale)
        combinations: dict[tuple[str, str], list[str]] = {}
        if not options.untuned:
            line.begin("tuning baselines")
            found = tuned(
                runner, [cell.tuning().conditions(speeds) for cell in cells], scale, line.done
            )
            combinations = {
                (where.workload, where.index_kind): names for where, names in found.items()
            }
        line.begin(f"{len(cells)} cells × {seeds} seeds")
        results = evaluated(
            runner, cells, speeds, combinations, seeds=seeds, scale=scale, line=line
        )
    minutes = (time.monotonic() - line.began_s) / 60
    command = shlex.join(["python", "-m", "benchmarks.routing_grid", *(arguments or sys.argv[1:])])
    shown = as_markdown(results, speeds, combinations, command, minutes)
    if options.markdown:
        options.markdown.write_text(shown, encoding="utf-8")
    if options.json:
        document = as_document(results, speeds, combinations, command)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("\n".join(summary_lines(results)) if options.markdown else shown)


def _label(cell: Cell) -> str:
    return (
        f"{cell.workload} x{cell.replicas} load={cell.load:g} mismatch={cell.mismatch:g}"
        f" lag={cell.lag_s:g} index={cell.index_kind}"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="four cells, about two minutes")
    parser.add_argument("--cells", default="", help="only cells with this in their label")
    parser.add_argument("--seeds", type=int, help=f"default {SEEDS}")
    parser.add_argument("--scale", type=float, help="share of the requests to play")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes")
    parser.add_argument("--untuned", action="store_true", help="baselines at defaults only")
    parser.add_argument("--log", type=Path, help="where each run is kept; go on from there")
    parser.add_argument("--again", action="append", default=[], help="play this policy anew")
    parser.add_argument("--json", type=Path, help="all figures, for programs")
    parser.add_argument("--markdown", type=Path, help="the table, for docs; else it is printed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
