"""How many SSE chunks per second an emulated engine sends on one core, each its own write.

    python -m benchmarks.emulator_rate [--streams 256] [--tokens 400] [--profile h100-llama-3.1-8b]

The engine sends as fast as it can to a reader in this process; with a profile, the engine model
decides what that is, on a clock much too fast for the machine. The rate is per second of the
engine's CPU time, so it says the same on a busy machine; writes are counted by the kernel.
"""

from __future__ import annotations

import argparse
import re
import time
from contextlib import AbstractContextManager
from pathlib import Path

import uvloop

from benchmarks.engines import Engines, engines, modelled_engines, stream
from benchmarks.load import run_streams
from benchmarks.processes import Running

MUCH_TOO_FAST = 1e6


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--profile", help="batch and cache as this engine would")
    options = parser.parse_args()
    with _fleet(options.profile) as fleet:
        port = fleet.ports[0]
        uvloop.run(run_streams(port, stream(50), streams=options.streams))  # warm up
        writes, cpu_s, started_s = _writes(fleet.process), fleet.process.cpu_s(), time.monotonic()
        request = stream(options.tokens)
        chunks = uvloop.run(run_streams(port, request, streams=options.streams))
        took_s = time.monotonic() - started_s
        cpu_s = fleet.process.cpu_s() - cpu_s
        writes = _writes(fleet.process) - writes
    print(f"{chunks} chunks in {writes} writes, {took_s:.2f} s, {cpu_s:.2f} s of CPU")
    print(f"{chunks / cpu_s:,.0f} chunks per second of one core; {chunks / took_s:,.0f}/s here")


def _fleet(profile: str | None) -> AbstractContextManager[Engines]:
    if profile is None:
        return engines("ttft=0ms,itl=0ms", count=1)
    return modelled_engines(profile, time_scale=MUCH_TOO_FAST, count=1)


def _writes(process: Running) -> int:
    found = re.search(r"^syscw: (\d+)", Path(f"/proc/{process.pid}/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    main()
