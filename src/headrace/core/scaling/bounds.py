"""What a wish may become: floor, ceiling, GPU budget, whole groups.

    floor    min_replicas; while there is demand also warm_replicas, or one; and the calendar's
    ceiling  max_replicas, and the GPUs this pool may use
    groups   ordered and removed in whole groups: up to the next, down if the ceiling forbids that
    standby  standby_replicas, and not more than have GPUs left beside those that work: who sleeps
             keeps its seat, since to wake it takes its GPUs' memory back

A floor that the configuration gives wins over a budget that would cut it: a budget is shared anew,
a floor is a promise.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView


def bounds(view: ScalingView, signals: Iterable[Signal]) -> tuple[Signal, Signal]:
    """The floor and the ceiling, as signals of their own."""
    return _floor(view, signals), _ceiling(view)


def in_groups(replicas: int, group: int, most: int, least: int) -> int:
    """The next number of whole groups, at most `most` if that leaves `least`."""
    rounded = -(-replicas // group) * group
    if rounded > most:
        rounded = most // group * group
    return max(rounded, least)


def standby_seats(view: ScalingView, replicas: int) -> int:
    """How many may stand by beside so many that work; none at zero, which is to cost nothing."""
    if not replicas:
        return 0
    wanted, available = view.settings.standby_replicas, view.observation.gpus_available
    if available is None:
        return wanted
    seats = int(available // max(view.figures.gpus, 1))
    return min(wanted, max(seats - replicas, 0))


def _floor(view: ScalingView, signals: Iterable[Signal]) -> Signal:
    settings = view.settings
    replicas, why = settings.min_replicas, "min_replicas"
    if _is_in_use(view):
        # The last one, too, stays for `idle_to_zero_s`, whatever is foreseen.
        kept = (
            (settings.warm_replicas, "warm_replicas")
            if settings.warm_replicas
            else (1, "idle_to_zero")
        )
        if kept[0] > replicas:
            replicas, why = kept
    for signal in signals:
        if signal.kind == "floor" and signal.replicas > replicas:
            replicas, why = int(signal.replicas), signal.name
    figures = (("idle_s", view.idle_s),)
    return Signal("floor", min(replicas, settings.max_replicas), why, figures, kind="floor")


def _is_in_use(view: ScalingView) -> bool:
    """Whether there was demand within `idle_to_zero_s`, as far as is known. Where nobody asks and
    no replica is there, none is kept warm: a scaler without memory has no demand to go by.
    """
    if view.idle_s >= view.settings.idle_to_zero_s:
        return False
    return bool(view.ordered) or view.load > 0.0 or view.held_requests > 0.0


def _ceiling(view: ScalingView) -> Signal:
    settings, available = view.settings, view.observation.gpus_available
    replicas, why = settings.max_replicas, "max_replicas"
    if available is not None:
        afford = max(int(available // max(view.figures.gpus, 1)), settings.min_replicas)
        if afford < replicas:
            replicas, why = afford, "gpu_budget"
    return Signal("ceiling", replicas, why, (), kind="ceiling")
