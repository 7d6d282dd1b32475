"""What the gateway costs, beside nginx and the routers of vLLM and SGLang, in one run.

    python -m benchmarks.data_plane [--quick] [--json] [--own-core] [--only headrace,nginx]

Everything runs on this machine over loopback, in front of the same emulated engines. CPU is that
of a proxy's whole process tree as the kernel counts it. Contenders take turns, A B A B, and each
figure is the median of its rounds, so that what else the machine does hits all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measures
from benchmarks.contenders import (
    FLOOR,
    GATEWAY,
    INTERPRETED,
    INTERPRETED_UNDER_SYSTEM_PYTHON,
    ROUTERS,
    SYSTEM_PYTHON,
    UNDER_SYSTEM_PYTHON,
    Contender,
    Proxy,
    on_core,
    proxy,
    why_not_compiled,
)
from benchmarks.engines import engines, prompts
from benchmarks.load import LoadError
from benchmarks.report import Results, as_table

REPLICAS = 4
FLEETS = (2, 64, 256)
RATE = 50.0
LATENCY_TURN_REQUESTS = 50
DIRECT = "direct"
EVENT_EVERY_S = 0.010
_AT_ONCE = f"ttft=0ms,itl={EVENT_EVERY_S * 1e3:g}ms"
_SILENT = "ttft=0ms,itl=1h"
_OPEN_FILES = 16_384
COMPILED = (GATEWAY, UNDER_SYSTEM_PYTHON)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything; more of it is slower and steadier."""

    rounds: int
    requests_1k: int
    requests_32k: int
    streams: int
    stream_runs: int
    """In each round: how many events come at once, and so what one costs, is for chance."""
    latency_turns: int
    idle_streams: int
    fleet_requests: int
    fleet_turns: int


FULL = Size(
    rounds=3,
    requests_1k=12_000,
    requests_32k=4_000,
    streams=64,
    stream_runs=3,
    latency_turns=20,
    idle_streams=2_000,
    fleet_requests=6_000,
    fleet_turns=3,
)
QUICK = Size(
    rounds=1,
    requests_1k=4_000,
    requests_32k=1_500,
    streams=64,
    stream_runs=1,
    latency_turns=2,
    idle_streams=500,
    fleet_requests=1_500,
    fleet_turns=1,
)


def main() -> None:
    """Measure, print."""
    options = _options()
    _raise_open_files()
    started_s = time.monotonic()
    size = QUICK if options.quick else FULL
    results = Results()
    contenders = chosen((FLOOR, *_gateways(), *ROUTERS), options.only, results)
    if options.own_core:
        *others, core = sorted(os.sched_getaffinity(0))
        if not others:
            sys.exit("data_plane: --own-core needs two cores, and there is one; leave it out")
        os.sched_setaffinity(0, others)
        contenders = [on_core(each, core) for each in contenders]
    measure_costs(contenders, size, results)
    for contender in contenders:
        try:
            measure_memory(contender, size, results)
        except (TimeoutError, LoadError) as error:
            # One that does not hold so many streams is left out here; the others are not.
            print(f"{contender.name}: no memory per stream: {error!r}", file=sys.stderr)
    for _ in range(size.fleet_turns):
        for contender in contenders:
            if contender.name in {GATEWAY.name, INTERPRETED.name}:
                for replicas in FLEETS:
                    measure_fleet(contender, replicas, size, results)
    took_s = time.monotonic() - started_s
    figures = results.figures(DIRECT)
    if options.json:
        told = {"took_s": round(took_s), "figures": figures, "left_out": results.left_out}
        print(json.dumps(told, indent=2))
    else:
        print(as_table(figures, results.left_out, floor=FLOOR.name, direct=DIRECT))
        print(f"\n{took_s:.0f} s")


def _gateways() -> Iterator[Contender]:
    """The gateway compiled and interpreted; and both under the system's Python, where that is
    another and new enough, and for the compiled one of the version that the build fits.
    """
    version = _version_of_system_python()
    is_other = version is not None and version != sys.version.strip()
    yield GATEWAY
    if is_other and _minor(version) == _minor(sys.version):
        yield UNDER_SYSTEM_PYTHON
    yield INTERPRETED
    if is_other:
        yield INTERPRETED_UNDER_SYSTEM_PYTHON


def chosen(
    contenders: Sequence[Contender], only: Sequence[str], results: Results
) -> list[Contender]:
    """Those whose names begin so, all without such names. Where the compiled ones cannot be built,
    the results say why.
    """
    wanted = [
        each for each in contenders if not only or any(each.name.startswith(name) for name in only)
    ]
    compiled = [each for each in wanted if each in COMPILED]
    if compiled and (reason := why_not_compiled()) is not None:
        results.left_out |= {each.name: f"cannot be built: {reason}" for each in compiled}
        wanted = [each for each in wanted if each not in compiled]
    return wanted


