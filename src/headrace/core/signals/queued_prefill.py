"""Replicas to work off requests whose prompts wait, and those that will wait until help is there.

    growth   = sum over the next cold start of load - what is ready by then       replica-seconds
    replicas = load + (backlog + growth) / cold start      gone a cold start after help is here
             | load + backlog / 60 s, of those ordered     who is here stays until it is gone

Working off a backlog takes as many replica-seconds however many do it, so nothing is saved by
sending replicas away before it is gone, and all who come meanwhile would wait. A short burst that
those who are there clear before a replica could start asks for next to nothing. A replica that
starts counts as ready for as long as it has started already; one of which nobody knows since when,
for half a cold start, the mean of all that could be.
"""

from __future__ import annotations

from headrace.core.scaling.capacity import load_carried
from headrace.core.scaling.observation import Phase
from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView

STAY_S = 60.0


def queued_prefill(view: ScalingView) -> Signal | None:
    """What the backlog needs; None where no engine or gateway tells of one."""
    backlog = view.backlog
    if backlog is None:
        return None
    replicas = needed = view.staffed(view.load)
    growth_s = 0.0
    if backlog.excess_s > 0.0:
        growth_s = _growth_s(view)
        ahead = max(backlog.excess_s + growth_s, 0.0) / max(view.cold_start_s, 1.0)
        stays = min(needed + backlog.excess_s / STAY_S, float(len(view.ordered)))
        replicas = max(needed + ahead, stays)
    if view.held_requests > 0.0:
        replicas = max(replicas, 1.0)
    figures = (
        ("backlog_tokens", backlog.tokens),
        ("backlog_s", backlog.prefill_s),
        ("excess_s", backlog.excess_s),
        ("growth_s", growth_s),
        ("held_requests", view.held_requests),
    )
    return Signal("queued_prefill", replicas, "backlog_s", figures)


def _growth_s(view: ScalingView) -> float:
    """Replica-seconds that come to the backlog in a cold start; negative where it shrinks."""
    if view.capacity is None:
        return 0.0
    cold_start_s = view.cold_start_s
    ready_s = load_carried(view.capacity, len(view.ready)) * cold_start_s
    for each in view.ordered:
        if each.phase is Phase.STARTING:
            since_s = each.ordered_at_s
            started_s = view.now - since_s if since_s > 0.0 else cold_start_s / 2.0
            ready_s += min(max(started_s, 0.0), cold_start_s)
    return view.load * cold_start_s - ready_s
