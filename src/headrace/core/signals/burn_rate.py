"""More replicas while the error budget burns: it lifts what latencies ask for, and never lowers.

    fires where both windows of a pair burn faster than its rate: 14.4 over 1 h and 5 min,
    6 over 6 h and 30 min; only misses that load causes count
    factor = 1 + 0.5 * min(short burn / (2 * rate), 1)
    replicas = min(factor * the wish of `slo_latency`, 1.5 * those ordered one cold start ago)

So in one cold start it adds half at most, and what it ordered is awaited before it asks for more.
"""

from __future__ import annotations

from headrace.core.scaling.misses import PAIRS
from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView
from headrace.core.signals.slo_latency import slo_latency

MOST_RISE = 0.5


def burn_rate(view: ScalingView) -> Signal | None:
    """The lifted wish while a pair of windows fires; None otherwise."""
    latency = slo_latency(view)
    if latency is None or latency.replicas <= 0.0:
        return None
    lift, fired = 0.0, 0.0
    for rate, long_s, short_s in PAIRS:
        burns = view.burn_rates.get(long_s, 0.0), view.burn_rates.get(short_s, 0.0)
        if min(burns) > rate:
            lift = max(lift, MOST_RISE * min(burns[1] / (2.0 * rate), 1.0))
            fired = max(fired, rate)
    if lift <= 0.0:
        return None
    most = (1.0 + MOST_RISE) * max(view.steady_replicas, 1)
    replicas = min((1.0 + lift) * latency.replicas, most)
    burns_told = tuple(
        (f"burn_{window_name(window_s)}", view.burn_rates.get(window_s, 0.0))
        for _, *pair in PAIRS
        for window_s in pair
    )
    figures = (("fired_rate", fired), *burns_told, ("factor", 1.0 + lift))
    return Signal("burn_rate", replicas, "misses", figures, kind="raises")


def window_name(window_s: float) -> str:
    """A window in the names of figures: `1h`, `5min`."""
    return f"{window_s / 3600.0:g}h" if window_s >= 3600.0 else f"{window_s / 60.0:g}min"
