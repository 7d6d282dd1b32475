"""One gateway's totals, read again and again: what came in between, whatever goes wrong.

    rate over w seconds = (total now - total w seconds ago) / (when now - when w seconds ago)

"When" is the scaler's clock less the report's age; a gateway's own clock may be off by anything, as
long as it goes on: what it says again and again as of one moment is old. A total that went back
under the same start is a contradiction; one under a later start is a restart, whose total is what
came since. A gateway that is not heard of, or not believed, keeps its last rate: its clients have
not gone, only its word.
"""

from __future__ import annotations

from collections import deque
from math import exp
from typing import Any

from headrace.core.length_sketch import LengthSketch, since, sketch_from
from headrace.core.scaling.observation import GatewayReport

KEPT_S = 360.0
"""How far back totals are kept: longer than any window a rate is taken over."""
LEAST_WINDOW_S = 30.0
DISTRUST_S = 300.0
"""So long after a contradiction a gateway is not believed."""
SKEW_S = 30.0
"""A gateway's own clock may be off by so much before it is said, and stand still for so long before
its reports are taken for old ones."""


class GatewayTotals:
    """`offered` is what was asked for, over restarts; `skew` says by how much its clock is off, ""
    if it is not.
    """

    __slots__ = (
        "_behind_s",
        "_distrusted_s",
        "_marks",
        "last",
        "lengths",
        "offered",
        "skew",
        "true_at_s",
    )

    def __init__(self) -> None:
        self.last: GatewayReport | None = None
        self.true_at_s = 0.0
        self.offered = 0.0
        self.lengths = LengthSketch()
        self.skew = ""
        self._behind_s = 0.0
        self._distrusted_s = -DISTRUST_S
        self._marks: deque[tuple[float, float]] = deque()

    def observe(self, report: GatewayReport, now: float) -> None:
        """Take a report at `now`; `lengths` is then what has ended since the one before."""
        last, self.last = self.last, report
        true_at_s = now - max(report.age_s, 0.0)
        self.skew = _skew(report, true_at_s)
        self.lengths = LengthSketch()
        if last is None:
            # Its totals are of times nobody here has seen: they are where counting begins. What
            # its lengths were is the best guess of what they are.
            self.lengths = report.lengths
            self._mark(true_at_s)
            return
        if true_at_s <= self.true_at_s:
            return  # the same report as before, or one that overtook it
        self._fall_behind(report, last, true_at_s - self.true_at_s)
        if report.started_at_s > last.started_at_s:
            self._grow(report, GatewayReport(report.gateway, report.started_at_s))
        elif contradicts(report, last) or now - self._distrusted_s < DISTRUST_S:
            # Neither what came between nor the way back to the truth is demand.
            if contradicts(report, last):
                self._distrusted_s = now
                self._take_back(_offered(last) - _offered(report))
            self._stand_still(true_at_s)
            return
        else:
            self._grow(report, last)
        self._mark(true_at_s)

    def requests_per_s(self, window_s: float) -> float | None:
        """Requests/s over about the last `window_s`; None until two reports are known.

        One request in the first seconds is not a rate: they count as `LEAST_WINDOW_S`.
        """
        marks = self._marks
        if len(marks) < 2:
            return None
        end_s, total = marks[-1]
        begin_s, before = marks[0]
        for mark in reversed(marks):
            begin_s, before = mark
            if end_s - begin_s >= window_s - 1e-6:
                break
        known_s = end_s - marks[0][0]
        return (total - before) / (end_s - begin_s + max(LEAST_WINDOW_S - known_s, 0.0))

    def trouble_at(self, now: float, stale_s: float) -> str:
        """What is wrong with what is known of it; "" if nothing."""
        age_s = now - self.true_at_s
        if age_s > stale_s:
            return f"its report is {age_s:.0f} s old"
        if now - self._distrusted_s < DISTRUST_S:
            return "its totals went back though it did not restart"
        if self._behind_s > SKEW_S:
            return "it tells what it has told before: its clock stands still"
        return ""

    @property
    def held_requests(self) -> float:
        """Requests that waited there when it was last heard of."""
        return 0.0 if self.last is None else self.last.held_requests

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        last = None
        if self.last is not None:
            last = {name: getattr(self.last, name) for name in GatewayReport.__slots__}
            last["lengths"] = self.last.lengths.rows()
        return {
            "last": last,
            "true_at_s": self.true_at_s,
            "offered": self.offered,
            "distrusted_s": self._distrusted_s,
            "behind_s": self._behind_s,
            "marks": [list(mark) for mark in self._marks],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        last = state["last"]
        # Of a file of before refusals were told, they would all seem to have come since.
        if last is not None and "refused_requests" in last:
            fields: dict[str, Any] = {**last, "lengths": sketch_from(last["lengths"])}
            self.last = GatewayReport(**fields)
        self.true_at_s = state["true_at_s"]
        self.offered = state["offered"]
        self._distrusted_s = state["distrusted_s"]
        self._behind_s = state.get("behind_s", 0.0)  # a file of before this was kept has none
        self._marks = deque((at_s, total) for at_s, total in state["marks"])

    def _grow(self, report: GatewayReport, last: GatewayReport) -> None:
        self.offered += _offered(report) - _offered(last)
        # An engine may refuse what arrived long before: it was no demand then, either.
        if self._marks and self.offered < self._marks[-1][1]:
            self._marks = deque((at_s, min(total, self.offered)) for at_s, total in self._marks)
        if report.lengths is not last.lengths:
            self.lengths = since(report.lengths, last.lengths)

    def _take_back(self, requests: float) -> None:
        """Forget the marks that say more than there ever was, if `requests` of that are taken back;
        where that leaves no rate, the totals of now are taken for the wrong ones.
        """
        believed = [mark for mark in self._marks if mark[1] <= self.offered - requests]
        if len(believed) > 1:
            self._marks = deque(believed)
            self.offered = believed[-1][1]

    def _stand_still(self, true_at_s: float) -> None:
        """Keep the last rate, as if no time had passed."""
        passed_s = true_at_s - self._marks[-1][0]
        self._marks = deque((at_s + passed_s, total) for at_s, total in self._marks)
        self.true_at_s = true_at_s

    def _fall_behind(self, report: GatewayReport, last: GatewayReport, passed_s: float) -> None:
        """How far its clock falls behind ours, forgotten as a contradiction is."""
        if report.reported_at_s is None or last.reported_at_s is None:
            return
        lost_s = passed_s - (report.reported_at_s - last.reported_at_s)
        kept_s = self._behind_s * exp(-passed_s / DISTRUST_S)
        self._behind_s = min(max(kept_s + lost_s, 0.0), DISTRUST_S)

    def _mark(self, true_at_s: float) -> None:
        self.true_at_s = true_at_s
        self._marks.append((true_at_s, self.offered))
        while self._marks[0][0] < true_at_s - KEPT_S:
            self._marks.popleft()


def _offered(report: GatewayReport) -> float:
    return report.served_requests + report.shed_requests


def contradicts(report: GatewayReport, last: GatewayReport) -> bool:
    """Whether totals went back since an earlier report, or are none."""
    return (
        report.requests < last.requests
        or report.started_at_s < last.started_at_s
        or report.shed_requests < last.shed_requests
        or report.refused_requests < last.refused_requests
        or report.refused_requests > report.requests
    )


def _skew(report: GatewayReport, true_at_s: float) -> str:
    if report.reported_at_s is None:
        return ""
    off_s = report.reported_at_s - true_at_s
    # To ten seconds, so that it is no news at every look.
    return f"its clock is off by {round(off_s, -1):.0f} s" if abs(off_s) > SKEW_S else ""
