"""Demand by the minute, from the totals that gateways tell: what a history file is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.gateway_totals import contradicts
from headrace.core.scaling.observation import GatewayReport, PoolObservation

MINUTE_S = 60.0
FRESH_S = 10.0
"""A report that is older at the end of a minute does not tell what came in it."""
FORGET_S = 600.0
"""A gateway that has told nothing for so long is forgotten: where they come and go, each one has
another name."""


class _Known(NamedTuple):
    """What a gateway told at the end of a minute."""

    minute_s: float
    report: GatewayReport


class _Arrived(NamedTuple):
    requests: float
    input_tokens: float
    output_tokens: float


Keep = Callable[[str, DemandSample], None]
"""Takes a pool's name and one of its minutes."""


class MinuteLog:
    """Hands over what arrived in each minute of the clock, as soon as it is over.

    A minute that is known in part is left out, for who learns from it would take the rest for
    demand that was not there, and what is told of it later for a jump: where a gateway is missing
    or has left, its report is old, or its totals are not those of one that goes on or has just
    started.

    Args:
        keep: Takes the minutes.
        interval_s: How often gateways are asked.
    """

    def __init__(self, keep: Keep, *, interval_s: float = 0.5) -> None:
        self._keep = keep
        self._fresh_s = max(FRESH_S, 2.0 * interval_s)
        self._minute: dict[str, float] = {}
        self._known: dict[str, dict[str, _Known]] = {}

    def look(self, pool: str, seen: PoolObservation, now: float) -> None:
        """The totals of now."""
        minute_s = now // MINUTE_S * MINUTE_S
        before_s = minute_s - MINUTE_S
        last_s = self._minute.get(pool)
        if last_s == minute_s or not seen.gateways:
            return
        self._minute[pool] = minute_s
        before = self._known.get(pool, {})
        fresh = [each for each in seen.gateways if each.age_s <= self._fresh_s]
        arrived = [_since(before.get(each.gateway), each, minute_s) for each in fresh]
        known = {name: told for name, told in before.items() if minute_s - told[0] <= FORGET_S}
        known |= {each.gateway: _Known(minute_s, each) for each in fresh}
        self._known[pool] = known
        expected = set(seen.expected_gateways or [each.gateway for each in seen.gateways])
        # What came to one that has left since the minute began is not known either.
        expected |= {name for name, each in before.items() if each.minute_s == before_s}
        told = {each.gateway for each in fresh}
        parts = [each for each in arrived if each is not None]
        if last_s != before_s or not told.issuperset(expected):
            return
        if len(parts) == len(arrived):
            totals = (sum(each) for each in zip(*parts, strict=True))
            self._keep(pool, DemandSample(before_s, MINUTE_S, *totals))


def _since(known: _Known | None, report: GatewayReport, minute_s: float) -> _Arrived | None:
    """What came to a gateway since the minute before; None where that cannot be known."""
    if known is None or report.started_at_s > known.report.started_at_s:
        return _totals(report) if _is_new(report) else None
    if known.minute_s != minute_s - MINUTE_S or contradicts(report, known.report):
        return None
    # What arrived in the minute before may have been refused in this one.
    pairs = zip(_totals(report), _totals(known.report), strict=True)
    return _Arrived(*(max(0.0, now - before) for now, before in pairs))


def _is_new(report: GatewayReport) -> bool:
    """Whether all that it counts came in this minute, by its own clock."""
    reported_at_s = report.reported_at_s
    return reported_at_s is not None and reported_at_s - report.started_at_s <= MINUTE_S


def _totals(report: GatewayReport) -> _Arrived:
    return _Arrived(report.served_requests, report.served_input_tokens, report.output_tokens)
