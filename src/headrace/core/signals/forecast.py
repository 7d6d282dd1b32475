"""Replicas for the highest demand until one that is ordered now is ready.

replicas = load `outlook.high`, with the margin for chance, less what wakes from standby
"""

from __future__ import annotations

from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView


def forecast(view: ScalingView) -> Signal | None:
    """What the outlook needs; None without one.

    Standby replicas are ready at once, so what may come, beyond what is here, can be theirs.
    """
    outlook = view.outlook
    if outlook is None or view.capacity is None:
        return None
    standby = len(view.standby)
    now = view.staffed(outlook.now)
    replicas = max(view.staffed(outlook.high) - standby, now)
    return Signal(
        "forecast",
        replicas,
        "high",
        (
            ("load_now", outlook.now),
            ("load_expected", outlook.expected),
            ("load_high", outlook.high),
            ("horizon_s", outlook.horizon_s),
            ("miss_target", outlook.miss_target),
            ("error", outlook.error),
            ("standby_replicas", float(standby)),
        ),
    )
