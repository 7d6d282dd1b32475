"""`headrace bench --sweep`: one load at many rates, and the highest that meets the targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

from headrace.bench.endpoint.target import Target
from headrace.bench.figures.slo import Slos
from headrace.bench.report.sweep_table import look_line, step_line, sweep_table
from headrace.bench.sending.pool import Run
from headrace.bench.settings import BenchError
from headrace.bench.sweep.search import SweepResult, SweepSettings, requests_per_run, sweep
from headrace.compose.bench.input import (
    BenchOptions,
    check_values,
    duration_of,
    load_alone,
    load_at,
    proof_s_of,
    refuse_what_would_do_nothing,
)
from headrace.compose.process.result_file import writing
from headrace.compose.process.terminal import Terminal
from headrace.traffic.arrival_plan import parse_process
from headrace.traffic.load import Load

FIRST_RPS = 1.0
"""Where --rate says nothing."""

PlayLoad = Callable[[Load], Run]


def check_sweep(options: BenchOptions) -> SweepSettings:
    """What a sweep is to do.

    Raises:
        BenchError: a flag cannot be used.
    """
    for flag in ("rates", "users", "trace", "traffic"):
        if getattr(options, flag) is not None:
            raise BenchError(f"--sweep tries rates by itself: leave out --{flag}")
    refuse_what_would_do_nothing(options)
    check_values(options)
    if options.raw is not None:
        raise BenchError("--sweep makes many runs and --raw writes one: leave one of them out")
    try:
        return SweepSettings(
            start_rps=options.rate or FIRST_RPS,
            precision=options.precision,
            repeats=options.repeats,
            proof_s=proof_s_of(options),
            look_s=0.0 if options.requests else duration_of(options),
            seed=options.seed,
        )
    except ValueError as error:
        raise BenchError(f"--sweep: {error}") from None


def run_sweep(
    options: BenchOptions, target: Target, slos: Slos, play: PlayLoad, terminal: Terminal
) -> int:
    """Search and tell; return the exit code.

    Raises:
        BenchError: a flag cannot be used, or the page cannot be written.
    """
    settings = check_sweep(options)
    result = sweep(
        lambda rate, seed: play(load_of_step(options, slos, rate, seed)),
        settings,
        slos,
        on_step=lambda step: terminal.status(step_line(step)),
        on_look=lambda look: terminal.status(look_line(look)),
        run_alone=lambda requests, seed: play(load_alone(options, requests, seed)),
        run_requests=lambda rate, seed, requests: play(
            load_of_proof(options, rate, seed, requests)
        ),
    )
    # First, for a file that cannot be written must not cost the figures; nor may a reader who went
    # away, as in `| head`, cost the file.
    try:
        if options.json:
            terminal.result(json.dumps(result.document(), indent=2))
        else:
            terminal.page(sweep_table(result, terminal.width))
    finally:
        if options.report is not None:
            _write_page(options.report, result, options, target)
            terminal.status(f"wrote {options.report}")
    return result.exit_code


def load_of_step(options: BenchOptions, slos: Slos, rate: float, seed: int) -> Load:
    """One run: as long as --duration, and longer where that were too few requests to show it.

    Raises:
        BenchError: a flag cannot be used.
    """
    requests = options.requests or max(round(rate * duration_of(options)), requests_per_run(slos))
    return load_at(replace(options, requests=requests), rate, seed, inf)


def load_of_proof(options: BenchOptions, rate: float, seed: int, requests: int) -> Load:
    """One run of an attempt to show the answer; --requests is the most that any run has.

    Raises:
        BenchError: a flag cannot be used.
    """
    most = min(requests, options.requests or requests)
    return load_at(replace(options, requests=most), rate, seed, inf)


def _write_page(path: Path, result: SweepResult, options: BenchOptions, target: Target) -> None:
    # Imported once there is something to draw: the first request is not to wait for it.
    from headrace.bench.report.sweep_page import sweep_page  # noqa: PLC0415 - see above

    process = parse_process(options.arrivals).words()
    traffic = f"{process}, {options.lengths} tokens in/out, at many rates"
    page = sweep_page(result, traffic, f"{target.settings.url} ({target.title})")
    with writing(path, BenchError) as draft:
        draft.write_text(page, encoding="utf-8")
