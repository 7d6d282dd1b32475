"""`headrace calibrate`: measures one engine, writes its latency profile, or checks one."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import headrace
from headrace.calibration.comparison import Comparison, compare
from headrace.calibration.notebook import Points
from headrace.calibration.replica import CalibrationError, Replica, identify
from headrace.calibration.session import Measured, Session, Settings
from headrace.calibration.stream import StreamClient
from headrace.calibration.untold_limit import LEAST_PROMPT_TOKENS
from headrace.compose.calibrate.tables import (
    change_in_words,
    comparison_page,
    document_of_comparison,
    document_of_fit,
    fit_page,
)
from headrace.compose.process.lifecycle import run_loop
from headrace.compose.process.machine import machine_of
from headrace.compose.process.result_file import writing
from headrace.compose.process.terminal import Terminal, counted
from headrace.config.document import ConfigError
from headrace.config.profile_file import measured_of, save
from headrace.core.durations import in_words
from headrace.core.one_line import in_a_line
from headrace.core.quantities import percent
from headrace.edges.http.address import Address
from headrace.engine_model.calibration import Doubt, Fit, fit
from headrace.engine_model.measured import MeasuredProfile, Provenance

TOLERANCE = 0.15
"""An engine that became a fifth slower is to be noticed. The medians of one that is alone on its
machine vary by a few per cent; other work on it may make them as slow as that."""
UNLIKE_SHARE = 0.1
"""Of its time, that one experiment of ten may be off before the intervals are not to be believed:
on quiet engines it is a few per cent."""
BUDGET_S = 90.0
CHECK_BUDGET_S = 20.0
_CHECK_BATCH = 8
"""Streams side by side in a check, where nobody knows how many the engine runs at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """The flags as they were given.

    `check` is a profile to compare instead of writing one: a file or the name of a shipped one.
    """

    url: str
    model: str | None = None
    output: Path = Path("profile.yaml")
    check: str | None = None
    tolerance: float | None = None
    budget: float | None = None
    max_batch: int | None = None
    max_prompt: int | None = None
    api_key_env: str | None = None
    machine: str | None = None
    name: str | None = None
    seed: int = 0
    json: bool = False


class CalibrateUsage(Exception):
    """A flag or a file that cannot be used, in one line."""


def calibrate(options: CalibrateOptions, terminal: Terminal) -> int:
    """Run the command; return its exit code: 1 if nothing was written or the check failed.

    Raises:
        CalibrateUsage: a flag or the profile to check cannot be used.
        CalibrationError: the engine cannot be measured, or not now.
    """
    options = replace(options, url=options.url.rstrip("/").removesuffix("/v1"))
    try:
        Address.parse(options.url)
    except ValueError as error:
        raise CalibrateUsage(str(error)) from None
    _refuse_what_would_do_nothing(options)
    if options.max_prompt is not None and options.max_prompt < LEAST_PROMPT_TOKENS:
        raise CalibrateUsage(
            f"--max-prompt {options.max_prompt}: too short to measure; give {LEAST_PROMPT_TOKENS} "
            "or more"
        )
    api_key = None
    if options.api_key_env is not None:
        api_key = os.environ.get(options.api_key_env)
        if not api_key:
            raise CalibrateUsage(f"--api-key-env: {options.api_key_env} is not set")
    if options.check is None:
        folder = options.output.parent
        # Found out now rather than after the measurement.
        if options.output.is_dir():
            raise CalibrateUsage(f"--output {options.output}: is a directory; name a file in it")
        if not folder.is_dir():
            raise CalibrateUsage(f"--output {options.output}: {folder} is no directory")
        return run_loop(_calibrate(options, api_key, terminal))
    try:
        profile = measured_of(options.check)
    except ConfigError as error:
        raise CalibrateUsage(str(error)) from None
    except ValueError as error:
        raise CalibrateUsage(f"--check: {error}") from None
    return run_loop(_check(options, profile, api_key, terminal))


