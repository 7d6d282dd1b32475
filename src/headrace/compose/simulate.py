"""`headrace simulate`: reads the trace, plays the policies, shows who did how well."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from headrace.compose.scoreboard import scoreboard
from headrace.compose.terminal import Steps, Terminal, counted
from headrace.config.quantities import format_duration, parse_duration
from headrace.core.policies import POLICIES, make_policy, split_policies
from headrace.engine_model.profiles import profile
from headrace.simulator.report import report_page
from headrace.simulator.runs import POOLED_REFERENCE, PolicyRun, run_policies
from headrace.simulator.settings import SimulationSettings, Slo
from headrace.traffic.reader import read_trace
from headrace.traffic.shape import cut, sped_up
from headrace.traffic.trace import Trace, TraceError


class SimulateError(Exception):
    """What is wrong with the input, in one line."""


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """The flags as they were given; `policies` "" means all."""

    trace: Path
    speed: float
    duration: str | None
    replicas: int
    profile: str
    policies: str
    slo: str
    scrape_lag: str
    mismatch: float
    index: str
    seed: int
    jobs: int | None
    json: bool
    timing: Path | None
    report: Path | None


def simulate(options: SimulateOptions, terminal: Terminal) -> int:
    """Run the command; return its exit code.

    Raises:
        SimulateError: the trace, a policy or another flag cannot be used.
    """
    began_s = time.perf_counter()
    settings = _settings(options)
    policies = parse_policies(options.policies)
    trace = _workload(options)
    for note in trace.notes:
        terminal.status(f"{trace.name}: {note}")
    runs = _play(settings, trace, policies, _processes(options), terminal)
    wall_s = time.perf_counter() - began_s
    policies_said = "1 policy" if len(runs) == 1 else f"{len(runs)} policies"
    requests_said = counted(len(trace.requests), "request")
    terminal.status(f"{requests_said} under {policies_said} in {wall_s:.1f} s")
    if options.timing is not None:
        _write(options.timing, json.dumps(_timing(runs, wall_s), indent=2) + "\n")
    if options.report is not None:
        _write(options.report, report_page(runs, settings, _described(options, trace)))
    if options.json:
        document = {"runs": [run.scores.document() for run in runs], "seed": settings.seed}
        terminal.result(json.dumps(document, indent=2))
    else:
        terminal.page(scoreboard([run.scores for run in runs], settings.slo))
    return 0


def parse_policies(text: str) -> list[str]:
    """The policies in a list such as `seconds,dynamo_kv:overlap_weight=4,temperature=0`.

    Nothing means all there are, and the pooled reference.

    Raises:
        SimulateError: one is not known, has a wrong parameter, or comes twice.
    """
    policies = list(split_policies(text)) or [*POLICIES, POOLED_REFERENCE]
    for policy in policies:
        if policies.count(policy) > 1:
            raise SimulateError(f"--policies: {policy} is given twice")
        if policy == POOLED_REFERENCE:
            continue
        try:
            make_policy(policy)
        except ValueError as error:
            raise SimulateError(f"--policies: {error}") from None
    return policies


def parse_slo(text: str) -> Slo:
    """Read `ttft=2s,tpot=50ms`; what is left out keeps its default.

    Raises:
        SimulateError: a part is no target.
    """
    known = {each.name.removesuffix("_s"): each.name for each in fields(Slo)}
    targets: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in known:
            raise SimulateError(
                f"--slo {text}: {part!r} is not known; give {' and '.join(known)} as in ttft=2s"
            )
        targets[known[name]] = _duration(f"--slo {text}: {name}", value, above_zero=True)
    return Slo(**targets)


def _settings(options: SimulateOptions) -> SimulationSettings:
    try:
        engine = profile(options.profile)
    except ValueError as error:
        raise SimulateError(f"--profile: {error}") from None
    try:
        return SimulationSettings(
            engine=engine,
            replicas=options.replicas,
            slo=parse_slo(options.slo),
            scrape_lag_s=_duration("--scrape-lag", options.scrape_lag),
            mismatch=options.mismatch,
            kv_events=options.index == "exact",
            seed=options.seed,
        )
    except ValueError as error:
        raise SimulateError(f"--{error}") from None


def _workload(options: SimulateOptions) -> Trace:
    name = str(options.trace)
    try:
        with options.trace.open(encoding="utf-8") as lines:
            trace = read_trace(name, lines, seed=options.seed)
    except TraceError as error:
        raise SimulateError(str(error)) from None
    except OSError as error:
        raise SimulateError(f"{name}: cannot read the trace: {error.strerror}") from None
    try:
        if options.duration is not None:
            trace = cut(trace, _duration("--duration", options.duration, above_zero=True))
        return sped_up(trace, options.speed)
    except ValueError as error:
        raise SimulateError(str(error)) from None


def _duration(what: str, text: str, *, above_zero: bool = False) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise SimulateError(f"{what}: {text!r} is not {error}") from None
    if seconds < 0 or (above_zero and seconds == 0):
        least = "more than 0" if above_zero else "0 or more"
        raise SimulateError(f"{what}: {text!r} is not {least}")
    return seconds


def _processes(options: SimulateOptions) -> int:
    if options.jobs is not None:
        return options.jobs
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _play(
    settings: SimulationSettings,
    trace: Trace,
    policies: Sequence[str],
    processes: int,
    terminal: Terminal,
) -> list[PolicyRun]:
    runs: list[PolicyRun] = []
    total = len(trace.requests)
    with terminal.steps() as steps:
        shown = set[str]()

        def report(policy: str, over: int) -> None:
            if policy not in shown and over:
                shown.add(policy)
                steps.begin(policy, policy)
            if policy in shown:
                steps.advance(policy, over, total)

        for run in run_policies(settings, trace, policies, processes=processes, report=report):
            _finish(steps, run)
            runs.append(run)
    return runs


def _finish(steps: Steps, run: PolicyRun) -> None:
    steps.finish(
        run.policy, f"{run.policy}: {counted(run.scores.requests, 'request')} in {run.wall_s:.1f} s"
    )


def _timing(runs: Sequence[PolicyRun], wall_s: float) -> dict[str, object]:
    each = [
        {"policy": run.policy, "requests": run.scores.requests, "wall_s": round(run.wall_s, 3)}
        for run in runs
    ]
    return {"runs": each, "wall_s": round(wall_s, 3)}


def _described(options: SimulateOptions, trace: Trace) -> list[tuple[str, str]]:
    """The parameters as the report shows them."""
    duration = options.duration or "whole"
    return [
        ("trace", trace.name),
        ("requests", f"{len(trace.requests):,}"),
        ("seconds of trace", duration),
        ("speed", f"{options.speed:g}"),
        ("replicas", str(options.replicas)),
        ("profile", options.profile),
        ("SLO", options.slo),
        ("scrape lag", format_duration(parse_duration(options.scrape_lag))),
        ("mismatch", f"{options.mismatch:g}"),
        ("index", options.index),
        ("seed", str(options.seed)),
    ]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SimulateError(f"{path}: cannot write: {error.strerror}") from None
