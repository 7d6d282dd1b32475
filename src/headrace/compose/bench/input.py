"""What `headrace bench` is given, from flags to settings and a load.

Whatever cannot be used ends in a `BenchError` whose message is the one line a user sees.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice, takewhile
from math import inf
from pathlib import Path

from headrace.bench.endpoint.requests import extra_members
from headrace.bench.settings import KEY_VARIABLE, BenchError, BenchSettings
from headrace.compose.process.text_file import opened
from headrace.core.names import NAME, NAME_RULE
from headrace.core.quantities import parse_duration, parse_number, parse_whole
from headrace.traffic.arrival_plan import ENDLESS_S, Arrivals, Process, parse_process, parse_step
from headrace.traffic.arrivals import RateSegment
from headrace.traffic.generated import KINDS, MOST_PER_S
from headrace.traffic.length_classes import LengthMix, parse_lengths
from headrace.traffic.load import Extras, Load, SharedPrefix
from headrace.traffic.reader import read_trace
from headrace.traffic.shape import cut, sped_up
from headrace.traffic.trace import Trace, TraceError

DEFAULT_DURATION_S = 30.0
PROOF_RUNS = 12
"""One attempt to show the answer of a sweep is as long as so many runs of its search, 6 minutes at
the default duration: a queue near saturation remembers for longer than a run of the search."""
DEFAULT_RATE = 1.0
"""Requests per second of generated traffic that names none."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The flags as they were given. Of `rate`, `rates`, `users`, `trace`, `traffic` one at most."""

    url: str
    rate: float | None = None
    rates: str | None = None
    users: int | None = None
    trace: Path | None = None
    traffic: str | None = None
    arrivals: str = "poisson"
    think: str = "0s"
    turns: int = 1
    speed: float = 1.0
    duration: str | None = None
    requests: int | None = None
    lengths: str = "256/128"
    shared_prefix: str | None = None
    leave: float = 0.0
    tiers: str | None = None
    seed: int = 0
    text_seed: int | None = None
    model: str = ""
    endpoint: str = "chat"
    no_stream: bool = False
    natural_ends: bool = False
    extra_body: str = ""
    tokenizer: Path | None = None
    timeout: str = "10m"
    max_lag: str = "10ms"
    workers: int | None = None
    slo: tuple[str, ...] = ()
    sweep: bool = False
    precision: float = 0.05
    repeats: int = 3
    proof: str | None = None
    json: bool = False
    raw: Path | None = None
    report: Path | None = None


def settings_of(options: BenchOptions) -> BenchSettings:
    """How requests are made.

    Raises:
        BenchError: a flag cannot be used.
    """
    if options.leave and options.no_stream:
        raise BenchError("--leave needs streams: nobody leaves in the middle of a whole answer")
    extra_members(options.extra_body)
    return BenchSettings(
        url=options.url,
        model=options.model,
        api_key=os.environ.get(KEY_VARIABLE, ""),
        endpoint=options.endpoint,
        stream=not options.no_stream,
        natural_ends=options.natural_ends,
        extra_body=options.extra_body,
        text_seed=options.text_seed,
        tokenizer=options.tokenizer,
        workers=options.workers,
        timeout_s=_duration("--timeout", options.timeout),
        late_after_s=_duration("--max-lag", options.max_lag),
    )


def load_of(options: BenchOptions) -> tuple[Load, tuple[str, ...]]:
    """What arrives, and what is to be said of it.

    Raises:
        BenchError: a flag, the file, or its contents cannot be used.
    """
    refuse_what_would_do_nothing(options)
    check_values(options)
    if options.trace is not None or options.traffic is not None:
        return _traced(options)
    duration_s = _duration_or_none(options)
    requests = options.requests or 0
    if duration_s is None:
        duration_s = inf if requests else DEFAULT_DURATION_S
    if options.turns > 1 and options.leave:
        raise BenchError("--leave does not go with --turns: who left does not go on talking")
    if options.users is not None:
        load = Load.closed(
            options.users,
            _lengths(options),
            seed=options.seed,
            think_s=_duration("--think", options.think, least_s=0.0),
            duration_s=duration_s,
            requests=requests,
            turns=options.turns,
            extras=extras_of(options),
        )
        return load, ()
    if options.rates is not None:
        return _of_rates(options, options.rates), ()
    if options.rate is None:
        raise BenchError(
            "say what arrives: --rate 20, --rates 5@60s,20@60s, --users 8, --trace FILE or "
            "--traffic KIND"
        )
    return load_at(options, options.rate, options.seed, duration_s), ()


