"""`headrace simulate scaling`: plays the scalers against the demand and shows who did how well."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from headrace.compose.process.result_file import check_writable, writing
from headrace.compose.process.terminal import Terminal, counted
from headrace.compose.simulate.input import SimulateError
from headrace.compose.simulate.scaling_input import (
    DEFAULT_LENGTHS,
    ScalingOptions,
    parse_scalers,
    scaling_settings,
    scaling_workload,
)
from headrace.compose.simulate.scaling_scoreboard import scaling_scoreboard, verdict
from headrace.core.quantities import format_duration
from headrace.edges.cores import usable_cores
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.report import scaling_report
from headrace.simulator.scaling.runs import ScalingWorkload, run_scalers
from headrace.simulator.scaling.scores import ScalingRun
from headrace.simulator.scaling.settings import PLAIN_POLICY, ScalingSimulation
from headrace.simulator.scaling.sweep import combinations, defaults_and_best


def simulate_scaling(options: ScalingOptions, terminal: Terminal) -> int:
    """Run the command; return its exit code.

    Raises:
        SimulateError: a file or a flag cannot be used.
    """
    began_s = time.perf_counter()
    if options.report is not None:
        check_writable(options.report, SimulateError)
    settings = scaling_settings(options)
    workload = scaling_workload(options, settings)
    scalers = parse_scalers(options.scalers, settings, workload)
    for note in workload.notes:
        terminal.status(f"{workload.name}: {note}")
    terminal.status(_said(settings, workload))
    if workload.demand.too_long:
        terminal.status(_said_of_too_long(settings, workload.demand))
    played = scalers
    if options.sweep:
        played = list(dict.fromkeys(text for each in scalers for text in combinations(each)))
    every = _play(settings, workload, played, options.jobs or usable_cores(), terminal)
    terminal.status(f"{counted(len(every), 'run')} in {time.perf_counter() - began_s:.1f} s")
    runs = defaults_and_best(scalers, every, settings.goal) if options.sweep else every
    # First, for a file that cannot be written must not cost the figures; nor may a reader who went
    # away, as in `| head`, cost the file.
    try:
        _tell(options, settings, workload, terminal, runs=runs, every=every)
    finally:
        if options.report is not None:
            parameters = _parameters(options, settings, workload)
            swept = [run.scores for run in every]
            page = scaling_report(runs, settings, workload, parameters, swept)
            with writing(options.report, SimulateError) as draft:
                draft.write_text(page, encoding="utf-8")
    return 0


def _tell(
    options: ScalingOptions,
    settings: ScalingSimulation,
    workload: ScalingWorkload,
    terminal: Terminal,
    *,
    runs: Sequence[ScalingRun],
    every: Sequence[ScalingRun],
) -> None:
    """`runs` are those to compare, `every` one that was played."""
    scores, played = [run.scores for run in runs], [run.scores for run in every]
    if options.json:
        document: dict[str, object] = {"runs": [each.document() for each in scores]}
        if options.sweep:
            document["swept"] = [each.document() for each in played]
        document |= {"seed": settings.seed, "mode": workload.mode}
        document["too_long"] = round(workload.demand.too_long)
        # A fluid's was always the plain one, and not said.
        if workload.requests is not None or settings.policy != PLAIN_POLICY:
            document["policy"] = settings.policy
        terminal.result(json.dumps(document, indent=2))
    else:
        terminal.page(scaling_scoreboard(scores, settings, workload.demand.end_s))
        for line in verdict(played, settings.goal):
            terminal.page(line)


def _play(
    settings: ScalingSimulation,
    workload: ScalingWorkload,
    scalers: Sequence[str],
    processes: int,
    terminal: Terminal,
) -> list[ScalingRun]:
    runs: list[ScalingRun] = []
    begun, ended = set[str](), set[str]()
    with terminal.steps() as steps:

        def report(scaler: str, share: float) -> None:
            if scaler in ended or not share:
                return
            if scaler not in begun:
                begun.add(scaler)
                steps.begin(scaler, scaler)
            steps.advance(scaler, share, 1.0)

        runner = run_scalers(settings, workload, scalers, processes=processes, report=report)
        for run in runner:
            scaler = run.scores.scaler
            steps.finish(scaler, f"{scaler}: {run.wall_s:.1f} s")
            ended.add(scaler)
            runs.append(run)
    return runs


def _said(settings: ScalingSimulation, workload: ScalingWorkload) -> str:
    demand = workload.demand
    requests = counted(round(demand.arrived), "request")
    span = f"{demand.end_s / 3600:,.1f} h"
    played = _played_as(settings, workload)
    return f"{workload.name}: {requests} in {span}{_past(workload)}, played as {played}"


def _said_of_too_long(settings: ScalingSimulation, demand: Demand) -> str:
    """Why no scaler can meet the targets of some, and what that leaves to reach."""
    share = 1.0 - demand.too_long / demand.arrived
    return (
        f"{counted(demand.too_long, 'request')} of {demand.arrived:,.0f} "
        f"{'does' if demand.too_long == 1 else 'do'} not fit in a replica's "
        f"{settings.engine.room}: refused, and missed, so that nobody has more attainment than "
        f"{share * 100:.2f} %"
    )


def _past(workload: ScalingWorkload) -> str:
    history = workload.demand.history
    return f" after a history of {-history[0].begins_s / 3600:,.1f} h" if history else ""


def _played_as(settings: ScalingSimulation, workload: ScalingWorkload) -> str:
    if workload.requests is None:
        behind = "" if settings.policy == PLAIN_POLICY else f", behind {settings.policy}"
        return f"{workload.mode}, ticks of {workload.demand.tick_s:g} s{behind}"
    return f"{workload.mode}, dealt out by {settings.policy}"


def _parameters(
    options: ScalingOptions, settings: ScalingSimulation, workload: ScalingWorkload
) -> list[tuple[str, str]]:
    """What the report shows of the input."""
    demand = workload.demand
    return [
        ("demand", workload.name),
        ("requests", f"{demand.arrived:,.0f}"),
        ("too long for a replica", f"{demand.too_long:,.0f}"),
        ("length", format_duration(round(demand.end_s))),
        ("rate scale", f"{options.rate_scale:g}"),
        ("lengths", _lengths(options)),
        ("played as", _played_as(settings, workload)),
        ("cold start", options.cold_start),
        ("SLO", options.slo),
        ("profile", options.profile),
        ("replicas", f"{options.min} to {options.max}"),
        ("seed", str(options.seed)),
    ]


def _lengths(options: ScalingOptions) -> str:
    return "the trace's" if options.trace is not None else options.lengths or DEFAULT_LENGTHS
