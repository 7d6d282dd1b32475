"""The engines of a run: as profiled, off by chance, or all of them as one.

mismatch M     each coefficient of each replica * a factor drawn evenly from [1 - M, 1 + M]
pooled         KV, sequences and token budget are sums over the replicas;
               a coefficient per token or sequence is 1 / sum(1 / coefficient),
               the one per step is the mean
"""

from __future__ import annotations

import random
from dataclasses import replace

from headrace.core.latency import LatencyProfile
from headrace.engine_model.spec import EngineSpec
from headrace.simulator.settings import SimulationSettings

COEFFICIENTS = (
    "per_step_s",
    "per_prefill_token_s",
    "per_attended_token_s",
    "per_sequence_s",
    "per_kv_token_s",
)
PER_ITEM = COEFFICIENTS[1:]


def engine_specs(settings: SimulationSettings) -> list[EngineSpec]:
    """What each replica really is. The same for every policy of a seed."""
    spec, spread = settings.engine, settings.mismatch
    if not spread:
        return [spec] * settings.replicas
    # A seed as text is hashed by its bytes, so it means the same in every process.
    rng = random.Random(f"mismatch {settings.seed}")  # noqa: S311 - no secrets
    return [_off(spec, spread, rng) for _ in range(settings.replicas)]


def pooled(specs: list[EngineSpec]) -> EngineSpec:
    """One engine with all that these have together, and no routing.

    It reads and computes as fast as all of them at once, so a single prompt is prefilled N times
    as fast as any replica can: the distance to it is more than routing alone could gain.
    """
    first = specs[0]
    profiles = [spec.latency for spec in specs]
    together = {name: _in_parallel([getattr(p, name) for p in profiles]) for name in PER_ITEM}
    step_s = sum(profile.per_step_s for profile in profiles) / len(profiles)
    return replace(
        first,
        latency=replace(first.latency, per_step_s=step_s, **together),
        kv_capacity_tokens=sum(spec.kv_capacity_tokens for spec in specs),
        max_sequences=sum(spec.max_sequences for spec in specs),
        max_batched_tokens=sum(spec.max_batched_tokens for spec in specs),
        gpus=sum(spec.gpus for spec in specs),
    )


def _off(spec: EngineSpec, spread: float, rng: random.Random) -> EngineSpec:
    latency: LatencyProfile = spec.latency
    off = {
        name: getattr(latency, name) * (1.0 + spread * (2.0 * rng.random() - 1.0))
        for name in COEFFICIENTS
    }
    return replace(spec, latency=replace(latency, **off))


def _in_parallel(seconds: list[float]) -> float:
    """Seconds per item where all work at once; what costs one of them nothing costs all nothing."""
    return 0.0 if 0.0 in seconds else 1.0 / sum(1.0 / each for each in seconds)