def check_values(options: BenchOptions) -> None:
    """Read what a load is made of, before anybody is asked anything or told what is missing.

    Raises:
        BenchError: a flag cannot be read; the line names it.
    """
    _process(options)
    _lengths(options)
    _duration_or_none(options)
    extras_of(options)


def load_at(options: BenchOptions, rate: float, seed: int, duration_s: float) -> Load:
    """The load of these options at another rate; a sweep asks for several.

    Raises:
        BenchError: a flag cannot be used.
    """
    process = _process(options)
    arrivals = Arrivals.at(rate, process, min(duration_s, ENDLESS_S))
    return Load.drawn(
        arrivals,
        _lengths(options),
        seed=seed,
        requests=options.requests or 0,
        extras=extras_of(options),
    )


def load_alone(options: BenchOptions, requests: int, seed: int) -> Load:
    """So many of these requests, each sent when the one before it is over: without any load.

    Not for longer than a run at a rate lasts: what is left out then is not known.

    Raises:
        BenchError: a flag cannot be used.
    """
    return Load.closed(
        1,
        _lengths(options),
        seed=seed,
        duration_s=duration_of(options),
        requests=requests,
        extras=extras_of(options),
    )


def duration_of(options: BenchOptions) -> float:
    """How long one run is to send, in seconds.

    Raises:
        BenchError: the flag is no duration.
    """
    return _duration_or_none(options) or DEFAULT_DURATION_S


def proof_s_of(options: BenchOptions) -> float:
    """How long a rate of a sweep's answer is tried at to show it; 0: not at all.

    Raises:
        BenchError: a flag is no duration.
    """
    if options.proof is None:
        return PROOF_RUNS * duration_of(options)
    return _duration("--proof", options.proof, least_s=0.0)


def extras_of(options: BenchOptions) -> Extras:
    """Who leaves, which tiers, which shared prefix.

    Raises:
        BenchError: a flag cannot be used.
    """
    if not 0.0 <= options.leave <= 1.0:
        raise BenchError(f"--leave {options.leave:g}: not a share from 0 to 1")
    return Extras(options.leave, _tiers(options.tiers), _shared(options.shared_prefix))


# ------------------------------------------------------------ pieces


def refuse_what_would_do_nothing(options: BenchOptions) -> None:
    """Who gives a flag expects that it does something.

    Raises:
        BenchError: a flag is given without what it goes with.
    """
    usual = BenchOptions(options.url)
    has_trace = options.trace is not None or options.traffic is not None
    has_rate = options.rate is not None or options.rates is not None
    for name, can_be_used, needs in (
        ("think", options.users is not None, "--users"),
        ("turns", options.users is not None, "--users"),
        ("speed", has_trace, "--trace or --traffic"),
        ("arrivals", has_rate or not (has_trace or options.users), "--rate or --rates"),
        ("precision", options.sweep, "--sweep"),
        ("repeats", options.sweep, "--sweep"),
        ("proof", options.sweep, "--sweep"),
        ("lengths", not has_trace, "--rate, --rates or --users: a trace has lengths of its own"),
    ):
        if not can_be_used and getattr(options, name) != getattr(usual, name):
            raise BenchError(f"--{name} goes with {needs}")


def _of_rates(options: BenchOptions, text: str) -> Load:
    if options.duration is not None:
        raise BenchError("--duration: the steps of --rates say how long they last")
    segments: list[RateSegment] = []
    for part in text.split(","):
        rate, at, duration = part.strip().partition("@")
        if not at:
            raise BenchError(f"--rates: {part!r} has no duration; write 5@60s or 2..10@120s")
        duration_s = _duration(f"--rates {part}", duration)
        try:
            segments.append(parse_step(rate, duration_s))
        except ValueError as error:
            raise BenchError(f"--rates: {error}") from None
    return Load.drawn(
        Arrivals(_process(options), tuple(segments)),
        _lengths(options),
        seed=options.seed,
        requests=options.requests or 0,
        extras=extras_of(options),
    )


