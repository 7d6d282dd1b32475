"""The gateway with `seconds` and sglang-router with cache_aware, live, on a trace.

    python -m benchmarks.routing_live [--quick] [--json] [--duration 300] [--speed 1.6]
                                      [--time-scale 1] [--replicas 8] [--learned]

Both stand in front of emulated engines that batch and cache as their profile says, and get the
trace's requests as text, streamed, at the trace's times. They take turns in both orders, A B B A,
each time with new engines, so that none finds what the other left in the caches. The figures are in
the engines' seconds, scored as `headrace simulate` scores; what it predicts stands below.

The generator's lag tells whether this machine carries the load: if its p99 is not small against
the TTFT, take a lower --speed, or slower engines (--time-scale 0.5).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import uvloop

from benchmarks.contenders import SGLANG_CACHE_AWARE, Contender, gateway_of_modelled, proxy
from benchmarks.engines import MODEL, modelled_engines
from benchmarks.routing_workloads import TRACES
from benchmarks.trace_load import Answer, play, results_of
from headrace.engine_model.profiles import profile
from headrace.simulator.results import Scores, distribution, scores_of
from headrace.simulator.runs import run_policy
from headrace.simulator.settings import SimulationSettings, Slo
from headrace.simulator.workloads import FileWorkload
from headrace.traffic.reader import read_trace
from headrace.traffic.shape import cut, sped_up
from headrace.traffic.trace import Trace, TraceRequest

TRACE = "mooncake_conversation.jsonl"
PROFILE = "h100-llama-3.1-8b"
QUICK_DURATION_S = 60.0
SLO = Slo()
SIMULATED = {
    "headrace": "seconds",
    "headrace, interpreted": "seconds",
    "sglang-router cache": "sglang_cache_aware",
}
"""The policy of each contender, as the simulator calls it."""
_COLUMNS = (
    ("requests", "requests", 1.0, "d"),
    ("errors", "errors", 1.0, "d"),
    ("goodput %", "goodput_share", 100.0, ".2f"),
    ("hit %", "hit_ratio", 100.0, ".2f"),
    ("TTFT s mean", "ttft_mean_s", 1.0, ".3f"),
    ("p50", "ttft_p50_s", 1.0, ".3f"),
    ("p99", "ttft_p99_s", 1.0, ".2f"),
    ("TPOT ms mean", "tpot_mean_s", 1e3, ".2f"),
    ("p99", "tpot_p99_s", 1e3, ".1f"),
    ("lag ms p50", "lag_p50_s", 1e3, ".2f"),
    ("p99", "lag_p99_s", 1e3, ".2f"),
    ("engines' CPU %", "engines_cpu_share", 100.0, ".0f"),
    ("its CPU %", "own_cpu_share", 100.0, ".1f"),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """One line. Seconds are the engines', but for `lag`, which is this machine's."""

    name: str
    requests: int
    errors: int
    goodput_share: float
    hit_ratio: float
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    tpot_p99_s: float
    lag_p50_s: float | None = None
    lag_p99_s: float | None = None
    engines_cpu_share: float | None = None
    """CPU seconds of the engines' one process per second: well below 1, or they are late."""
    own_cpu_share: float | None = None


def main() -> None:
    """Measure, print."""
    options = _options()
    path = TRACES / TRACE
    if not path.exists():
        sys.exit(_absent(path))
    with path.open(encoding="utf-8") as lines:
        whole = read_trace(TRACE, lines, seed=options.seed)
    trace = sped_up(cut(whole, options.duration), options.speed)
    contenders = (_gateway(options), SGLANG_CACHE_AWARE)
    order = contenders if options.quick else (*contenders, *reversed(contenders))
    began_s = time.monotonic()
    turns: list[Figures] = []
    for number, contender in enumerate(order, 1):
        _tell(f"turn {number} of {len(order)}: {contender.name}, {len(trace.requests)} requests")
        turns.append(_turn(contender, trace, options))
    means = [_mean([turn for turn in turns if turn.name == each.name]) for each in contenders]
    simulated = [_simulated(each.name, trace, options) for each in contenders]
    took_s = round(time.monotonic() - began_s)
    if options.json:
        groups = {"turns": turns, "means": means, "simulated": simulated}
        shown = {key: [asdict(each) for each in group] for key, group in groups.items()}
        print(json.dumps({"took_s": took_s, "options": vars(options), **shown}, indent=2))
        return
    print(_table({"each turn": turns, "mean of turns": means, "simulated": simulated}))
    print(f"\n{took_s} s; load of the machine {os.getloadavg()[0]:.1f}")


