"""`headrace simulate`: plays the policies against the workload and shows who did how well."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from headrace.compose.process.result_file import check_writable, writing
from headrace.compose.process.terminal import Terminal, counted
from headrace.compose.simulate.input import (
    SimulateError,
    SimulateOptions,
    expected_scrapes,
    parse_policies,
    settings_of,
    workload_of,
)
from headrace.compose.simulate.scoreboard import scoreboard
from headrace.core.quantities import format_duration
from headrace.edges.cores import usable_cores
from headrace.simulator.report import report_page
from headrace.simulator.results import FAILED
from headrace.simulator.runs import PolicyRun, run_policies
from headrace.simulator.settings import SimulationSettings
from headrace.simulator.sweep import combinations, defaults_and_best
from headrace.simulator.workloads import FileWorkload, GeneratedWorkload

SCRAPE_S = 10e-6
"""What a scrape of an engine takes to play, about."""
MANY_SCRAPES = 6e6
"""From here on it is said how long they take."""


def simulate(options: SimulateOptions, terminal: Terminal) -> int:
    """Run the command; return its exit code.

    Raises:
        SimulateError: the trace, a policy or another flag cannot be used.
    """
    began_s = time.perf_counter()
    policies = parse_policies(options.policies)
    for path in (options.timing, options.report):
        if path is not None:
            check_writable(path, SimulateError)
    workload = workload_of(options)
    settings = settings_of(options, workload.block_tokens)
    for note in workload.notes:
        terminal.status(f"{workload.name}: {note}")
    scrapes = expected_scrapes(settings, workload)
    if scrapes > MANY_SCRAPES:
        minutes = counted(round(scrapes * SCRAPE_S / 60), "minute")
        terminal.status(f"{scrapes:,.2g} scrapes of metrics take some {minutes} a policy")
    played = policies
    if options.sweep:
        tried = (text for policy in policies for text in combinations(policy))
        played = list(dict.fromkeys(tried))
    runs = _play(settings, workload, played, options.jobs or usable_cores(), terminal)
    wall_s = time.perf_counter() - began_s
    terminal.status(_outcome(runs, wall_s))
    if options.sweep:
        runs = defaults_and_best(policies, runs)
    _tell_what_is_too_long(runs, settings, terminal)
    if options.json:
        document = {"runs": [run.scores.document() for run in runs], "seed": settings.seed}
        terminal.result(json.dumps(document, indent=2))
    else:
        terminal.page(scoreboard([run.scores for run in runs], settings.slo, terminal.width))
    # Last: if a disk is full, the figures are there all the same.
    if options.timing is not None:
        _write(options.timing, json.dumps(_timing(runs, wall_s), indent=2) + "\n")
    if options.report is not None:
        parameters = _parameters(options, settings, workload)
        _write(options.report, report_page(runs, settings, parameters))
    return 0


def _tell_what_is_too_long(
    runs: Sequence[PolicyRun], settings: SimulationSettings, terminal: Terminal
) -> None:
    """Why requests were not served that no replica can ever serve."""
    failed = max(run.results.state.count(FAILED) for run in runs)
    if failed:
        subject = counted(failed, "request")
        verb = "does" if failed == 1 else "do"
        terminal.status(f"{subject} {verb} not fit in a replica's {settings.engine.room}: refused")


def _play(
    settings: SimulationSettings,
    workload: FileWorkload | GeneratedWorkload,
    policies: Sequence[str],
    processes: int,
    terminal: Terminal,
) -> list[PolicyRun]:
    runs: list[PolicyRun] = []
    begun, ended = set[str](), set[str]()
    with terminal.steps() as steps:

        def report(policy: str, over: int) -> None:
            if policy in ended or not over:
                return
            if policy not in begun:
                begun.add(policy)
                steps.begin(policy, policy)
            steps.advance(policy, over, workload.count)

        for run in run_policies(settings, workload, policies, processes=processes, report=report):
            said = counted(run.scores.requests, "request")
            steps.finish(run.policy, f"{run.policy}: {said} in {run.wall_s:.1f} s")
            ended.add(run.policy)
            runs.append(run)
    return runs


def _outcome(runs: Sequence[PolicyRun], wall_s: float) -> str:
    requests = counted(max(run.scores.requests for run in runs), "request")
    policies = "1 policy" if len(runs) == 1 else f"{len(runs)} policies"
    return f"{requests} under {policies} in {wall_s:.1f} s"


def _timing(runs: Sequence[PolicyRun], wall_s: float) -> dict[str, object]:
    each = [
        {"policy": run.policy, "requests": run.scores.requests, "wall_s": round(run.wall_s, 3)}
        for run in runs
    ]
    return {"runs": each, "wall_s": round(wall_s, 3)}


def _parameters(
    options: SimulateOptions,
    settings: SimulationSettings,
    workload: FileWorkload | GeneratedWorkload,
) -> list[tuple[str, str]]:
    """What the report shows of the input."""
    return [
        ("trace", workload.name),
        ("requests", f"{workload.count:,}"),
        ("seconds of trace", options.duration or "all"),
        ("speed", f"{options.speed:g}"),
        ("replicas", str(settings.replicas)),
        ("profile", options.profile),
        ("SLO", options.slo),
        ("scrape lag", format_duration(settings.scrape_lag_s)),
        ("mismatch", f"{settings.mismatch:g}"),
        ("index", options.index),
        ("seed", str(settings.seed)),
    ]


def _write(path: Path, text: str) -> None:
    with writing(path, SimulateError) as draft:
        draft.write_text(text, encoding="utf-8")
