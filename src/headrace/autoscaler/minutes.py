"""Demand by the minute, from the totals that gateways tell: what a history file is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.observation import GatewayReport

MINUTE_S = 60.0
FORGET_S = 600.0
"""A gateway that has told nothing for so long is forgotten: where they come and go, each one has
another name. What came to one that is back since then is part of no minute."""

_Totals = tuple[float, float, float]
_Known = tuple[float, GatewayReport]
"""The minute it was seen in, and what it told then."""
Keep = Callable[[str, DemandSample], None]
"""Takes a pool's name and one of its minutes."""


class MinuteLog:
    """Hands over what arrived in each minute of the clock, as soon as it is over.

    A gateway that restarted counts from its start on. A minute at whose end nobody told anything
    is left out, and what came in it is part of none.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._minute: dict[str, float] = {}
        self._totals: dict[str, dict[str, _Known]] = {}

    def look(self, pool: str, gateways: Sequence[GatewayReport], now: float) -> None:
        """The totals of now."""
        if not gateways:
            return
        minute_s = now // MINUTE_S * MINUTE_S
        before_s = self._minute.get(pool)
        if before_s == minute_s:
            return
        known = self._totals.get(pool, {})
        arrived = [_since(known.get(each.gateway), each) for each in gateways]
        for each in gateways:
            known[each.gateway] = (minute_s, each)
        self._totals[pool] = {
            name: told for name, told in known.items() if minute_s - told[0] <= FORGET_S
        }
        self._minute[pool] = minute_s
        if before_s is not None and before_s == minute_s - MINUTE_S:
            requests, inputs, outputs = (sum(each) for each in zip(*arrived, strict=True))
            self._keep(pool, DemandSample(before_s, MINUTE_S, requests, inputs, outputs))


def _totals(report: GatewayReport) -> _Totals:
    return report.served_requests, report.served_input_tokens, report.output_tokens


def _since(known: _Known | None, report: GatewayReport) -> _Totals:
    now = _totals(report)
    if known is None:
        return (0.0, 0.0, 0.0)  # nobody knows since when
    _, last = known
    if last.started_at_s != report.started_at_s or report.requests < last.requests:
        return now
    # What arrived in the minute before may have been refused in this one.
    requests, inputs, outputs = (max(0.0, a - b) for a, b in zip(now, _totals(last), strict=True))
    return requests, inputs, outputs
