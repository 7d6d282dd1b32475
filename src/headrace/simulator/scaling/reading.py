"""What a scaler may know at a sync: averages since the last one, and gauges of this moment."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.simulator.scaling.fleet import SimulatedFleet
from headrace.simulator.scaling.mix import RequestMix

NOBODY = 0.01
"""In a fluid a small part of a request may wait or run; that is nobody."""


@dataclass(slots=True)
class Totals:
    """Sums since the start, as a gateway counts them."""

    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    judged: float = 0.0
    ttft_misses: float = 0.0
    tpot_misses: float = 0.0
    refused: float = 0.0
    """Of `requests`, those that fit no replica."""
    refused_input_tokens: float = 0.0


@dataclass(slots=True)
class Reading:
    """One moment. Percentiles are of requests that got their first token, or ended, since the last.

    `ready` serve, `number` are ordered. Gauges that are per replica in an engine are sums here,
    `kv_usage` too: a pool of four that are half full has 2.0. `mix` tells the lengths seen lately.
    """

    now: float
    ready: int
    number: int
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    ttft_p90_s: float
    tpot_p90_s: float
    tpot_mean_s: float
    queue_depth: float
    waiting_input_tokens: float
    """Prompt tokens without a first token that were sent to engines: in queues and in prefill."""
    running: float
    kv_usage: float
    mix: RequestMix
    totals: Totals
    fleet: SimulatedFleet
    held_requests: float = 0.0
    """Of `queue_depth`, those that wait at the gateway."""
    held_input_tokens: float = 0.0
    """Prompt tokens of these; they are not in `waiting_input_tokens`."""
