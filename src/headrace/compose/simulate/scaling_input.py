"""What `headrace simulate scaling` is given, from flags and files to settings and a workload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from headrace.autoscaler.history import parts_of, samples_by_pool
from headrace.compose.process.slo_flags import USUAL_SLO
from headrace.compose.process.text_file import opened
from headrace.compose.simulate.input import SimulateError, parse_slo
from headrace.core.policies import make_policy
from headrace.core.quantities import parse_duration, parse_number
from headrace.core.scaling.demand_history import DemandSample
from headrace.engine_model.profiles import profile
from headrace.simulator.scaling.demand import Demand, demand_of_trace, history_of, tick_for
from headrace.simulator.scaling.fluid_run import POOLS_BEHIND
from headrace.simulator.scaling.runs import ScalingWorkload
from headrace.simulator.scaling.scalers import NAMES, make_scaler
from headrace.simulator.scaling.settings import PLAIN_POLICY, ScalingSimulation
from headrace.traffic.length_spread import LengthSpread, LognormalSpread, TraceSpread
from headrace.traffic.rates import MOST_REQUESTS_PER_S, Rates, arrivals_of, read_rates
from headrace.traffic.reader import read_trace
from headrace.traffic.shape import multiplied
from headrace.traffic.trace import Trace, TraceError, TraceRequest

MOST_EVENTS = 400_000
"""Requests up to which `--mode auto` plays each of them."""
EVENT_HOURS = 6.0
DEFAULT_LENGTHS = "lognormal:cv=1"
MOST_EVENTS_ASKED = 5_000_000
"""Up to which it does when asked to."""


@dataclass(frozen=True, slots=True)
class ScalingOptions:
    """The flags as they were given; `scalers` None means all, `lengths` None those of a trace, or
    `DEFAULT_LENGTHS` of rates. Of `rates` and `trace` one is given.
    """

    rates: Path | None = None
    trace: Path | None = None
    scalers: str | None = None
    cold_start: str = "240s"
    rate_scale: float = 1.0
    lengths: str | None = None
    history: Path | None = None
    slo: str = USUAL_SLO
    profile: str = "h100-llama-3.1-8b"
    min: int = 1
    max: int = 256
    mode: str = "auto"
    policy: str | None = None
    sweep: bool = False
    seed: int = 0
    jobs: int | None = None
    json: bool = False
    report: Path | None = None


def scaling_settings(options: ScalingOptions) -> ScalingSimulation:
    """The engine, the promises, the cold start.

    Raises:
        SimulateError: a flag cannot be used.
    """
    try:
        engine = profile(options.profile)
    except ValueError as error:
        raise SimulateError(f"--profile: {error}") from None
    try:
        cold_start_s = parse_duration(options.cold_start)
    except ValueError as error:
        raise SimulateError(f"--cold-start: {options.cold_start!r} is not {error}") from None
    policy = options.policy or PLAIN_POLICY
    try:
        make_policy(policy)
    except ValueError as error:
        raise SimulateError(f"--policy: {error}") from None
    try:
        return ScalingSimulation(
            engine,
            parse_slo(options.slo),
            cold_start_s=cold_start_s,
            min_replicas=options.min,
            max_replicas=options.max,
            seed=options.seed,
            policy=policy,
        )
    except ValueError as error:
        raise SimulateError(f"--{error}") from None


def parse_scalers(
    text: str | None, settings: ScalingSimulation, workload: ScalingWorkload
) -> list[str]:
    """The scalers in a list such as `headrace,llmd_slo:up=0.45,down=0.3`; None means all.

    Raises:
        SimulateError: none is named, one is not known, has a wrong parameter, or comes twice.
    """
    scalers: list[str] = [*NAMES] if text is None else list(_split(text))
    if not scalers:
        raise SimulateError(f"--scalers {text!r} names none; leave it out for all of them")
    for written in scalers:
        if scalers.count(written) > 1:
            raise SimulateError(f"--scalers: {written} is given twice")
        try:
            make_scaler(written, settings, workload.demand)
        except ValueError as error:
            raise SimulateError(f"--scalers: {error}") from None
    return scalers


def scaling_workload(options: ScalingOptions, settings: ScalingSimulation) -> ScalingWorkload:
    """What arrives, in the mode that is asked for or fits.

    Raises:
        SimulateError: a file, its contents, or a flag cannot be used.
    """
    if (options.rates is None) == (options.trace is None):
        raise SimulateError("give --rates FILE.csv or --trace FILE, one of them")
    if options.trace is not None and options.lengths is not None:
        raise SimulateError(
            f"--lengths {options.lengths} is for --rates; a trace has its own, so leave it out"
        )
    try:
        if options.rates is not None:
            workload = _of_rates(options, options.rates, settings)
        else:
            assert options.trace is not None
            workload = _of_trace(options, options.trace, settings)
    except TraceError as error:
        raise SimulateError(str(error)) from None
    if workload.requests is None and settings.policy not in POOLS_BEHIND:
        known = " and ".join(POOLS_BEHIND)
        raise SimulateError(
            f"--policy {settings.policy}: as a fluid only {known} can be played; take one of them, "
            "or --mode events"
        )
    return workload


def _of_rates(options: ScalingOptions, path: Path, settings: ScalingSimulation) -> ScalingWorkload:
    with _opened(path) as lines:
        rates = read_rates(str(path), lines)
    rates = rates.scaled(options.rate_scale)
    per_s = max(step.requests_per_s for step in rates.steps)
    if per_s > MOST_REQUESTS_PER_S:
        raise SimulateError(
            f"--rate-scale {options.rate_scale:g}: {path} has {per_s:,.4g} requests/s then, "
            f"and {MOST_REQUESTS_PER_S:,.4g} can be played; give a lower one"
        )
    spread = _spread(options.lengths or DEFAULT_LENGTHS, options.seed)
    if not _plays_events(options.mode, rates):
        demand = Demand(
            rates,
            spread,
            settings.engine,
            tick_s=tick_for(rates.end_s),
            seed=options.seed,
            history=past_demand(options),
        )
        if not any(demand.requests):
            raise _none_fits(path, settings) if demand.too_long else _nothing(path)
        return ScalingWorkload(str(path), demand)
    requests = list(arrivals_of(rates, spread, options.seed))
    if not requests:
        raise _nothing(path)
    demand = _demand_of_trace(options, path, settings, requests)
    return ScalingWorkload(str(path), demand, requests)


def _nothing(path: Path) -> SimulateError:
    return SimulateError(f"{path}: no request arrives; give a higher --rate-scale")


def _of_trace(options: ScalingOptions, path: Path, settings: ScalingSimulation) -> ScalingWorkload:
    with _opened(path) as lines:
        trace = read_trace(str(path), lines, seed=options.seed)
    expected = len(trace.requests) * options.rate_scale
    if options.rate_scale > 1.0 and expected > MOST_EVENTS_ASKED:
        raise SimulateError(
            f"--rate-scale {options.rate_scale:g}: {path} has {expected:,.4g} requests then, and "
            f"{MOST_EVENTS_ASKED:,} copies can be made; give a lower one"
        )
    try:
        trace = multiplied(trace, options.rate_scale, options.seed)
    except ValueError:
        raise _nothing(path) from None
    demand = _demand_of_trace(options, path, settings, trace.requests)
    if not _plays_events(options.mode, demand.rates):
        return ScalingWorkload(str(path), demand, notes=trace.notes)
    trace = _in_whole_blocks(trace, settings.engine.kv_block_tokens)
    return ScalingWorkload(str(path), demand, list(trace.requests), trace.block_tokens, trace.notes)


def _demand_of_trace(
    options: ScalingOptions,
    path: Path,
    settings: ScalingSimulation,
    requests: Sequence[TraceRequest],
) -> Demand:
    history = past_demand(options)
    try:
        return demand_of_trace(
            str(path), requests, settings.engine, seed=options.seed, history=history
        )
    except ValueError:
        raise _none_fits(path, settings) from None


def _none_fits(path: Path, settings: ScalingSimulation) -> SimulateError:
    return SimulateError(
        f"{path}: no request fits in a replica's {settings.engine.room}; take another --profile"
    )


def _lines_of_history(path: Path) -> list[str]:
    with _opened(path, "--history: ") as text:
        return text.readlines()


def past_demand(options: ScalingOptions) -> list[DemandSample]:
    """What came before, up to 0 s; empty where nothing is given.

    Raises:
        SimulateError: the file cannot be used.
        TraceError: one of its lines cannot.
    """
    path = options.history
    if path is None:
        return []
    *older, newest = parts_of(path) or [path]
    lines = _lines_of_history(newest)
    first = next((line for line in lines if line.strip()), "")
    if not first.lstrip().startswith("{"):
        return history_of(read_rates(str(path), lines).scaled(options.rate_scale))
    lines = [line for part in older for line in _lines_of_history(part)] + lines
    pools = {
        pool: told
        for pool, all_told in samples_by_pool(lines).items()
        if (told := [each for each in all_told if each.lasts_s > 0.0 and each.requests >= 0.0])
    }
    if len(pools) != 1:
        found = f"is of {len(pools)} pools ({', '.join(pools)})" if pools else "has no such line"
        raise SimulateError(
            f"--history: {path} {found}; give one pool's lines: "
            '{"pool":NAME,"sample":{"begins_s":…,"lasts_s":…,"requests":…,"input_tokens":…,'
            '"output_tokens":…}}'
        )
    (samples,) = pools.values()
    end_s, factor = samples[-1].begins_s + samples[-1].lasts_s, options.rate_scale
    return [
        DemandSample(
            each.begins_s - end_s,
            each.lasts_s,
            each.requests * factor,
            each.input_tokens * factor,
            each.output_tokens * factor,
        )
        for each in samples
    ]


def _in_whole_blocks(trace: Trace, kv_block_tokens: int) -> Trace:
    """As engines take it: in blocks whose size theirs divides; a trace of other blocks has none."""
    if trace.block_tokens % kv_block_tokens == 0:
        return trace
    notes = trace.notes
    if any(request.blocks for request in trace.requests):
        note = (
            f"block_tokens is {trace.block_tokens}, no multiple of {kv_block_tokens}, the engines'"
        )
        notes += (f"{note}: no prefix is shared",)
    requests = tuple(request._replace(blocks=()) for request in trace.requests)
    return Trace(trace.name, kv_block_tokens, requests, notes)


def _plays_events(mode: str, rates: Rates) -> bool:
    expected = sum(segment.arrivals for segment in rates.segments())
    if mode == "events" and expected > MOST_EVENTS_ASKED:
        raise SimulateError(
            f"--mode events: {expected:,.0f} requests are too many to play each of; "
            "take --mode fluid or a lower --rate-scale"
        )
    if mode == "auto":
        return expected <= MOST_EVENTS and rates.end_s <= EVENT_HOURS * 3600
    return mode == "events"


def _spread(text: str, seed: int) -> LengthSpread:
    """Read `lognormal:cv=1`, or take the lengths of a trace."""
    kind, _, rest = text.partition(":")
    if kind == "lognormal":
        name, equals, value = rest.partition("=")
        try:
            if rest and (name != "cv" or not equals):
                raise ValueError(f"{rest!r} is not cv=NUMBER")
            return LognormalSpread(parse_number(value) if rest else 1.0)
        except ValueError as error:
            raise SimulateError(f"--lengths {text}: {error}") from None
    path = Path(text)
    if rest and not path.exists():
        raise SimulateError(f"--lengths {text}: expected lognormal:cv=NUMBER or a trace's file")
    with _opened(path, "--lengths: ") as lines:
        return TraceSpread(read_trace(text, lines, seed=seed).requests)


def _split(text: str) -> Iterator[str]:
    """At the commas between scalers, not those between parameters."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    written = ""
    for part in parts:
        if written and "=" in part and ":" not in part:
            written += "," + part
            continue
        if written:
            yield written
        written = part
    if written:
        yield written


@contextmanager
def _opened(path: Path, flag: str = "") -> Iterator[TextIO]:
    """A file to read, whose errors are one line for a user."""
    try:
        with opened(path) as lines:
            yield lines
    except OSError as error:
        raise SimulateError(f"{flag}{path}: cannot read it: {error.strerror}") from None
