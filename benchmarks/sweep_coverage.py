"""How often the interval that `headrace bench --sweep` states holds the true highest rate.

    python -m benchmarks.sweep_coverage --sweeps 100            # every server, some 15 minutes
    python -m benchmarks.sweep_coverage --sweeps 20 --only M/M

Each sweep is the command's own search and proof, with other seeds, against a server on a virtual
clock (`virtual_servers.py`) whose highest rate is computed from long runs before. For comparison:
the search alone, as with `--proof 0`, whose "met" and "not met" are no such statement.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.virtual_servers import SERVERS, Run, Server, truth_rps
from headrace.bench.sweep.search import SweepResult, SweepSettings, sweep

HEADS = (
    "server",
    "true rate",
    "held",
    "met above it",
    "not met below it",
    "both ends shown",
    "low ÷ true p10, p50",
    "high ÷ true p50, p90",
    "most likely ÷ true p10, p50, p90",
    "minutes p50, most",
    "search alone held",
)


@dataclass
class Found:
    """Of all sweeps against one server."""

    true_rps: float
    lows: list[float] = field(default_factory=list[float])
    """Ends ÷ the true rate; 0 and infinite where nothing was shown."""
    highs: list[float] = field(default_factory=list[float])
    guesses: list[float] = field(default_factory=list[float])
    """Where the highest rate is said to be most likely ÷ the true one, where that is said."""
    minutes: list[float] = field(default_factory=list[float])

    def add(self, low_rps: float | None, high_rps: float | None, clock_s: float) -> None:
        """One sweep."""
        self.lows.append((low_rps or 0.0) / self.true_rps)
        self.highs.append((high_rps or float("inf")) / self.true_rps)
        self.minutes.append(clock_s / 60)

    @property
    def held(self) -> int:
        """Sweeps whose interval holds the true rate."""
        return sum(low <= 1.0 <= high for low, high in zip(self.lows, self.highs, strict=True))


def main() -> None:
    """Play, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--only", default="", help="servers whose name begins so")
    parser.add_argument("--proof", type=float, default=SweepSettings().proof_s, help="seconds")
    options = parser.parse_args()
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}", flush=True)
    began_s = time.monotonic()
    for server in SERVERS:
        if server.name.startswith(options.only):
            shown, searched = study(server, truth_rps(server), options.sweeps, options.proof)
            print(f"| {' | '.join(cells(server.name, shown, searched))} |", flush=True)
    print(f"\n{options.sweeps} sweeps each, {time.monotonic() - began_s:.0f} s")


def study(server: Server, true_rps: float, sweeps: int, proof_s: float) -> tuple[Found, Found]:
    """So many sweeps: with what was shown, and of the search alone."""
    shown, searched = Found(true_rps), Found(true_rps)
    for number in range(sweeps):
        result, clock_s = one_sweep(server, 1_000_000 + 1000 * number, proof_s)
        bounds = result.bounds
        if bounds is not None:
            shown.add(bounds.low_rps, bounds.high_rps, clock_s)
            if bounds.estimate_rps is not None:
                shown.guesses.append(bounds.estimate_rps / true_rps)
        result, clock_s = one_sweep(server, 1_000_000 + 1000 * number, 0.0)
        searched.add(result.highest_met_rps, result.lowest_not_met_rps, clock_s)
    return shown, searched


def one_sweep(server: Server, seed: int, proof_s: float) -> tuple[SweepResult, float]:
    """What a sweep finds, and how long it takes on the server's clock."""
    clock_s = 0.0

    def run(rate_rps: float, seed: int, requests: int = 0) -> Run:
        nonlocal clock_s
        found = server.run(rate_rps, seed, requests)
        clock_s += found.info.duration_s
        return found

    settings = SweepSettings(start_rps=server.start_rps, seed=seed, proof_s=proof_s)
    result = sweep(run, settings, server.slos, run_alone=server.run_alone, run_requests=run)
    return result, clock_s


def cells(name: str, shown: Found, searched: Found) -> list[str]:
    """A row of the table."""
    sweeps = len(shown.lows)
    pairs = zip(shown.lows, shown.highs, strict=True)
    return [
        name,
        f"{shown.true_rps:.4g}",
        f"{shown.held} of {sweeps}",
        f"{sum(low > 1.0 for low in shown.lows)}",
        f"{sum(high < 1.0 for high in shown.highs)}",
        f"{sum(low > 0.0 and high < float('inf') for low, high in pairs)}",
        f"{_at(shown.lows, 0.1):.2f}, {_at(shown.lows, 0.5):.2f}",
        f"{_at(shown.highs, 0.5):.2f}, {_at(shown.highs, 0.9):.2f}",
        ", ".join(f"{_at(shown.guesses, share):.2f}" for share in (0.1, 0.5, 0.9)),
        f"{_at(shown.minutes, 0.5):.0f}, {max(shown.minutes, default=0.0):.0f}",
        f"{searched.held} of {len(searched.lows)}",
    ]


def _at(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[int(share * (len(ranked) - 1))] if ranked else 0.0


if __name__ == "__main__":
    main()
