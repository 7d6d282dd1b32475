"""Whether the numbers of a scaler's kept state can be true.

A file may be torn, edited or of another machine, and one wrong number of the right type would be
decided by for hours: a count below zero, a share above one, a time that is still to come. Where it
stands says what a number may be; of those that are learned and have no such bound it is only asked
that they are not beyond anything measured. What is no number is not judged here: a state of the
wrong shape fails where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from headrace.core.scaling.cold_starts import LONGEST_S
from headrace.core.scaling.gateway_totals import DISTRUST_S
from headrace.core.scaling.served_curve import BACKLOG_MINUTES, HIGHEST, LOWEST

AHEAD_S: Final = 300.0
"""Two clocks, or one that was set back a little."""
CLEAR_S: Final = 86_400.0
"""A backlog is reckoned to be gone within a cold start."""
MOST: Final = 1e18
"""Of anything: prompt tokens of ten thousand GPUs in ten years, most of them cached, are fewer."""
MOST_REPLICAS: Final = 1e6


@dataclass(frozen=True, slots=True)
class _Range:
    """What a number may be. Of a time, `most` is how far it may be ahead."""

    least: float
    most: float
    is_time: bool = False


_ANY = _Range(-MOST, MOST)
_SUM = _Range(0.0, MOST)
_REPLICAS = _Range(0.0, MOST_REPLICAS)
_TIME = _Range(0.0, AHEAD_S, is_time=True)

_RANGES: Final = {
    "hysteresis.number": _REPLICAS,
    "hysteresis.band": _REPLICAS,
    "hysteresis.wishes.*.0": _TIME,
    "hysteresis.wishes.*.1": _REPLICAS,
    "hysteresis.differences.*": _REPLICAS,
    "hysteresis.minutes.*.0": _TIME,
    "hysteresis.minutes.*.1": _REPLICAS,
    "cold_starts_s.*": _Range(0.0, LONGEST_S),
    "misses.minutes.*.0": _TIME,
    "misses.minutes.*.*": _SUM,
    "misses.burns.*.*": _SUM,
    "misses.burnt_s": _Range(-1.0, AHEAD_S, is_time=True),
    "misses.last.*.*": _SUM,
    "misses.seen_s.*": _TIME,
    "served._known.*": _SUM,
    "served._missed.*": _SUM,
    "served._ready": _Range(-1.0, MOST_REPLICAS),
    "served._backlog": _Range(0.0, BACKLOG_MINUTES),
    "served.usable": _Range(LOWEST, HIGHEST),
    "counts.*.0": _TIME,
    "counts.*.1": _REPLICAS,
    "ready_before": _REPLICAS,
    "granted": _REPLICAS,
    "fits_since_s": _Range(0.0, CLEAR_S, is_time=True),
    "kv_marks.*.0": _TIME,
    "kv_marks.*.1": _Range(0.0, 1.01),  # as engines round it
    "orders.open.*.*": _TIME,
    "demand.plain._minute_begin_s": _TIME,
    "demand.plain._minute_cover_s": _SUM,
    "demand.plain._minute_load_s": _SUM,
    "demand.plain._priced_s": _TIME,
    "demand.plain.idle_since_s": _TIME,
    "demand.plain.known_since_s": _TIME,
    "demand.plain.load": _REPLICAS,
    "demand.plain.requests_per_s": _SUM,
    "demand.plain.usable": _Range(LOWEST, HIGHEST),
    "demand.gateways.*.last.reported_at_s": _ANY,  # by its own clock
    "demand.gateways.*.last.lengths.*.*": _SUM,
    "demand.gateways.*.last.*": _SUM,
    "demand.gateways.*.true_at_s": _TIME,
    "demand.gateways.*.distrusted_s": _Range(-DISTRUST_S, AHEAD_S, is_time=True),
    "demand.gateways.*.behind_s": _Range(0.0, DISTRUST_S),
    "demand.gateways.*.marks.*.0": _TIME,
    "demand.left_s.*": _TIME,
    "demand.lengths.*.*": _SUM,
    "demand.ended.*.*.*": _SUM,
    "forecast.margin": _Range(0.0, MOST_REPLICAS),
    "forecast.demand": _SUM,  # of weeks of minutes
    "forecast.highest": _REPLICAS,
    "forecast.minutes": _SUM,
    "forecast.signs.counts.*": _SUM,
    "forecast.shadows.*.wanted.*.*": _REPLICAS,
    "forecast.shadows.*.missed.*": _SUM,
    "forecast.shadows.*.paid.*": _SUM,
    "forecast.shadows.*.whole.*": _SUM,
}
"""By where a number stands; `*` is any key or place that is not named."""


def impossible(state: dict[str, Any], now: float) -> str:
    """The first number that cannot be, and what it may be, in words; "" if there is none.

    Times are judged by `now` or by when the state was last used, if that is later: where the clock
    was set back they are all ahead, and the scaler forgets them itself.
    """
    return _fault((), state, (_TREE,), max(now, _last_look(state)))


def _last_look(state: dict[str, Any]) -> float:
    try:
        seen_s = state["demand"]["plain"]["_seen_s"]
    except (KeyError, TypeError):
        return 0.0
    is_time = isinstance(seen_s, int | float) and 0.0 <= seen_s <= MOST
    return float(seen_s) if is_time else 0.0


@dataclass(slots=True)
class _Node:
    """A place in the state: what a number there may be, and what is below it."""

    range: _Range | None
    below: dict[str, _Node]


def _tree(ranges: dict[str, _Range]) -> _Node:
    root = _Node(None, {})
    for path, allowed in ranges.items():
        node = root
        for key in path.split("."):
            node = node.below.setdefault(key, _Node(None, {}))
        node.range = allowed
    return root


_TREE: Final = _tree(_RANGES)


def _fault(path: tuple[str, ...], value: object, nodes: tuple[_Node, ...], latest_s: float) -> str:
    """What is wrong at or below a place, which may be described by several nodes, the closest
    first.
    """
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int | float):
        allowed = next((node.range for node in nodes if node.range is not None), _ANY)
        return _told(path, value, allowed, latest_s)
    for key, each in _parts(value):
        found = (node.below.get(name) for name in (key, "*") for node in nodes)
        below = tuple(node for node in found if node is not None)
        if fault := _fault((*path, key), each, below, latest_s):
            return fault
    return ""


def _parts(value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict):
        return ((str(key), each) for key, each in cast(dict[object, object], value).items())
    if isinstance(value, list):
        return ((str(place), each) for place, each in enumerate(cast(list[object], value)))
    return ()


def _told(path: tuple[str, ...], value: float, allowed: _Range, latest_s: float) -> str:
    most = allowed.most + (latest_s if allowed.is_time else 0.0)
    if allowed.least <= value <= most:  # a NaN is not
        return ""
    where = ".".join(path)
    if allowed.is_time and value > most:
        return f"{where} is {value!r}, a time that is still to come"
    return f"{where} is {value!r}, and can only be from {allowed.least:g} to {most:g}"