def _turn(contender: Contender, trace: Trace, options: argparse.Namespace) -> Figures:
    """New engines, a new proxy, the whole trace."""
    scale: float = options.time_scale
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder,
        modelled_engines(PROFILE, time_scale=scale, count=options.replicas) as fleet,
        proxy(contender, fleet.urls, Path(folder)) as running,
    ):
        _warm_up(running.port, options.replicas)
        processes = (fleet.process, running.process)
        cpu_s, began_s = [each.cpu_s() for each in processes], time.monotonic()
        answers = uvloop.run(play(running.port, sped_up(trace, scale), model=MODEL))
        took_s = time.monotonic() - began_s
        shares = [
            (each.cpu_s() - before_s) / took_s
            for each, before_s in zip(processes, cpu_s, strict=True)
        ]
    for error in list(dict.fromkeys(each.error for each in answers if each.error))[:3]:
        _tell(f"an error of {contender.name}: {error}")
    return _measured(contender.name, answers, scale, shares)


def _warm_up(port: int, replicas: int) -> None:
    """Two short requests for each replica, one after the other, that share nothing."""
    requests = [TraceRequest(number * 0.05, 64, 2) for number in range(2 * replicas)]
    answers = uvloop.run(play(port, Trace("warm up", 512, requests), model=MODEL))
    errors = [each.error for each in answers if each.error]
    if errors:
        sys.exit(f"routing_live: no answer while warming up: {errors[0]}")


def _gateway(options: argparse.Namespace) -> Contender:
    latency, scale = profile(PROFILE).latency, options.time_scale
    return gateway_of_modelled(
        latency, SLO, time_scale=scale, policy="seconds", learned=options.learned
    )


# ---------------------------------------------------------------- figures


def _measured(
    name: str, answers: Sequence[Answer], scale: float, shares: Sequence[float]
) -> Figures:
    lag = distribution(answer.lag_s for answer in answers if answer.sent_s)
    return replace(
        _figures(name, scores_of(name, results_of(answers, scale), SLO)),
        lag_p50_s=lag.p50,
        lag_p99_s=lag.p99,
        engines_cpu_share=shares[0],
        own_cpu_share=shares[1],
    )


def _simulated(name: str, trace: Trace, options: argparse.Namespace) -> Figures:
    """The same requests, the same rule, in the simulator."""
    settings = SimulationSettings(
        engine=profile(PROFILE), replicas=options.replicas, slo=SLO, seed=options.seed
    )
    policy = SIMULATED[name]
    return _figures(policy, run_policy(settings, FileWorkload(trace), policy).scores)


def _figures(name: str, scores: Scores) -> Figures:
    return Figures(
        name,
        scores.requests,
        scores.requests - scores.completed,
        scores.goodput_share,
        scores.hit_ratio,
        scores.ttft_s.mean,
        scores.ttft_s.p50,
        scores.ttft_s.p99,
        scores.tpot_s.mean,
        scores.tpot_s.p99,
    )


def _mean(turns: Sequence[Figures]) -> Figures:
    """Counts are summed, all else is the mean."""
    values = {
        key: fmean(getattr(turn, key) for turn in turns)
        for key in Figures.__slots__
        if key not in {"name", "requests", "errors"}
    }
    requests, errors = sum(turn.requests for turn in turns), sum(turn.errors for turn in turns)
    return Figures(turns[0].name, requests, errors, **values)


def _table(groups: dict[str, Sequence[Figures]]) -> str:
    rows = [["", *(title for title, *_ in _COLUMNS)]]
    for group, lines in groups.items():
        rows.append([f"{group}:", *("" for _ in _COLUMNS)])
        rows += [[f"  {line.name}", *_cells(line)] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cells(line: Figures) -> list[str]:
    values = [(getattr(line, key), factor, form) for _, key, factor, form in _COLUMNS]
    return [
        "" if value is None else format(value if form == "d" else value * factor, form)
        for value, factor, form in values
    ]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _absent(path: Path) -> int:
    _tell(f"routing_live: {path} is not there; put Mooncake's conversation trace at this place")
    return 2


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--duration", type=float, help="seconds of the trace, before --speed (300)")
    add("--speed", type=float, default=1.6, help="of the trace, in the engines' time (1.6)")
    add("--time-scale", type=float, default=1.0, help="engines so many times as fast (1)")
    add("--replicas", type=int, default=8, help="engines (8)")
    add("--seed", type=int, default=0, help="spreads arrivals within the trace's steps (0)")
    add("--learned", action="store_true", help="the gateway is not told the engines' profile")
    add("--quick", action="store_true", help="60 s of the trace, one turn each")
    add("--json", action="store_true", help="figures as JSON, not a table")
    options = parser.parse_args()
    if options.duration is None:
        options.duration = QUICK_DURATION_S if options.quick else 300.0
    return options


if __name__ == "__main__":
    main()
