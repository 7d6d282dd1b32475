"""Replicas so that latencies come back to their targets, where tokens do not explain them.

    TPOT    step_s = per_step / (1 - u): from the measured step to the one wanted,
            replicas = ready * u / u_wanted
    TTFT    a late first token is a queue; half of what it is over its target, as a share of ready
    both    at most half as many again as are ready

While there are fewer replicas than demand needs, latencies are over for a reason that others have
told already, and what they ask for is on its way. They count once the replicas that are ready have
had room for the demand, as it is reckoned, for two minutes: then the reckoning is wrong.

It is not wrong by any amount. Replicas that are used to less than half, with nobody waiting in
them, are slow by themselves: a machine too small, a profile of another one, a neighbour. More of
them would each be as slow, so nothing is wished, and the reason says so.
"""

from __future__ import annotations

from headrace.core.scaling.capacity import load_carried
from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView

MOST_FACTOR = 1.5
UNEXPLAINED_S = 120.0
BUSY_USE = 0.5
"""Of what replicas carry: the reckoning, corrected, is not off by more."""


def latency_factor(view: ScalingView) -> tuple[float, str, float, float]:
    """How many times the ready replicas latencies ask for, what for, TTFT and TPOT ratios."""
    reports = [
        report for report in view.observation.gateways if report.age_s <= view.settings.stale_s
    ]
    ttft = max((report.ttft_worst_ratio for report in reports), default=0.0)
    tpot = max((report.tpot_worst_ratio for report in reports), default=0.0)
    factor, why = 1.0, "met"
    if ttft > 1.0:
        factor, why = 1.0 + 0.5 * (ttft - 1.0), "ttft"
    if tpot > 1.0:
        fixed = view.figures.latency.per_step_s / view.settings.target.tpot_s
        wanted = max(1.0 - fixed, 0.05)
        used = max(1.0 - fixed / tpot, wanted)
        if used / wanted > factor:
            factor, why = used / wanted, "tpot"
    return min(factor, MOST_FACTOR), why, ttft, tpot


def slo_latency(view: ScalingView) -> Signal | None:
    """What latencies ask for; None while nobody is ready or nothing was judged."""
    factor, why, ttft, tpot = latency_factor(view)
    if not view.ready or (ttft <= 0.0 and tpot <= 0.0):
        return None
    figures = (
        ("ttft_ratio", ttft),
        ("tpot_ratio", tpot),
        ("ready_replicas", len(view.ready)),
        ("fits_s", view.fits_s),
    )
    replicas = 0.0  # met targets say nothing of how many fewer would do: no wish
    if factor > 1.0 and view.fits_s < UNEXPLAINED_S:
        why = f"{why} explained"  # by the shortage that is, or was until just now
    elif factor > 1.0 and not _is_busy(view):
        why = f"{why} late on idle replicas: more would not help"
    elif factor > 1.0:
        replicas = factor * len(view.ready)
    return Signal("slo_latency", replicas, why, figures)


def _is_busy(view: ScalingView) -> bool:
    """Whether load can be what makes the ready replicas slow: by the reckoning or by what engines
    tell; where neither is known, it can.
    """
    capacity = view.capacity
    if capacity is None or view.load >= BUSY_USE * load_carried(capacity, len(view.ready)):
        return True
    if view.held_requests > 0.0 or any(each.queue_depth for each in view.fresh):
        return True
    running = [each.running for each in view.fresh if each.running is not None]
    return sum(running) > BUSY_USE * capacity.decoding * len(running)
