"""Small demands and readings for tests of scalers."""

from __future__ import annotations

from typing import Any

from headrace.core.latency import LatencyProfile
from headrace.engine_model import EngineSpec
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.fleet import SimulatedFleet
from headrace.simulator.scaling.mix import RequestMix
from headrace.simulator.scaling.reading import Reading, Totals
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.settings import Slo
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import Rates, RateStep

PROFILE = LatencyProfile(
    name="test",
    source="a test",
    per_step_s=0.01,
    per_prefill_token_s=5e-5,
    per_sequence_s=1e-4,
    per_kv_token_s=1e-7,
)
ENGINE = EngineSpec(PROFILE, kv_capacity_tokens=400_000)


def settings(**changes: Any) -> ScalingSimulation:
    given: dict[str, Any] = {"engine": ENGINE, "slo": Slo(2.0, 0.05), **changes}
    return ScalingSimulation(**given)


def rates(*per_s: float, step_s: float = 600.0, prompt: float = 500.0, answer: float = 100.0):
    steps = [RateStep(i * step_s, rate, prompt, answer) for i, rate in enumerate(per_s)]
    return Rates("made", steps, len(steps) * step_s)


def demand(*per_s: float, cv: float = 0.0, gap_cv: float = 1.0, **kinds: Any) -> Demand:
    return demand_of(rates(*per_s, **kinds), cv=cv, gap_cv=gap_cv)


def demand_of(made: Rates, cv: float = 1.0, gap_cv: float = 1.0) -> Demand:
    return Demand(made, LognormalSpread(cv), ENGINE, tick_s=1.0, seed=1, gap_cv=gap_cv)


def mix(prompt: float = 500.0, answer: float = 100.0) -> RequestMix:
    return RequestMix(ENGINE, ((1.0, 1.0, 1.0),), prompt, answer)


def reading(now: float = 15.0, ready: int = 4, number: int = 4, **changes: Any) -> Reading:
    given: dict[str, Any] = {
        "requests_per_s": 0.0,
        "input_tokens_per_s": 0.0,
        "output_tokens_per_s": 0.0,
        "ttft_p90_s": 0.0,
        "tpot_p90_s": 0.0,
        "tpot_mean_s": 0.0,
        "queue_depth": 0.0,
        "waiting_input_tokens": 0.0,
        "running": 0.0,
        "kv_usage": 0.0,
        "mix": mix(),
        "totals": Totals(),
        "fleet": SimulatedFleet(ready, 100.0),
        **changes,
    }
    return Reading(now, ready, number, **given)
