"""What no router of whole requests can beat: each prompt alone, beside one endless cache.

    bound = prefill of what no earlier prompt of the trace began with, on the fastest replica, in
            steps of the engine's token budget, with no queue before it and no stream beside it

A block counts as cached everywhere once any request with it has arrived, so the bound is lower than
what any order of requests on any fleet of these engines can reach. `pooled_reference` is no such
bound: it prefills one prompt on all replicas at once. The share of misses counts prompts that take
longer than the TTFT target even so.
"""

from __future__ import annotations

from headrace.engine_model.spec import EngineSpec
from headrace.simulator.engines import engine_specs
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import Trace

UNLOADED_REFERENCE = "unloaded_reference"


def unloaded_ttft_s(settings: SimulationSettings, trace: Trace) -> list[float]:
    """Of each request, in order of arrival."""
    specs = list(dict.fromkeys(engine_specs(settings)))
    kv_block_tokens = settings.engine.kv_block_tokens
    seen: set[int] = set()
    found: list[float] = []
    for request in trace.requests:
        hits = 0
        for block in request.blocks:
            if block not in seen:
                break
            hits += 1
        seen.update(request.blocks)
        # An engine computes the last KV block of a prompt that is all cached.
        most = (request.input_tokens - 1) // kv_block_tokens * kv_block_tokens
        cached = min(hits * trace.block_tokens, most)
        found.append(min(_alone_s(spec, request.input_tokens - cached, cached) for spec in specs))
    return found


def _alone_s(spec: EngineSpec, uncached: int, cached: int) -> float:
    """Seconds to prefill on an idle engine: each step but the first adds a step's fixed part."""
    steps = -(-uncached // spec.max_batched_tokens)
    latency = spec.latency
    return latency.prefill_s(uncached, cached) + (steps - 1) * latency.per_step_s
