"""How near `headrace calibrate` comes to engines whose coefficients it does not know.

Engines are drawn over what can be met: the shipped profiles, and steps of 2 to 200 ms, prompts
from 5 µs to 2 ms a token, 4 to 1,024 sequences, KV caches of 8 thousand to 2 million tokens, steps
of 256 to 16,384 prompt tokens, with and without a prefix cache. Against each a whole session runs,
in virtual time, with the lateness of a quiet or a busy machine. An engine whose data are refused is
told as refused, and a term that is marked as not sure as marked.

    python -m benchmarks.calibration_recovery --engines 100 --noise busy
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from statistics import median

from headrace.calibration.replica import CalibrationError
from headrace.calibration.session import MOST_BUDGETS, Session, Settings
from headrace.core.latency import LatencyProfile
from headrace.core.profile_fit import TERMS
from headrace.edges.end_with_parent import end_with_parent
from headrace.engine_model import EngineSpec
from headrace.engine_model.calibration import Fit, fit
from headrace.engine_model.profiles import profile, profile_names
from tests.unit.calibration.virtual_engine import VirtualEngine, replica_of

WITHIN = 0.03
OVERHEAD_S = 0.0004
NOISE = {
    "none": {},
    "quiet": {"tick_s": 0.0008, "stream_s": 2e-5, "spikes": 0.02, "spike_s": 0.002},
    "busy": {"tick_s": 0.001, "stream_s": 4e-5, "spikes": 0.15, "spike_s": 0.004},
}
"""Of `headrace engine` and `headrace calibrate` on two cores: alone, and beside four others."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out for one engine."""

    title: str
    hidden: tuple[float, ...]
    errors: dict[str, float] = field(default_factory=dict)
    """Of each term, as a share of the hidden one."""
    half_widths: dict[str, float] = field(default_factory=dict)
    """Of the intervals, as shares of what was found."""
    marked: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    """Terms whose interval holds the hidden one."""
    refused: str = ""
    seconds: float = 0.0
    rounds: int = 0
    step_tokens: int | None = None


def drawn(seed: int) -> tuple[str, EngineSpec, bool]:
    """An engine that nobody knows: its title, what it is, whether it has a prefix cache."""
    rng = random.Random(seed)

    def between(low: float, high: float) -> float:
        return low * (high / low) ** rng.random()

    names = profile_names()
    if seed < len(names):
        return names[seed], profile(names[seed]), True
    step_s = between(0.002, 0.2)
    token_s = between(5e-6, 2e-3)
    kv_tokens = round(between(8_000, 2_000_000))
    context = min(rng.choice((2048, 4096, 8192, 32_768, 131_072)), kv_tokens)
    sequences = rng.choice((4, 8, 16, 48, 64, 128, 256, 512, 1024))
    latency = LatencyProfile(
        f"drawn-{seed}",
        "drawn",
        step_s,
        token_s,
        token_s / between(1500, 150_000),  # pairs cost as much as tokens at twice this length
        step_s * between(0.002, 0.5),
        step_s * between(0.2, 10.0) / kv_tokens,
    )
    step_tokens = max(sequences, rng.choice((256, 512, 1000, 2048, 3000, 8192, 16_384)))
    spec = EngineSpec(
        latency,
        kv_tokens,
        max_sequences=sequences,
        max_batched_tokens=step_tokens,
        max_context_tokens=context,
    )
    caches = rng.random() < 0.75
    title = (
        f"{latency.name}: step {1e3 * step_s:.1f} ms, token {1e6 * token_s:.1f} us, "
        f"pair {1e9 * latency.per_attended_token_s:.3f} ns, sequence "
        f"{1e6 * latency.per_sequence_s:.1f} us, kv {1e9 * latency.per_kv_token_s:.2f} ns, "
        f"context {context}, kv {kv_tokens}, sequences {sequences}, steps of {step_tokens}"
        f"{'' if caches else ', no cache'}"
    )
    return title, spec, caches