def _version_of_system_python() -> str | None:
    """What it says of itself; None if there is none, or an old one."""
    try:
        tells = "import sys; print(sys.version_info >= (3, 11) and sys.version)"
        version = subprocess.check_output([SYSTEM_PYTHON, "-c", tells], text=True).strip()
    except OSError:
        return None
    return None if version == "False" else version


def _minor(version: str | None) -> list[str]:
    return (version or "").split(".")[:2]


def measure_costs(contenders: Sequence[Contender], size: Size, results: Results) -> None:
    """CPU per request and per event, and added latency: all contenders side by side."""
    small, large = prompts(1024), prompts(32 * 1024)
    with ExitStack() as stack:
        fleet = stack.enter_context(engines(_AT_ONCE, count=REPLICAS))
        proxies = [stack.enter_context(_started(each, fleet.urls)) for each in contenders]
        for each in proxies:
            measures.let_learn(each)
            measures.warm_up(each, small)
        for _ in range(size.rounds):
            for each in proxies:
                add = results.adder(each.name)
                add("request_1k_cpu_us", measures.request_cpu_us(each, small, size.requests_1k))
                add("request_32k_cpu_us", measures.request_cpu_us(each, large, size.requests_32k))
            for _ in range(size.stream_runs):
                for each in proxies:
                    _measure_events(each, size.streams, results)
        ports = {DIRECT: fleet.ports[0]} | {each.name: each.port for each in proxies}
        _measure_latency(ports, size, results)


def _measure_events(proxy: Proxy, streams: int, results: Results) -> None:
    """Streams whose events are evenly spread, and streams that begin together.

    An engine's events are as near to each other as their requests were when it took them. Of
    requests that come together, whoever is measured decides that: who passes them on sooner gets
    their events in denser bursts and sleeps less often, and a sleep is dear. Begun one event's
    time and a share of it apart, they come the same way to everyone.
    """
    apart_s = EVENT_EVERY_S * (1.0 + 1.0 / streams)
    for figure, pause_s in (("event", apart_s), ("event_at_once", 0.0)):
        cpu_us, waits = measures.events(proxy, streams, apart_s=pause_s)
        results.add(proxy.name, f"{figure}_cpu_us", cpu_us)
        results.add(proxy.name, f"{figure}_waits", waits)


def measure_memory(contender: Contender, size: Size, results: Results) -> None:
    """Memory per stream that is open and silent, in a process that has only been warmed up."""
    with (
        engines(_SILENT, count=REPLICAS) as fleet,
        _started(contender, fleet.urls) as running,
    ):
        measures.warm_up(running, prompts(1024))
        stream_bytes = measures.stream_memory_bytes(running, size.idle_streams)
        results.add(contender.name, "idle_stream_kb", stream_bytes / 1024)


def measure_fleet(contender: Contender, replicas: int, size: Size, results: Results) -> None:
    """The gateway's CPU per request with so many replicas, without what it spends on scrapes."""
    with (
        engines(_AT_ONCE, count=replicas) as fleet,
        _started(contender, fleet.urls) as running,
    ):
        small = prompts(1024)
        idle = measures.idle_cpu_s(running, span_s=3.0)
        measures.let_learn(running)
        measures.warm_up(running, small)
        started_s = time.monotonic()
        cpu_us = measures.request_cpu_us(running, small, size.fleet_requests)
        idle_us = idle * (time.monotonic() - started_s) / size.fleet_requests * 1e6
        name = f"{contender.name}, {replicas} replicas"
        results.add(name, "request_1k_cpu_us", max(0.0, cpu_us - idle_us))
        results.add(name, "idle_cpu_ms_per_s", idle * 1e3)


def _measure_latency(ports: dict[str, int], size: Size, results: Results) -> None:
    """Percentiles over short turns, so that a disturbance does not fall on one contender."""
    small = prompts(1024)
    latencies_s: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(size.latency_turns):
        for name, port in ports.items():
            latencies_s[name] += measures.latencies_s(
                port, small, rate=RATE, requests=LATENCY_TURN_REQUESTS
            )
    for name, values_s in latencies_s.items():
        percentiles = statistics.quantiles(values_s, n=100)
        results.add(name, "p50_ms", percentiles[49] * 1e3)
        results.add(name, "p99_ms", percentiles[98] * 1e3)


@contextmanager
def _started(contender: Contender, urls: Sequence[str]) -> Iterator[Proxy]:
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder,
        proxy(contender, urls, Path(folder)) as running,
    ):
        yield running


def _raise_open_files() -> None:
    """Two thousand streams need twice as many sockets in a proxy; children inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _names(text: str) -> list[str]:
    return re.split(r",(?! )", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round: four minutes")
    parser.add_argument("--json", action="store_true", help="figures as JSON, not a table")
    parser.add_argument(
        "--own-core",
        action="store_true",
        help="each contender on one core that load and engines leave to it, as in production:\n"
        "on few cores, sharing one with them costs whoever uses more of its caches",
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=[],
        help="contenders whose names begin so; a comma inside a name has a blank behind it, as\n"
        "in 'headrace, interpreted'",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
