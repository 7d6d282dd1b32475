"""`headrace bench`: plays a load against an endpoint, judges and shows what came out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

from headrace.bench.endpoint.target import Target, reach
from headrace.bench.figures.scores import Summary, summarise
from headrace.bench.figures.slo import Slos
from headrace.bench.record import info_to_json_line, to_json_line
from headrace.bench.report.run_table import run_table
from headrace.bench.sending.memory import check_memory
from headrace.bench.sending.pool import Run, measure
from headrace.bench.settings import BenchError
from headrace.compose.bench.display import BenchDisplay
from headrace.compose.bench.input import BenchOptions, extras_of, load_of, settings_of
from headrace.compose.bench.slo import BenchSloError, parse_slos
from headrace.compose.bench.sweep import check_sweep, run_sweep
from headrace.compose.process.result_file import check_writable, writing
from headrace.compose.process.terminal import Terminal
from headrace.traffic.load import Load

USUAL_WHOLE = "ttft=2s"
"""Targets of whole answers where nothing is said: all of an answer comes with its first token."""


def bench(options: BenchOptions, terminal: Terminal) -> int:
    """Run the command; return its exit code: 0 targets met, 1 not met or not to be trusted.

    Raises:
        BenchError: a flag or the endpoint cannot be used.
    """
    for path in (options.raw, options.report):
        if path is not None:
            check_writable(path, BenchError)
    slos = _slos_of(options)
    settings = settings_of(options)
    if options.sweep:
        check_sweep(options)
        target = reach(settings)
        return run_sweep(
            options, target, slos, lambda load: one_run(target, load, terminal), terminal
        )
    load, notes = load_of(options)
    for note in (*notes, check_memory(load, settings)):
        if note:
            terminal.status(note)
    target = reach(settings)
    return _tell(options, one_run(target, load, terminal), slos, terminal)


def _slos_of(options: BenchOptions) -> Slos:
    """The targets; a whole answer has no TPOT that could be judged.

    Raises:
        BenchError: a target cannot be read, or cannot be judged.
    """
    usual = (USUAL_WHOLE,) if options.no_stream else ()
    try:
        slos = parse_slos(options.slo or usual)
    except BenchSloError as error:
        raise BenchError(str(error)) from None
    known = [name for name, _ in extras_of(options).tiers]
    for tier in slos.tiers:
        if tier not in known:
            raise BenchError(
                f"--slo {tier}: no request has this tier; send it, as in --tiers {tier}=1,other=4"
            )
    if options.no_stream and any(
        each.tpot_s < inf for each in (slos.default, *slos.tiers.values())
    ):
        raise BenchError(
            "--slo tpot: whole answers (--no-stream) have no TPOT; give what they have, as in "
            "--slo e2e=10s"
        )
    return slos


def one_run(target: Target, load: Load, terminal: Terminal) -> Run:
    """Play a load and show how it goes.

    Raises:
        BenchError: a worker process died.
    """
    terminal.status(f"{load.words} → {target.settings.url} ({target.title})")
    with _display(terminal, load.requests) as display:
        return measure(target, load, display.show)


@contextmanager
def _display(terminal: Terminal, planned: int) -> Iterator[BenchDisplay]:
    with terminal.board() as board:
        yield BenchDisplay(board, terminal, planned)


def _tell(options: BenchOptions, run: Run, slos: Slos, terminal: Terminal) -> int:
    summary = summarise(run.records, run.info, slos)
    # First, for a file that cannot be written must not cost the figures; nor may a reader who went
    # away, as in `| head`, cost the files.
    try:
        if options.json:
            terminal.result(json.dumps(summary.document(), indent=2))
        else:
            terminal.page(run_table(summary, terminal.width))
    finally:
        _write_files(options, run, summary, terminal)
    return summary.verdict.exit_code


def _write_files(options: BenchOptions, run: Run, summary: Summary, terminal: Terminal) -> None:
    if options.raw is not None:
        _write_raw(options.raw, run)
        terminal.status(f"wrote {options.raw}")
    if options.report is not None:
        _write_report(options.report, run, summary)
        terminal.status(f"wrote {options.report}")


def _write_raw(path: Path, run: Run) -> None:
    with writing(path, BenchError) as draft, draft.open("wb") as file:
        file.write(info_to_json_line(run.info))
        file.writelines(to_json_line(record) for record in run.records)


def _write_report(path: Path, run: Run, summary: Summary) -> None:
    # Imported once there is something to draw: the first request is not to wait for it.
    from headrace.bench.report.run_page import report_page  # noqa: PLC0415 - see above

    with writing(path, BenchError) as draft:
        draft.write_text(report_page(run.records, summary), encoding="utf-8")