def _refuse_what_would_do_nothing(options: CalibrateOptions) -> None:
    if options.check is None:
        if options.tolerance is not None:
            raise CalibrateUsage("--tolerance goes with --check: a fit has intervals of its own")
        return
    for flag in ("name", "machine"):
        if getattr(options, flag) is not None:
            raise CalibrateUsage(
                f"--{flag} is of a profile that is written, and --check writes none"
            )


async def _calibrate(options: CalibrateOptions, api_key: str | None, terminal: Terminal) -> int:
    replica = await _identified(options, api_key, terminal)
    settings = _settings(options, BUDGET_S)
    measured = await _watched(replica, settings, terminal, Session.calibrate)
    found = fit(measured.prefills, measured.decodes, measured.extent)
    for note in measured.notes:
        terminal.status(f"note: {note}")
    if not isinstance(found, Fit):
        return _refused(options, found, terminal)
    warnings = (*measured.warnings, *_unlike_the_model(found))
    for warning in warnings:
        terminal.problem(f"warning: {warning}")
    profile = _profile(options, replica, measured, found, warnings)
    try:
        if options.json:
            document = document_of_fit(found, profile, measured.notes)
            terminal.result(json.dumps(document, indent=2))
        else:
            terminal.page(fit_page(found, profile))
    finally:  # a reader who went away, as in `| head`, must not cost the profile
        if not found.doubts:
            _save(options, profile, terminal)
    return _refused(options, found.doubts, terminal, shown=True) if found.doubts else 0


def _save(options: CalibrateOptions, profile: MeasuredProfile, terminal: Terminal) -> None:
    with writing(options.output, CalibrationError) as draft:
        save(draft, profile)
    terminal.status(f"wrote {options.output}")


def _refused(
    options: CalibrateOptions, doubts: tuple[Doubt, ...], terminal: Terminal, *, shown: bool = False
) -> int:
    if options.json and not shown:
        document = {"written": False, "doubts": [str(doubt) for doubt in doubts]}
        terminal.result(json.dumps(document, indent=2))
    terminal.problem(f"{options.output} is not written: the data do not support it")
    terminal.details(str(doubt) for doubt in doubts)
    return 1


async def _check(
    options: CalibrateOptions, profile: MeasuredProfile, api_key: str | None, terminal: Terminal
) -> int:
    replica = await _identified(options, api_key, terminal)
    settings = _settings(options, CHECK_BUDGET_S, profile.max_sequences or _CHECK_BATCH)

    tolerance = options.tolerance or TOLERANCE

    def holds(points: Points) -> bool:
        try:
            return compare(profile, *points, tolerance).holds
        except ValueError:  # told when it is over
            return True

    measured = await _watched(
        replica, settings, terminal, lambda session: session.check(profile.latency, holds)
    )
    for note in (*_told_otherwise(profile, replica), *measured.notes):
        terminal.status(f"note: {note}")
    for warning in measured.warnings:
        terminal.problem(f"warning: {warning}")
    try:
        comparison = compare(profile, measured.prefills, measured.decodes, tolerance)
    except ValueError as error:
        raise CalibrationError(str(error)) from None
    if options.json:
        document = document_of_comparison(comparison, measured.warnings)
        terminal.result(json.dumps(document, indent=2))
    else:
        terminal.page(comparison_page(comparison))
    terminal.status(_verdict(comparison, options))
    return 0 if comparison.holds else 1


def _told_otherwise(profile: MeasuredProfile, replica: Replica) -> Iterator[str]:
    """What the engine says of itself today that is not what the profile has: no matter of speed."""
    model = None if profile.measured is None else profile.measured.model
    if model not in {None, replica.title}:
        yield f"the profile is of model {in_a_line(str(model))}, the engine serves {replica.title}"
    for name, said in (
        ("max_context_tokens", "a context of {:,} tokens"),
        ("kv_capacity_tokens", "a KV cache of {:,} tokens"),
    ):
        known, today = getattr(profile, name), getattr(replica, name)
        if None not in {known, today} and known != today:
            yield f"the profile has {said.format(known)}, the engine {said.format(today)}"


def _verdict(comparison: Comparison, options: CalibrateOptions) -> str:
    changed = change_in_words(comparison)
    if comparison.holds:
        return f"{options.check} describes the engine: {changed}"
    return (
        f"{options.check} does not describe the engine any more: {changed}; if nothing else used "
        f"the machine meanwhile, measure it again with `headrace calibrate {options.url}`"
    )