async def _measured(seed: int, noise: str, budget_s: float) -> Outcome:
    title, spec, caches = drawn(seed)
    engine = VirtualEngine(spec, overhead_s=OVERHEAD_S, caches=caches, seed=seed, **NOISE[noise])
    replica = replica_of(
        spec,
        max_context_tokens=min(spec.max_context_tokens or 131_072, spec.kv_capacity_tokens),
        tells_sequences=False,
    )
    session = Session(replica, engine, Settings(budget_s=budget_s, seed=seed), lambda *_: None)
    latency = spec.latency
    hidden = tuple(getattr(latency, term) for term in TERMS)
    try:
        measured = await session.calibrate()
    except CalibrationError as error:
        return Outcome(title, hidden, refused=str(error), seconds=engine.now)
    if engine.now > MOST_BUDGETS * budget_s:
        return Outcome(title, hidden, refused="not over in time", seconds=engine.now)
    found = fit(measured.prefills, measured.decodes, measured.extent)
    if not isinstance(found, Fit):
        return Outcome(title, hidden, refused="; ".join(map(str, found)), seconds=engine.now)
    values = dict(zip(TERMS, found.coefficients, strict=True))
    intervals = found.intervals
    return Outcome(
        title,
        hidden,
        {term: values[term] / h - 1 for term, h in zip(TERMS, hidden, strict=True)},
        {
            term: (intervals[term].high_s - intervals[term].low_s) / 2 / (values[term] or 1e-12)
            for term in TERMS
        },
        tuple(term for term in TERMS if intervals[term].note),
        tuple(
            term
            for term, h in zip(TERMS, hidden, strict=True)
            if intervals[term].low_s <= h <= intervals[term].high_s
        ),
        "; ".join(map(str, found.doubts)),
        engine.now,
        measured.rounds,
        found.prefill_step_tokens,
    )


def one(seed: int, noise: str, budget_s: float) -> Outcome:
    """Measure one engine."""
    return asyncio.run(_measured(seed, noise, budget_s))


def _page(outcomes: Sequence[Outcome], worst: int) -> str:
    fits = [each for each in outcomes if not each.refused]
    good = [each for each in fits if all(abs(e) <= WITHIN for t, e in each.errors.items())]
    lines = [
        (
            f"{len(outcomes)} engines: {len(good)} with all terms within {WITHIN:.0%}, "
            f"{len(outcomes) - len(fits)} refused; at most {max(o.seconds for o in outcomes):.0f} s"
        ),
        f"{'term':22} within  median     p90   worst  interval holds  off, not marked",
    ]
    for term in TERMS:
        sizes = sorted(abs(each.errors[term]) for each in fits)
        if not sizes:
            break
        within = sum(size <= WITHIN for size in sizes) / len(sizes)
        held = sum(term in each.held for each in fits) / len(fits)
        silent = sum(abs(e.errors[term]) > WITHIN and term not in e.marked for e in fits)
        lines.append(
            f"{term:22} {within:6.1%} {median(sizes):7.2%} {sizes[int(0.9 * len(sizes))]:7.2%} "
            f"{sizes[-1]:7.1%} {held:14.1%} {silent:12}"
        )
    lines.append("the worst:")
    ranked = sorted(fits, key=lambda e: -max(map(abs, e.errors.values())))
    for each in ranked[:worst]:
        errors = ", ".join(
            f"{term} {error:+.1%} (±{each.half_widths[term]:.1%})"
            f"{' marked' if term in each.marked else ''}"
            for term, error in each.errors.items()
            if abs(error) > WITHIN
        )
        lines.append(
            f"  {each.title}: {errors}; {each.rounds} rounds, {each.seconds:.0f} s, steps "
            f"of {each.step_tokens}"
        )
    lines += [
        f"  refused {e.title}: {e.refused} ({e.seconds:.0f} s)" for e in outcomes if e.refused
    ]
    return "\n".join(lines)


def main() -> None:
    """Draw engines, measure them, show how near it came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--noise", choices=NOISE, default="quiet")
    parser.add_argument("--budget", type=float, default=90.0)
    parser.add_argument("--worst", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.engines)
    with ProcessPoolExecutor(options.processes, initializer=end_with_parent) as pool:
        tasks = [pool.submit(one, seed, options.noise, options.budget) for seed in seeds]
        outcomes = [task.result() for task in tasks]
    if options.json:
        print(json.dumps([asdict(each) for each in outcomes], indent=1))
    else:
        print(_page(outcomes, options.worst))


if __name__ == "__main__":
    main()
