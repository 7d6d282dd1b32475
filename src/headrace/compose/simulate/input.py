"""What `headrace simulate` is given, from flags and files to settings, policies and a workload.

Whatever cannot be used ends in a `SimulateError` whose message is the one line a user sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import gcd
from pathlib import Path

from headrace.compose.process.slo_flags import USUAL_SLO, targets_by_tier
from headrace.compose.process.terminal import counted
from headrace.compose.process.text_file import opened
from headrace.config.document import ConfigError
from headrace.config.modelled_engine import KvTokensError, engine_of
from headrace.core.admission import LEAST_TARGET_S
from headrace.core.policies import POLICIES, make_policy, split_policies
from headrace.core.quantities import format_duration, parse_duration, parse_number, parse_whole
from headrace.simulator.runs import POOLED_REFERENCE
from headrace.simulator.settings import SimulationSettings, Slo
from headrace.simulator.workloads import FileWorkload, GeneratedWorkload
from headrace.traffic.reader import read_trace
from headrace.traffic.shape import cut, sped_up
from headrace.traffic.trace import TraceError

DEFAULT_RATE = 1.0
"""Requests per second and replica of generated traffic."""
DEFAULT_REQUESTS = 10_000
MOST_SCRAPES = 1e9
"""Of engines' metrics in a run: some three hours."""


class SimulateError(Exception):
    """What is wrong with the input, in one line."""


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """The flags as they were given; `policies` None means all, `jobs` None one per core.

    With `sweep` each policy is played with all parameters worth trying, too.

    Of `trace` and `traffic` one is given.
    """

    trace: Path | None = None
    traffic: str | None = None
    speed: float = 1.0
    duration: str | None = None
    replicas: int = 8
    profile: str = "h100-llama-3.1-8b"
    kv_tokens: int | None = None
    policies: str | None = None
    sweep: bool = False
    slo: str = USUAL_SLO
    scrape_lag: str = "1s"
    mismatch: float = 0.0
    index: str = "approximate"
    seed: int = 0
    jobs: int | None = None
    json: bool = False
    timing: Path | None = None
    report: Path | None = None


def settings_of(options: SimulateOptions, block_tokens: int) -> SimulationSettings:
    """The fleet and how it is judged; `block_tokens` are those of the workload.

    Raises:
        SimulateError: a flag cannot be used.
    """
    try:
        engine = engine_of(options.profile, options.kv_tokens)
    except ConfigError as error:
        raise SimulateError(f"--profile {error}") from None
    except KvTokensError as error:
        raise SimulateError(str(error)) from None
    except ValueError as error:
        raise SimulateError(f"--profile: {error}") from None
    # A prefix block of the trace is a whole number of the engine's: of 16 tokens where that goes.
    engine = replace(engine, kv_block_tokens=gcd(engine.kv_block_tokens, block_tokens))
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


def expected_scrapes(
    settings: SimulationSettings, workload: FileWorkload | GeneratedWorkload
) -> float:
    """How often engines will be asked for their metrics, which takes time where nothing runs too.

    Raises:
        SimulateError: so often that no run would end.
    """
    scrapes = settings.replicas * workload.span_s / settings.scrape_period_s
    if not scrapes <= MOST_SCRAPES:
        raise SimulateError(
            f"{counted(settings.replicas, 'replica')} over {workload.span_s:,.6g} s are scraped "
            f"{scrapes:,.2g} times, and {MOST_SCRAPES:,.2g} take hours; give a higher --speed, a "
            "shorter --duration or fewer --replicas"
        )
    return scrapes


def parse_policies(text: str | None) -> list[str]:
    """The policies in a list such as `seconds,dynamo_kv:overlap_weight=4,temperature=0`.

    None means all there are, and the pooled reference.

    Raises:
        SimulateError: none is named, one is not known, has a wrong parameter, or comes twice.
    """
    if text is None:
        return [*POLICIES, POOLED_REFERENCE]
    policies = list(split_policies(text))
    if not policies:
        raise SimulateError(f"--policies {text!r} names none; leave it out for all of them")
    for policy in policies:
        if policies.count(policy) > 1:
            raise SimulateError(f"--policies: {policy} is given twice")
        if policy == POOLED_REFERENCE:
            continue
        try:
            make_policy(policy)
        except ValueError as error:
            known = policy.partition(":")[0] in POLICIES
            also = "" if known else f", {POOLED_REFERENCE}"
            raise SimulateError(f"--policies: {error}{also}") from None
    return policies