def _traced(options: BenchOptions) -> tuple[Load, tuple[str, ...]]:
    try:
        trace = _generated(options) if options.traffic is not None else _read(options)
        if options.requests:
            trace = Trace(
                trace.name, trace.block_tokens, trace.requests[: options.requests], trace.notes
            )
        trace = sped_up(trace, options.speed)
        speed = f", {options.speed:g} times as fast" if options.speed != 1 else ""
        words = f"{trace.name}{speed}"
        load = Load.of_trace(trace, seed=options.seed, words=words, extras=extras_of(options))
    except TraceError as error:
        raise BenchError(str(error)) from None
    except ValueError as error:
        flag = "--traffic" if options.traffic is not None else "--trace"
        raise BenchError(f"{flag}: {error}") from None
    notes = tuple(f"{trace.name}: {note}" for note in trace.notes)
    return load, notes


def _read(options: BenchOptions) -> Trace:
    assert options.trace is not None
    name = str(options.trace)
    try:
        with opened(options.trace) as lines:
            trace = read_trace(name, lines, seed=options.seed)
    except OSError as error:
        raise BenchError(f"{name}: cannot read the trace: {error.strerror}") from None
    duration_s = _duration_or_none(options)
    return trace if duration_s is None else cut(trace, duration_s)


def _generated(options: BenchOptions) -> Trace:
    """Read `multi_turn:rate=20,requests=5000` and make its requests."""
    assert options.traffic is not None
    kind, _, rest = options.traffic.partition(":")
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not known; known are {', '.join(KINDS)}")
    given: dict[str, str] = {}
    for part in rest.split(",") if rest else ():
        name, _, value = part.strip().partition("=")
        if name in given:
            raise ValueError(f"{options.traffic!r}: {name} is given twice")
        given[name] = value
    try:
        rate = parse_number(given.pop("rate", str(DEFAULT_RATE)))
        most = parse_whole(given.pop("requests", str(options.requests or 0)))
    except ValueError:
        rate, most = 0.0, 0
    if given or not 0 < rate < inf or most < 0:
        raise ValueError(
            f"{options.traffic!r} is not KIND:rate=R,requests=N, as in multi_turn:rate=20"
        )
    if rate > MOST_PER_S:
        raise ValueError(f"{options.traffic!r}: rate is {rate:g}; give at most {MOST_PER_S:,.0f}")
    duration_s = _duration_or_none(options)
    if duration_s is None:
        duration_s = inf if most else DEFAULT_DURATION_S
    block_tokens, stream = KINDS[kind]
    requests = takewhile(lambda request: request.arrival_s < duration_s, stream(rate, options.seed))
    return Trace(
        f"generated {kind}, {rate:g} requests/s",
        block_tokens,
        list(islice(requests, most or None)),
    )


def _process(options: BenchOptions) -> Process:
    try:
        return parse_process(options.arrivals)
    except ValueError as error:
        raise BenchError(f"--arrivals: {error}") from None


def _lengths(options: BenchOptions) -> LengthMix:
    try:
        return parse_lengths(options.lengths)
    except ValueError as error:
        raise BenchError(f"--lengths: {error}") from None


def _tiers(text: str | None) -> tuple[tuple[str, float], ...]:
    if text is None:
        return ()
    tiers: list[tuple[str, float]] = []
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        try:
            number = parse_number(weight or "1")
        except ValueError:
            number = 0.0
        named = NAME.fullmatch(name) is not None
        if not named or not 0 < number < inf or name in dict(tiers):
            problem = f"{part!r} is not a new NAME=WEIGHT, as in gold=1"
            rule = "" if named else f"; in the name {NAME_RULE}"
            raise BenchError(f"--tiers {text}: {problem}{rule}")
        tiers.append((name, number))
    return tuple(tiers)


def _shared(text: str | None) -> SharedPrefix | None:
    if text is None:
        return None
    tokens, _, groups = text.partition(":")
    try:
        return SharedPrefix(parse_whole(tokens), parse_whole(groups or "1"))
    except ValueError:
        raise BenchError(
            f"--shared-prefix {text}: not TOKENS[:GROUPS], whole numbers of 1 or more"
        ) from None


def _duration_or_none(options: BenchOptions) -> float | None:
    return None if options.duration is None else _duration("--duration", options.duration)


def _duration(what: str, text: str, least_s: float | None = None) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise BenchError(f"{what}: {text!r} is not {error}") from None
    if seconds < 0 or (least_s is None and seconds == 0):
        raise BenchError(f"{what}: {text!r} is not {'0 or more' if least_s == 0 else 'above 0'}")
    return seconds
