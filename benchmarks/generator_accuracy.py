"""Whether `headrace bench` sends when it says it does, and sees what is there.

    python -m benchmarks.generator_accuracy [--rates 200,600] [--seconds 20]

Against `headrace engine --script ttft=50ms,itl=10ms` on the same machine: 256 tokens in, 32 out. At
each rate it prints

- how many requests left, of how many that were planned, and how late;
- the Kolmogorov-Smirnov distance of the gaps between *sending* times to a Poisson process's, with
  the distance that a true one exceeds in 1 % of the cases (1.63 / √n);
- TTFT and TPOT against the script's;
- CPU per request of all the generator's processes;
- seconds from the command to the first request.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from math import exp, sqrt
from pathlib import Path

from benchmarks.engines import MODEL, engines
from benchmarks.processes import HEADRACE
from headrace.bench.percentiles import distribution
from headrace.bench.record import Record, RunInfo, from_json_line, info_from_json_line

TTFT_S, ITL_S = 0.050, 0.010
SCRIPT = "ttft=50ms,itl=10ms"
CRITICAL = 1.63
"""Of Kolmogorov's distribution, at 1 %."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="200,600")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    for rate in map(float, options.rates.split(",")):
        with engines(SCRIPT, count=1) as fleet, tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw.jsonl"
            begun_s = time.time()
            headline = _run(fleet.urls[0], rate, options.seconds, raw)
            first, *lines = raw.read_bytes().splitlines()
        info = info_from_json_line(first)
        records = [from_json_line(line) for line in lines]
        print(f"\n{rate:g} requests/s for {options.seconds:g} s: {headline}")
        for line in _figures(records, info, rate, begun_s):
            print(f"  {line}")


def _run(url: str, rate: float, seconds: float, raw: Path) -> str:
    command = [*HEADRACE, "bench", url, "--model", MODEL, "--rate", f"{rate:g}"]
    command += ["--duration", f"{seconds:g}s", "--lengths", "256/32", "--raw", str(raw), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return str(json.loads(done.stdout)["verdict"]["headline"])


def _figures(records: Sequence[Record], info: RunInfo, rate: float, begun_s: float) -> list[str]:
    sent_s = sorted(record.sent_s for record in records)
    distance, critical = ks_distance(sent_s, rate), CRITICAL / sqrt(len(sent_s))
    verdict = "passes" if distance < critical else "FAILS"
    ttft = distribution(each.ttft_s for each in records if each.ttft_s is not None)
    tpot = distribution(each.tpot_s for each in records if each.tpot_s is not None)
    lag = info.lag
    failed = sum(not each.ok for each in records)
    late = f"p50 {_ms(lag.p50_s)}, p99 {_ms(lag.p99_s)}, max {_ms(lag.max_s)}"
    return [
        f"sent {len(records):,}, failed {failed:,}; late by {late}",
        f"KS distance of the gaps {distance:.4f}, critical at 1 % {critical:.4f}: {verdict}",
        f"TTFT over the script's: p50 {_ms(ttft.p50 - TTFT_S)}, p99 {_ms(ttft.p99 - TTFT_S)}",
        f"TPOT over the script's: p50 {_ms(tpot.p50 - ITL_S)}, p99 {_ms(tpot.p99 - ITL_S)}",
        f"CPU {info.cpu_s / len(records) * 1000:.3f} ms per request, {info.workers} process(es)",
        f"first request {info.started_at + sent_s[0] - begun_s:.2f} s after the command",
    ]


def ks_distance(times_s: Sequence[float], rate: float) -> float:
    """The largest distance of the gaps' distribution to 1 − exp(−rate·gap)."""
    gaps_s = sorted(later - earlier for earlier, later in pairwise(times_s))
    count = len(gaps_s)
    return max(
        max((place + 1) / count - wanted, wanted - place / count)
        for place, wanted in enumerate(1 - exp(-rate * gap_s) for gap_s in gaps_s)
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


if __name__ == "__main__":
    main()
