"""Demand from the totals that gateways report."""

from __future__ import annotations

from headrace.core.length_sketch import LengthCounter, LengthSketch, since
from headrace.core.scaling_observation import GatewayReport, PoolObservation

WINDOW_S = 60.0


class DemandMeter:
    """Requests/s over the last minute and the lengths seen lately."""

    __slots__ = ("_last", "_lengths", "_rates", "_seen_s", "requests_per_s")

    def __init__(self) -> None:
        self._last: dict[str, GatewayReport] = {}
        self._lengths = LengthCounter()
        self._rates: list[tuple[float, float]] = []
        self._seen_s: float | None = None
        self.requests_per_s = 0.0

    def observe(self, observation: PoolObservation, now: float) -> None:
        """Take what came since the last observation."""
        arrived = 0.0
        for report in observation.gateways:
            last = self._last.get(report.gateway)
            if last is None or last.started_at_s != report.started_at_s:
                last = GatewayReport(report.gateway, report.started_at_s)
            arrived += max(report.requests - last.requests, 0.0)
            self._lengths.add_sketch(since(report.lengths, last.lengths))
            self._last[report.gateway] = report
        if self._seen_s is not None:
            self._rates.append((now, arrived))
        begin_s = now - WINDOW_S if self._seen_s is None else max(now - WINDOW_S, 0.0)
        self._rates = [(at, n) for at, n in self._rates if at > begin_s]
        self._seen_s = now if self._seen_s is None else self._seen_s
        covered_s = min(WINDOW_S, now - self._seen_s)
        if covered_s > 0.0:
            self.requests_per_s = sum(n for _, n in self._rates) / covered_s

    def lengths(self) -> LengthSketch:
        """Lengths of requests that have ended lately."""
        return self._lengths.sketch()
