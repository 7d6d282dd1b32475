"""Headrace's load generator and others, with the same workload against the same engine.

    python -m benchmarks.bench_vs_peers [--quick] [--only headrace,aiperf] [--rates 20,100,200]
    python -m benchmarks.bench_vs_peers --llamacpp      against a real replica, agreement alone

Against `headrace engine --script ttft=50ms,itl=10ms`, so that the truth is known: 256 tokens in, 32
out, Poisson. Three things are measured, all tools in turn on the same machine:

1. what a tool costs: CPU of its whole process tree per request, above what a run of a few requests
   takes, and seconds from the command to its first request;
2. the highest rate that is *held right*: the rate it reached within 7 % of what was
   asked (three standard deviations of Poisson arrivals, where those are more), TTFT p50
   within 5 ms and TPOT p50 within 5 % of the script; the first rate that is not ends the climb;
3. whether they agree: at 30 % of the slowest tool's highest right rate, in rounds with the order
   turned, medians of the rounds. Ratios are medians of each round's own: the machine may be a
   quarter faster in one than in another.

A tool is its own bottleneck where its figures are wrong while the engine's are not; whether it says
so is in the last column.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from statistics import median

from benchmarks import peer_envs
from benchmarks.engines import MODEL, engines
from benchmarks.generator_runs import Outcome, become_subreaper, llamacpp, measure
from benchmarks.generators import GENERATORS, VERSIONS, Figures, Generator, Workload
from benchmarks.peer_envs import PeerUnavailableError
from benchmarks.peers_table import Row, as_tables
from headrace.bench.endpoint.target import reach
from headrace.bench.settings import BenchSettings
from tools import bootstrap

TTFT_S, ITL_S = 0.05, 0.01
RATES = (20.0, 50.0, 100.0, 200.0, 400.0, 600.0, 800.0, 1000.0)
QUICK_RATES = (20.0, 100.0, 200.0, 600.0)
WARM_REQUESTS, WARM_RATE = 10, 20.0
"""Of the run that is only start and end."""
RATE_SHARE, TTFT_ROOM_S, TPOT_SHARE = 0.07, 0.005, 0.05
AGREE_SHARE = 0.3
LLAMACPP_RATE, LLAMACPP_REQUESTS, LLAMACPP_ROUNDS = 0.4, 10, 6
"""Of the agreement on a real replica, which answers about 1.5 requests a second on two cores. The
gaps are equal: who happens to run beside whom would move the medians of so few by more than 5 %.
Rounds are short, and of an even number, since machines change their speed within minutes."""


@dataclass(slots=True)
class Measured:
    """What is known of one tool."""

    generator: Generator
    size_gb: float | None
    start: Outcome | None = None
    climb: list[tuple[float, Outcome]] = field(default_factory=list[tuple[float, Outcome]])
    at_cpu_rate: Outcome | None = None
    agreement: list[Outcome] = field(default_factory=list[Outcome])

    def highest_right(self) -> float | None:
        """Of the climb."""
        right = [rate for rate, outcome in self.climb if is_right(rate, outcome)]
        return max(right, default=None)


def main() -> None:
    """Measure, print."""
    options = _options()
    become_subreaper()
    measured = _prepared(options.only)
    try:
        _measure(measured, options, bootstrap.say)
    except KeyboardInterrupt:
        bootstrap.say("ended early: what was measured so far")
    ours = next((each for each in measured if each.generator.name == "headrace"), None)
    rows = [_row(each, ours, options.cpu_rate) for each in measured]
    if options.json:
        print(json.dumps([row.document() for row in rows], indent=2))
    else:
        print(as_tables(rows, cpu_rate=options.cpu_rate, truth=not options.llamacpp))


def _measure(
    measured: Sequence[Measured], options: argparse.Namespace, say: Callable[[str], None]
) -> None:
    tokenizer = peer_envs.vllm().model
    if options.llamacpp:
        with llamacpp() as (url, model):
            asked = BenchSettings(url, model=model, tokenizer=tokenizer / "tokenizer.json")
            load = Workload(
                url, model, options.agree_rate or LLAMACPP_RATE, LLAMACPP_REQUESTS, 64, 16,
                tokenizer, 1, constant=True,
                template_tokens=round(reach(asked).sizing.template_tokens),
            )  # fmt: skip
            _agree(measured, load, options.rounds or LLAMACPP_ROUNDS, say)
        return
    with engines(f"ttft={TTFT_S * 1e3:g}ms,itl={ITL_S * 1e3:g}ms", count=1) as fleet:
        load = Workload(fleet.urls[0], MODEL, WARM_RATE, WARM_REQUESTS, 256, 32, tokenizer, 1)
        _climb(measured, load, options, say)
        least = min(options.rates)
        slowest = min((each.highest_right() or least for each in measured), default=least)
        rate = options.agree_rate or AGREE_SHARE * slowest
        requests = max(round(rate * options.seconds), options.agree_requests)
        _agree(measured, replace(load, rate=rate, requests=requests), options.rounds, say)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rates, shorter runs")
    parser.add_argument("--only", default="", help="names, split by commas")
    parser.add_argument("--rates", default="", help="requests/s to climb, split by commas")
    parser.add_argument("--seconds", type=float, help="of one run (10, with --quick 5)")
    parser.add_argument("--cpu-rate", type=float, default=200.0, help="CPU is told at this rate")
    parser.add_argument("--agree-rate", type=float, help="(30 %% of the slowest tool's best)")
    parser.add_argument("--agree-requests", type=int, default=100, help="of one run, at least")
    parser.add_argument(
        "--rounds", type=int, help="of the comparison (3, with --quick 1, with --llamacpp 6)"
    )
    parser.add_argument("--llamacpp", action="store_true", help="against a real replica")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.seconds = options.seconds or (5.0 if options.quick else 10.0)
    if not options.llamacpp:
        options.rounds = options.rounds or (1 if options.quick else 3)
    given = [float(each) for each in options.rates.split(",") if each]
    options.rates = given or list(QUICK_RATES if options.quick else RATES)
    return options


def _prepared(only: str) -> list[Measured]:
    wanted = [each.strip() for each in only.split(",") if each.strip()]
    measured: list[Measured] = []
    for generator in GENERATORS:
        if wanted and generator.name not in wanted:
            continue
        try:
            folder = generator.prepare()
        except PeerUnavailableError as error:
            bootstrap.say(f"left out: {generator.name}: {error}")
            continue
        size_gb = None if folder is None else peer_envs.size_gb(folder)
        measured.append(Measured(generator, size_gb))
    return measured


def _climb(
    measured: Sequence[Measured],
    load: Workload,
    options: argparse.Namespace,
    say: Callable[[str], None],
) -> None:
    """What each costs, and the highest rate that it holds right."""
    for each in measured:
        each.start = measure(each.generator, load, watch=True)
        say(f"{each.generator.name}: {each.start.in_words()}")
    for rate in sorted({*options.rates, options.cpu_rate}):
        for each in measured:
            climbing = all(is_right(tried, outcome) for tried, outcome in each.climb)
            if not climbing and rate != options.cpu_rate:
                continue
            at = replace(load, rate=rate, requests=round(rate * options.seconds), seed=round(rate))
            outcome = measure(each.generator, at)
            right = "right" if is_right(rate, outcome) else "not right"
            say(f"{each.generator.name} at {rate:g}/s: {outcome.in_words()}: {right}")
            if climbing:
                each.climb.append((rate, outcome))
            if rate == options.cpu_rate:
                each.at_cpu_rate = outcome


def _agree(
    measured: Sequence[Measured], load: Workload, rounds: int, say: Callable[[str], None]
) -> None:
    for number in range(rounds):
        order = [*measured[number % len(measured) :], *measured[: number % len(measured)]]
        for each in order:
            # Nobody finds its prompts in the engine's prefix cache.
            outcome = measure(each.generator, replace(load, seed=10_000 + number))
            each.agreement.append(outcome)
            say(f"{each.generator.name} at {load.rate:g}/s: {outcome.in_words()}")


def is_right(rate: float, outcome: Outcome) -> bool:
    """Whether the rate was held and the script's times were found."""
    found = outcome.figures
    return (
        found is not None
        and found.completed >= 0.99 * outcome.requests
        and abs(found.rate - rate) <= max(RATE_SHARE, 3 / sqrt(outcome.requests)) * rate
        and abs(found.ttft_p50_s - TTFT_S) <= TTFT_ROOM_S
        and abs(found.tpot_p50_s - ITL_S) <= TPOT_SHARE * ITL_S
    )


