"""How fast the error budget is used: burn rates over windows, of misses that load causes.

    burn = (misses by load / judged) / (1 - attainment)        1.0: exactly on budget

Two pairs of a long and a short window (Site Reliability Workbook, ch. 5): the long one says that it
matters, the short one that it still goes on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.scaling.observation import GatewayReport

MINUTE_S: Final = 60.0
LONGEST_S: Final = 6 * 3600.0
PAIRS = ((14.4, 3600.0, 300.0), (6.0, 6 * 3600.0, 1800.0))
"""(burn rate, long window in seconds, short window in seconds)"""
WINDOWS_S = tuple(sorted(window_s for _, *pair in PAIRS for window_s in pair))
_KEPT = ("started_at_s", "judged", "ttft_misses", "tpot_misses")
FEWEST_JUDGED: Final = 20.0
"""Fewer requests in a window prove nothing."""


@dataclass(slots=True)
class _Minute:
    begin_s: float
    judged: float = 0.0
    misses: float = 0.0


class MissLog:
    """Judged requests and misses by the minute, summed over gateways, for six hours.

    A gateway that has not been seen for so long is forgotten: where they come and go, each one has
    another name.
    """

    __slots__ = ("_burns", "_burnt_s", "_last", "_minutes", "_seen_s")

    def __init__(self) -> None:
        self._last: dict[str, GatewayReport] = {}
        self._seen_s: dict[str, float] = {}
        self._minutes: deque[_Minute] = deque()
        self._burns: dict[float, float] = {}
        self._burnt_s = -1.0

    def observe(self, reports: tuple[GatewayReport, ...], now: float) -> None:
        """Take the totals of gateways as read at `now`."""
        judged = misses = 0.0
        for report in reports:
            last = self._last.get(report.gateway)
            self._last[report.gateway] = report
            self._seen_s[report.gateway] = now
            if last is None:
                continue
            restarted = report.started_at_s > last.started_at_s
            before = GatewayReport(report.gateway, 0.0) if restarted else last
            late = report.ttft_misses + report.tpot_misses
            judged += max(report.judged - before.judged, 0.0)
            misses += max(late - before.ttft_misses - before.tpot_misses, 0.0)
        begin_s = now // MINUTE_S * MINUTE_S
        if not self._minutes or self._minutes[-1].begin_s < begin_s:
            self._minutes.append(_Minute(begin_s))
            self._forget(now)
        self._minutes[-1].judged += judged
        self._minutes[-1].misses += min(misses, judged)
        while self._minutes[0].begin_s < begin_s - LONGEST_S:
            self._minutes.popleft()

    def _forget(self, now: float) -> None:
        """Whoever has not been seen for longer than anything is kept."""
        for name, seen_s in list(self._seen_s.items()):
            if now - seen_s > LONGEST_S:
                del self._last[name], self._seen_s[name]

    def burn_rates(self, attainment: float, now: float) -> dict[float, float]:
        """By window in seconds; 0 where too little was judged. Brought up to date each minute."""
        begin_s = now // MINUTE_S * MINUTE_S
        if begin_s != self._burnt_s:
            self._burnt_s = begin_s
            self._burns = {
                window_s: self._burn(window_s, attainment, now) for window_s in WINDOWS_S
            }
        return self._burns

    def _burn(self, window_s: float, attainment: float, now: float) -> float:
        judged = misses = 0.0
        for minute in reversed(self._minutes):
            if minute.begin_s + MINUTE_S <= now - window_s:
                break
            judged += minute.judged
            misses += minute.misses
        if judged < FEWEST_JUDGED:
            return 0.0
        return misses / judged / (1.0 - attainment)

    def missed_share(self, begin_s: float) -> float | None:
        """The share missed of those judged in the minute that began then; None if nobody was."""
        for minute in reversed(self._minutes):
            if minute.begin_s == begin_s:
                return minute.misses / minute.judged if minute.judged > 0.0 else None
        return None

    def state(self) -> dict[str, Any]:
        """The minutes and the last totals, as JSON can hold them."""
        return {
            "minutes": [[m.begin_s, m.judged, m.misses] for m in self._minutes],
            "burns": [[window_s, burn] for window_s, burn in self._burns.items()],
            "burnt_s": self._burnt_s,
            "last": {name: [getattr(r, each) for each in _KEPT] for name, r in self._last.items()},
            "seen_s": dict(self._seen_s),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        self._minutes = deque(_Minute(*row) for row in state["minutes"])
        self._burns = dict(state["burns"])
        self._burnt_s = state["burnt_s"]
        self._last = {
            name: GatewayReport(name, **dict(zip(_KEPT, values, strict=True)))
            for name, values in state["last"].items()
        }
        # A file of before this was kept: whoever is in it was seen at the latest when it ended.
        seen_s = state.get("seen_s", {})
        latest_s = self._minutes[-1].begin_s if self._minutes else 0.0
        self._seen_s = {name: seen_s.get(name, latest_s) for name in self._last}
