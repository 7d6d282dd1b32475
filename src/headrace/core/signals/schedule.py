"""Floors known in advance: those that hold until a replica ordered now is ready.

replicas = the most of the floors with begins_s <= now + cold_start_s and ends_s > now
"""

from __future__ import annotations

from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView


def schedule(view: ScalingView) -> Signal | None:
    """The floor of the calendar; None without one."""
    ahead_s = view.now + view.cold_start_s + view.settings.tick_s
    due = [
        floor
        for floor in view.settings.schedule
        if floor.begins_s <= ahead_s and floor.ends_s > view.now
    ]
    if not due:
        return None
    highest = max(due, key=lambda floor: (floor.replicas, -floor.begins_s))
    figures = (("begins_s", highest.begins_s), ("ends_s", highest.ends_s))
    return Signal("schedule", highest.replicas, highest.name or "calendar", figures, kind="floor")
