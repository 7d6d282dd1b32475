"""What the routing grid found: per cell, the differences with their noise, and the summary.

    change  = ours / theirs − 1, of means over seeds; negative is better
    noise   = half the 95 % interval of the differences per seed: t(0.975, n − 1) · s / √n
    behind  = worse by more than noise

The strongest baseline is chosen per cell and per figure with the same runs it is compared on, once
for mean TTFT and once for misses, which favours the baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, sqrt
from statistics import mean, median, stdev

from benchmarks.routing_bound import UNLOADED_REFERENCE
from benchmarks.routing_capacity import Fleet
from benchmarks.routing_runs import Outcome
from benchmarks.routing_tuning import OURS
from benchmarks.routing_workloads import WORKLOADS
from headrace.simulator.runs import POOLED_REFERENCE

T_975 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t by degrees of freedom."""
WANTED_TTFT = -0.15
WANTED_MISSES = -0.20
FEWEST_MISSES = 0.001
"""A share of misses below one in a thousand is none: nothing is left to win."""

NO_BASELINES = {OURS, POOLED_REFERENCE, UNLOADED_REFERENCE}

LEGEND = (
    "Means over seeds; in brackets our change against that baseline. ± is half the 95 % interval"
    " of the differences per seed. **Behind** means worse by more than that. `pooled` is all"
    " replicas as one engine; `bound` is each prompt alone on an idle replica that has cached all"
    " that came before it, which no routing can beat."
)
HEADS = (
    "traffic",
    "replicas",
    "load",
    "conditions",
    "TTFT s, ours",
    "best default",
    "best tuned",
    "misses, ours",
    "best default",
    "best tuned",
    "pooled: TTFT s, misses",
    "bound: TTFT s, misses",
    "",
)

Figure = Callable[[Outcome], float]


def ttft(outcome: Outcome) -> float:
    """Mean TTFT in seconds."""
    return outcome.ttft_s


def misses(outcome: Outcome) -> float:
    """Share of requests that missed a target."""
    return outcome.misses


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our policy against one other by one figure, in a cell."""

    rival: str
    ours: float
    theirs: float
    noise: float
    worse_seeds: int
    seeds: int

    @property
    def is_always_worse(self) -> bool:
        """Worse with every seed, by however little: noise hides less with few seeds."""
        return self.worse_seeds == self.seeds

    @property
    def change(self) -> float:
        """Relative; 0 where both are 0."""
        if self.theirs > 0:
            return self.ours / self.theirs - 1
        return 0.0 if self.ours <= 0 else inf

    @property
    def is_behind(self) -> bool:
        """Worse by more than noise."""
        return self.ours - self.theirs > self.noise


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell and the outcomes of each policy, one per seed."""

    workload: str
    replicas: int
    load: float
    mismatch: float
    lag_s: float
    index_kind: str
    by_policy: dict[str, list[Outcome]]

    def mean(self, policy: str, figure: Figure) -> float:
        """Over the seeds."""
        return mean(map(figure, self.by_policy[policy]))

    def against_defaults(self, figure: Figure) -> Comparison:
        """The best baseline at its defaults."""
        return self._against((name for name in self._baselines() if ":" not in name), figure)

    def against_all(self, figure: Figure) -> Comparison:
        """The best baseline, tuned ones included."""
        return self._against(self._baselines(), figure)

    def conditions(self) -> str:
        """What is not as in the plain cells."""
        parts = [
            f"engines ±{self.mismatch:.0%}" if self.mismatch else "",
            f"metrics {self.lag_s:g} s old" if self.lag_s != 1 else "",
            "KV events" if self.index_kind == "exact" else "",
        ]
        return ", ".join(part for part in parts if part)

    def _baselines(self) -> list[str]:
        return [name for name in self.by_policy if name not in NO_BASELINES]

    def bound_share(self) -> float:
        """The least mean TTFT that is possible, as a share of the best default's."""
        least = self.mean(UNLOADED_REFERENCE, ttft)
        return least / self.against_defaults(ttft).theirs

    def _against(self, names: Iterable[str], figure: Figure) -> Comparison:
        rival = min(names, key=lambda name: (self.mean(name, figure), name))
        ours, theirs = (list(map(figure, self.by_policy[name])) for name in (OURS, rival))
        differences = [our - their for our, their in zip(ours, theirs, strict=True)]
        worse = sum(difference > 0 for difference in differences)
        noise = half_interval(differences)
        return Comparison(rival, mean(ours), mean(theirs), noise, worse, len(differences))


