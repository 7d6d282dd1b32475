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
    figures = (
        ("fired_rate", fired),
        ("burn_1h", view.burn_rates.get(3600.0, 0.0)),
        ("burn_5min", view.burn_rates.get(300.0, 0.0)),
        ("burn_6h", view.burn_rates.get(21600.0, 0.0)),
        ("burn_30min", view.burn_rates.get(1800.0, 0.0)),
        ("factor", 1.0 + lift),
    )
    return Signal("burn_rate", replicas, "misses", figures, kind="raises")
