"""Replicas to work off requests whose prompts wait, and those that will wait until help is there.

    growth   = sum over the next cold start of load - what is ready by then       replica-seconds
    soon, late = the shorter and the longer of 60 s and a cold start
    replicas = load + (backlog + growth) / soon, at most 3 * load      gone so soon after help
             | load + (backlog + growth) / late                        gone so late after help
             | load + what waits when those that start are ready / 60 s, of those ordered

Working off a backlog takes as many replica-seconds however many do it, and until it is gone all
who come are late, not only those for whom there is no room. So it is to be gone within a minute of
help, or within a cold start where that is shorter: more would be paid for starting rather than for
working. The bound keeps a huge jump from asking for many fleets at once; beyond it, or where hardly
anything comes beside the backlog, it takes the longer of the two. Nobody goes before the backlog is
gone, nor do those that start because of it: what they will work off is not gone yet. A short burst
that those who are there clear before a replica could start asks for next to nothing. A replica that
starts counts as ready for as long as it has started already; one of which nobody knows since when,
for half a cold start, the mean of all that could be.
"""

from __future__ import annotations

from headrace.core.scaling.capacity import load_carried
from headrace.core.scaling.observation import Phase
from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView

CLEAR_S = 60.0
"""From when help is here until a backlog is to be gone."""
MOST_ON_TOP = 2.0
"""Of what load needs, what a backlog may want beside it to be gone so soon."""


def queued_prefill(view: ScalingView) -> Signal | None:
    """What the backlog needs; None where no engine or gateway tells of one."""
    backlog = view.backlog
    if backlog is None:
        return None
    replicas = needed = view.staffed(view.load)
    growth_s = 0.0
    if backlog.excess_s > 0.0:
        started_s = _started_s(view)
        growth_s = _growth_s(view, started_s)
        ahead = _ahead(backlog.excess_s + growth_s, needed, max(view.cold_start_s, 1.0))
        stay = (backlog.excess_s + _to_come_s(view, started_s)) / CLEAR_S
        replicas = needed + max(ahead, min(stay, len(view.ordered) - needed))
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


def _ahead(waiting_s: float, needed: float, cold_start_s: float) -> float:
    """Replicas beside those that load needs, to work off what waits when help is here."""
    waiting_s = max(waiting_s, 0.0)
    soon = min(waiting_s / min(CLEAR_S, cold_start_s), MOST_ON_TOP * needed)
    return max(soon, waiting_s / max(CLEAR_S, cold_start_s))


def _started_s(view: ScalingView) -> list[float]:
    """For how long each replica that starts has started already."""
    cold_start_s = view.cold_start_s
    return [
        min(max(view.now - each.ordered_at_s, 0.0), cold_start_s)
        if each.ordered_at_s > 0.0
        else cold_start_s / 2.0
        for each in view.ordered
        if each.phase is Phase.STARTING
    ]


def _short(view: ScalingView) -> float:
    """Load for which the ready replicas have no room; negative where they have some to spare."""
    if view.capacity is None:
        return 0.0
    return view.load - load_carried(view.capacity, len(view.ready))


def _growth_s(view: ScalingView, started_s: list[float]) -> float:
    """Replica-seconds that come to the backlog in a cold start; negative where it shrinks."""
    if view.capacity is None:
        return 0.0
    return _short(view) * view.cold_start_s - sum(started_s)


def _to_come_s(view: ScalingView, started_s: list[float]) -> float:
    """Replica-seconds that come to the backlog until those that start are ready."""
    if not started_s:
        return 0.0
    left_s = view.cold_start_s - sum(started_s) / len(started_s)
    return max(_short(view), 0.0) * left_s