def _ratio(
    each: Measured, ours: Measured | None, figure: Callable[[Figures], float]
) -> float | None:
    """Of a figure to Headrace's in the same round, the median of the rounds."""
    ratios = [
        figure(outcome.figures) / figure(own.figures)
        for outcome, own in zip(each.agreement, ours.agreement if ours else [], strict=False)
        if outcome.figures is not None and own.figures is not None
    ]
    return median(ratios) if ratios else None


def _row(each: Measured, ours: Measured | None, cpu_rate: float) -> Row:
    found = [outcome.figures for outcome in each.agreement if outcome.figures is not None]
    start, at_rate = each.start, each.at_cpu_rate
    cpu_ms = None
    if start is not None and start.figures and at_rate is not None and at_rate.figures:
        # Counted as they were sent: inference-perf rounds its runs to whole seconds.
        more = max(at_rate.figures.completed - start.figures.completed, 1)
        cpu_ms = (at_rate.cpu_s - start.cpu_s) / more * 1e3
    warned = next((o.figures.warning for _, o in each.climb if o.figures and o.figures.warning), "")
    best = each.highest_right()
    outcome = next((outcome for rate, outcome in each.climb if rate == best), None)
    return Row(
        name=each.generator.name,
        version=VERSIONS[each.generator.name],
        size_gb=each.size_gb,
        first_request_s=None if start is None else start.first_request_s,
        cpu_ms=cpu_ms,
        cpu_rate=cpu_rate,
        highest_right=best,
        ttft_p99_there_s=None if not outcome or not outcome.figures else outcome.figures.ttft_p99_s,
        warned=warned,
        ttft_p50_s=median(each.ttft_p50_s for each in found) if found else None,
        tpot_p50_s=median(each.tpot_p50_s for each in found) if found else None,
        rate=median(each.rate for each in found) if found else None,
        ttft_ratio=_ratio(each, ours, lambda found: found.ttft_p50_s),
        tpot_ratio=_ratio(each, ours, lambda found: found.tpot_p50_s),
        rate_ratio=_ratio(each, ours, lambda found: found.rate),
    )


if __name__ == "__main__":
    main()
