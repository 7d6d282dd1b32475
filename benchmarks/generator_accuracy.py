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
from dataclasses import dataclass
from itertools import pairwise
from math import exp, sqrt
from pathlib import Path

from benchmarks.engines import MODEL, engines
from benchmarks.processes import HEADRACE
from headrace.bench.figures.percentiles import Distribution, distribution
from headrace.bench.record import Lag, from_json_line, info_from_json_line

TTFT_S, ITL_S = 0.050, 0.010
SCRIPT = "ttft=50ms,itl=10ms"
CRITICAL = 1.63
"""Of Kolmogorov's distribution, at 1 %."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How one run did; times in seconds."""

    headline: str
    is_valid: bool
    requests: int
    failed: int
    workers: int
    lag: Lag
    ks: float
    ks_critical: float
    ttft: Distribution
    tpot: Distribution
    cpu_s: float
    first_request_s: float
    """After the command."""

    @property
    def cpu_per_request_s(self) -> float:
        """Of all the generator's processes."""
        return self.cpu_s / self.requests

    def lines(self) -> list[str]:
        """For people."""
        lag, ttft, tpot = self.lag, self.ttft, self.tpot
        late = f"p50 {_ms(lag.p50_s)}, p99 {_ms(lag.p99_s)}, max {_ms(lag.max_s)}"
        verdict = "passes" if self.ks < self.ks_critical else "FAILS"
        return [
            f"sent {self.requests:,}, failed {self.failed:,}; late by {late}",
            f"KS distance of the gaps {self.ks:.4f}, critical {self.ks_critical:.4f}: {verdict}",
            f"TTFT over the script's: p50 {_ms(ttft.p50 - TTFT_S)}, p99 {_ms(ttft.p99 - TTFT_S)}",
            f"TPOT over the script's: p50 {_ms(tpot.p50 - ITL_S)}, p99 {_ms(tpot.p99 - ITL_S)}",
            f"CPU {_ms(self.cpu_per_request_s)} per request, {self.workers} process(es)",
            f"first request {self.first_request_s:.2f} s after the command",
        ]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="200,600")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    for rate in map(float, options.rates.split(",")):
        found = accuracy(rate, options.seconds)
        print(f"\n{rate:g} requests/s for {options.seconds:g} s: {found.headline}")
        for line in found.lines():
            print(f"  {line}")


def accuracy(rate: float, seconds: float) -> Accuracy:
    """Run the command against an engine of its own."""
    with engines(SCRIPT, count=1) as fleet, tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.jsonl"
        command = [*HEADRACE, "bench", fleet.urls[0], "--model", MODEL, "--rate", f"{rate:g}"]
        command += ["--duration", f"{seconds:g}s", "--lengths", "256/32"]
        command += ["--raw", str(raw), "--json"]
        begun_s = time.time()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        first, *lines = raw.read_bytes().splitlines()
    info, records = info_from_json_line(first), [from_json_line(line) for line in lines]
    sent_s = sorted(record.sent_s for record in records)
    return Accuracy(
        headline=str(json.loads(done.stdout)["verdict"]["headline"]),
        is_valid=info.valid,
        requests=len(records),
        failed=sum(not each.ok for each in records),
        workers=info.workers,
        lag=info.lag,
        ks=ks_distance(sent_s, rate),
        ks_critical=CRITICAL / sqrt(len(sent_s)),
        ttft=distribution(each.ttft_s for each in records if each.ttft_s is not None),
        tpot=distribution(each.tpot_s for each in records if each.tpot_s is not None),
        cpu_s=info.cpu_s,
        first_request_s=info.started_at + sent_s[0] - begun_s,
    )


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