def half_interval(values: list[float]) -> float:
    """Half the 95 % interval of the mean; infinite for one value."""
    if len(values) < 2:
        return inf
    t = T_975.get(len(values) - 1, 2.0)
    return t * stdev(values) / sqrt(len(values))


def summary_lines(results: list[CellResult]) -> list[str]:
    """What the acceptance of the routing work asks for, line by line."""
    lines: list[str] = []
    for name, figure in (("mean TTFT", ttft), ("misses", misses)):
        behind = [cell for cell in results if cell.against_all(figure).is_behind]
        where = "; ".join(f"{_where(cell)} (by {_rival(cell, figure)})" for cell in behind)
        lines.append(
            f"- {name}: behind the best tuned baseline by more than noise in {len(behind)} of"
            f" {len(results)} cells{': ' + where if where else ''}"
        )
        worse = [cell for cell in results if cell.against_all(figure).is_always_worse]
        lines.append(
            f"- {name}: worse than it with every seed in {len(worse)} of {len(results)} cells"
            f"{''.join(f'; {_where(cell)} ({_rival(cell, figure)})' for cell in worse)}"
        )
    faster = median(cell.against_defaults(ttft).change for cell in results)
    lines.append(
        f"- median change of mean TTFT against the best baseline at its defaults: {faster:+.1%}"
        f" (wanted {WANTED_TTFT:+.0%})"
    )
    shares = [cell.bound_share() for cell in results if UNLOADED_REFERENCE in cell.by_policy]
    if shares:
        least = 1 + WANTED_TTFT
        lines.append(
            f"- the least mean TTFT that any routing could reach (`bound`) is {median(shares):.0%}"
            f" of the best default's in the median, and more than {least:.0%} of it in"
            f" {sum(share > least for share in shares)} of {len(shares)} cells"
        )
    missing = [cell for cell in results if cell.against_defaults(misses).theirs > FEWEST_MISSES]
    of_all = median(_miss_change(cell) for cell in results)
    text = f"{of_all:+.1%} over all cells"
    if missing:
        of_missing = median(_miss_change(cell) for cell in missing)
        text = (
            f"{of_missing:+.1%} over the {len(missing)} cells where that one misses more than"
            f" {FEWEST_MISSES:.1%} (wanted {WANTED_MISSES:+.0%}), {text}"
        )
    lines.append(f"- median change of misses against the best baseline at its defaults: {text}")
    tuned_ttft = median(cell.against_all(ttft).change for cell in results)
    tuned_misses = median(
        cell.against_all(misses).change
        for cell in results
        if cell.against_all(misses).theirs > FEWEST_MISSES or not missing
    )
    lines.append(
        f"- against the best tuned baseline of each cell: mean TTFT {tuned_ttft:+.1%}, misses"
        f" {tuned_misses:+.1%} in the median"
    )
    return lines


def as_markdown(
    results: list[CellResult],
    speeds: dict[Fleet, float],
    tuned: dict[tuple[str, str], list[str]],
    command: str,
    minutes: float,
) -> str:
    """The whole page: command, summary, table, capacities, tuned parameters."""
    seeds = len(next(iter(results[0].by_policy.values())))
    lines = [
        f"`{command}`: {len(results)} cells, {seeds} seeds each, {minutes:.0f} minutes.",
        "",
        *summary_lines(results),
        "",
        LEGEND,
        "",
        f"| {' | '.join(HEADS)} |",
        "|---" * len(HEADS) + "|",
        *(_row(cell) for cell in results),
        "",
        "Load 1.0, as requests per second:",
        "",
        *(f"- {_capacity(fleet, speed)}" for fleet, speed in sorted(speeds.items())),
    ]
    if tuned:
        lines += ["", "Tuned baselines played beside all defaults, best first:", ""]
        lines += [
            f"- {workload}, {index} index: {', '.join(f'`{name}`' for name in names)}"
            for (workload, index), names in tuned.items()
        ]
    return "\n".join(lines) + "\n"