async def _identified(
    options: CalibrateOptions, api_key: str | None, terminal: Terminal
) -> Replica:
    replica = await identify(options.url, options.model, api_key)
    facts = [f"{replica.dialect.title} {replica.version}".rstrip(), f"model {replica.title}"]
    if replica.max_context_tokens is not None:
        facts.append(f"context {replica.max_context_tokens:,}")
    if replica.kv_capacity_tokens is not None:
        facts.append(f"KV cache {replica.kv_capacity_tokens:,} tokens")
    if replica.max_sequences is not None:
        facts.append(counted(replica.max_sequences, "sequence"))
    terminal.status(", ".join(facts))
    return replica


def _settings(options: CalibrateOptions, budget_s: float, max_batch: int | None = None) -> Settings:
    return Settings(
        budget_s=options.budget or budget_s,
        max_batch=options.max_batch or max_batch,
        max_prompt_tokens=options.max_prompt,
        seed=options.seed,
    )


async def _watched(
    replica: Replica,
    settings: Settings,
    terminal: Terminal,
    work: Callable[[Session], Awaitable[Measured]],
) -> Measured:
    """Do the work of a session and show how far it is."""
    client = StreamClient(replica, timeout_s=settings.timeout_s)
    try:
        with terminal.steps() as steps:
            steps.begin("calibrate", f"measuring {replica.url}")
            told: list[str] = []

            def show(what: str, gone_s: float, total_s: float) -> None:
                left = f"{what}, about {max(total_s - gone_s, 0):.0f} s left"
                steps.describe("calibrate", left)
                steps.advance("calibrate", min(gone_s, total_s), total_s)
                part = what.partition(":")[0]
                if part not in told:  # without a terminal a line each is enough
                    told.append(part)
                    steps.remark(f"{part}, about {max(total_s - gone_s, 0):.0f} s left")

            session = Session(replica, client, settings, show)
            measured = await work(session)
            done = counted(len(measured.prefills) + len(measured.decodes), "experiment")
            rounds = counted(measured.rounds, "round")
            steps.finish("calibrate", f"{done} in {rounds}, {in_words(measured.seconds)}")
            return measured
    finally:
        client.close()


def _unlike_the_model(found: Fit) -> Iterator[str]:
    """That intervals, which are of noise, say nothing of what no term of the model describes."""
    off = found.residuals.p90_error
    if off > UNLIKE_SHARE:
        yield (
            f"one experiment of ten is off by over {percent(off)}: the engine is unlike the model, "
            "or was disturbed; the truth may lie outside the intervals"
        )


def _profile(
    options: CalibrateOptions,
    replica: Replica,
    measured: Measured,
    found: Fit,
    warnings: tuple[str, ...],
) -> MeasuredProfile:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = options.name or options.output.stem
    if name == "profile":
        name = f"{replica.title}-{now[:10]}"
    step, token, pair, sequence, kv_token = found.coefficients
    machine = machine_of(replica.url) if options.machine is None else options.machine
    return MeasuredProfile(
        name=name,
        source=f"calibrated {now[:10]}",
        per_step_s=step,
        per_prefill_token_s=token,
        per_attended_token_s=pair,
        per_sequence_s=sequence,
        per_kv_token_s=kv_token,
        request_overhead_s=found.overhead_s,
        prefill_step_tokens=found.prefill_step_tokens,
        max_context_tokens=replica.max_context_tokens,
        kv_capacity_tokens=replica.kv_capacity_tokens,
        kv_block_tokens=replica.kv_block_tokens,
        max_sequences=measured.max_sequences,
        intervals=found.intervals,
        residuals=found.residuals,
        measured=Provenance(
            date=now,
            model=replica.title,
            engine=replica.dialect.name,
            engine_version=replica.version,
            machine=machine,
            headrace_version=headrace.__version__,
            rounds=measured.rounds,
            seconds=round(measured.seconds, 1),
            warnings=warnings,
        ),
    )
