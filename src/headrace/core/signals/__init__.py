"""Opinions on how many replicas are wanted, one file each.

A signal is a function of a `ScalingView`: it answers with a `Signal`, its figures as data, or None
where it has nothing to go by. The scaler decides between them: the highest wish wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView
from headrace.core.signals.burn_rate import burn_rate
from headrace.core.signals.forecast import forecast
from headrace.core.signals.kv_occupancy import kv_occupancy
from headrace.core.signals.memory_bandwidth import memory_bandwidth
from headrace.core.signals.queued_prefill import queued_prefill
from headrace.core.signals.schedule import schedule
from headrace.core.signals.slo_latency import slo_latency
from headrace.core.signals.token_throughput import token_throughput

Opinion: TypeAlias = Callable[[ScalingView], Signal | None]

SIGNALS: tuple[Opinion, ...] = (
    token_throughput,
    forecast,
    queued_prefill,
    kv_occupancy,
    slo_latency,
    burn_rate,
    memory_bandwidth,
    schedule,
)
"""In the order in which they are told; of equal wishes the first decides."""


def opinions(view: ScalingView) -> tuple[Signal, ...]:
    """What all signals say that say anything."""
    told = (signal(view) for signal in SIGNALS)
    return tuple(signal for signal in told if signal is not None)