def as_document(
    results: list[CellResult],
    speeds: dict[Fleet, float],
    tuned: dict[tuple[str, str], list[str]],
    command: str,
) -> dict[str, object]:
    """All figures, for programs."""
    return {
        "command": command,
        "summary": summary_lines(results),
        "capacities": [
            {"workload": workload, "replicas": replicas, "speed": speed}
            for (workload, replicas), speed in sorted(speeds.items())
        ],
        "tuned": [
            {"workload": workload, "index": index, "policies": names}
            for (workload, index), names in tuned.items()
        ],
        "cells": [_cell_document(cell) for cell in results],
    }


def _cell_document(cell: CellResult) -> dict[str, object]:
    return {
        "workload": cell.workload,
        "replicas": cell.replicas,
        "load": cell.load,
        "mismatch": cell.mismatch,
        "lag_s": cell.lag_s,
        "index": cell.index_kind,
        "behind": {
            "ttft": cell.against_all(ttft).is_behind,
            "misses": cell.against_all(misses).is_behind,
        },
        "policies": {
            policy: {
                "ttft_s": [outcome.ttft_s for outcome in outcomes],
                "ttft_p99_s": [outcome.ttft_p99_s for outcome in outcomes],
                "tpot_s": [outcome.tpot_s for outcome in outcomes],
                "misses": [outcome.misses for outcome in outcomes],
                "hit_ratio": [outcome.hit_ratio for outcome in outcomes],
            }
            for policy, outcomes in cell.by_policy.items()
        },
    }


def _row(cell: CellResult) -> str:
    behind = [
        name
        for name, figure in (("TTFT", ttft), ("misses", misses))
        if cell.against_all(figure).is_behind
    ]
    references = [
        f"{cell.mean(name, ttft):.3f}, {cell.mean(name, misses):.1%}"
        if name in cell.by_policy
        else ""
        for name in (POOLED_REFERENCE, UNLOADED_REFERENCE)
    ]
    cells = [
        cell.workload,
        str(cell.replicas),
        f"{cell.load:g}",
        cell.conditions(),
        *_figures(cell, ttft, lambda value: f"{value:.3f}"),
        *_figures(cell, misses, lambda value: f"{value:.2%}"),
        *references,
        f"**behind: {', '.join(behind)}**" if behind else "",
    ]
    return f"| {' | '.join(cells)} |"


def _figures(cell: CellResult, figure: Figure, shown: Callable[[float], str]) -> list[str]:
    default, best = cell.against_defaults(figure), cell.against_all(figure)
    noise = f" ± {best.noise / best.theirs:.0%}" if best.theirs > 0 and best.noise < inf else ""
    return [
        f"**{shown(default.ours)}**",
        f"{shown(default.theirs)} {default.rival} ({_percent(default.change)})",
        f"{shown(best.theirs)} {best.rival} ({_percent(best.change)}{noise})",
    ]


def _percent(change: float) -> str:
    return "∞" if change == inf else f"{change:+.0%}"


def _miss_change(cell: CellResult) -> float:
    """Against the best default; no change where neither misses anything to speak of."""
    found = cell.against_defaults(misses)
    return 0.0 if max(found.ours, found.theirs) <= FEWEST_MISSES else found.change


def _where(cell: CellResult) -> str:
    conditions = cell.conditions()
    return f"{cell.workload} ×{cell.replicas} {cell.load:g}" + (conditions and f", {conditions}")


def _rival(cell: CellResult, figure: Figure) -> str:
    found = cell.against_all(figure)
    return f"{found.rival}, {_percent(found.change)}"


def _capacity(fleet: Fleet, speed: float) -> str:
    workload, replicas = fleet
    if WORKLOADS[workload].file:
        return f"{workload}, {replicas} replicas: {speed:g} × the trace's speed"
    return f"{workload}, {replicas} replicas: {speed * replicas:.1f} requests/s"