def only_slo(texts: Sequence[str]) -> str:
    """The targets of all requests, as `--slo` gave them; `USUAL_SLO` where it did not.

    Raises:
        SimulateError: they are given twice, or for a tier: what is simulated has none.
    """
    try:
        by_tier = targets_by_tier(texts or (USUAL_SLO,))
    except ValueError as error:
        raise SimulateError(f"{error}; write --slo {USUAL_SLO}") from None
    tier = next(filter(None, by_tier), None)
    if tier is not None:
        raise SimulateError(
            f"--slo {tier}:{by_tier[tier]}: there are no tiers in a simulation; leave {tier!r} out"
        )
    return by_tier[""]


def parse_slo(text: str) -> Slo:
    """Read `ttft=2s,tpot=50ms`; what is left out keeps its default.

    Raises:
        SimulateError: a part is no target.
    """
    known = {each.name.removesuffix("_s"): each.name for each in fields(Slo)}
    targets: dict[str, float] = {}
    for name, value in _assignments(f"--slo {text}", text, known).items():
        seconds = _duration(f"--slo {text}: {name}", value, above_zero=True)
        if seconds < LEAST_TARGET_S:
            least = format_duration(LEAST_TARGET_S)
            raise SimulateError(f"--slo {text}: {name} is {value!r}; give at least {least}")
        targets[known[name]] = seconds
    return Slo(**targets)


def workload_of(options: SimulateOptions) -> FileWorkload | GeneratedWorkload:
    """What arrives, cut to --duration and then sped up.

    Raises:
        SimulateError: the file, its contents, or a flag cannot be used.
    """
    duration_s = None
    if options.duration is not None:
        duration_s = _duration("--duration", options.duration, above_zero=True)
    if options.traffic is not None:
        return _generated(options, options.traffic, duration_s)
    if options.trace is None:
        raise SimulateError("give --trace FILE or --traffic KIND")
    name = str(options.trace)
    try:
        with opened(options.trace) as lines:
            trace = read_trace(name, lines, seed=options.seed)
        if duration_s is not None:
            trace = cut(trace, duration_s)
        return FileWorkload(sped_up(trace, options.speed))
    except TraceError as error:
        raise SimulateError(str(error)) from None
    except OSError as error:
        raise SimulateError(f"{name}: cannot read the trace: {error.strerror}") from None
    except ValueError as error:
        raise SimulateError(str(error)) from None


def _generated(options: SimulateOptions, text: str, duration_s: float | None) -> GeneratedWorkload:
    """Read `multi_turn:rate=20,requests=5000`."""
    kind, _, rest = text.partition(":")
    known = ("rate", "requests")
    given = _assignments(f"--traffic {text}", rest, known) if rest else {}
    try:
        rate = parse_number(given.get("rate", str(DEFAULT_RATE * options.replicas)))
        count = parse_whole(given.get("requests", str(DEFAULT_REQUESTS)))
    except ValueError:
        raise SimulateError(
            f"--traffic {text}: rate is a number of requests a second, requests a whole number"
        ) from None
    try:
        workload = GeneratedWorkload(kind, count, rate, options.seed, options.speed, duration_s)
    except ValueError as error:
        raise SimulateError(f"--traffic {text}: {error}") from None
    if next(iter(workload.requests), None) is None:
        raise SimulateError(
            f"--duration {options.duration}: no request of --traffic {text} arrives so soon; give "
            "a longer one"
        )
    return workload


def _assignments(
    what: str, text: str, known: Mapping[str, str] | tuple[str, ...]
) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if name not in known or not equals:
            raise SimulateError(
                f"{what}: {part!r} is not known; give {' and '.join(known)} as name=value"
            )
        if name in given:
            raise SimulateError(f"{what}: {name} is given twice")
        given[name] = value
    return given


def _duration(what: str, text: str, *, above_zero: bool = False) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise SimulateError(f"{what}: {text!r} is not {error}") from None
    if seconds < 0 or (above_zero and seconds == 0):
        least = "more than 0" if above_zero else "0 or more"
        raise SimulateError(f"{what}: {text!r} is not {least}")
    return seconds
