"""How much of what was measured is the generator's own delay, and whether that matters.

    own delay of a figure = the figure − the same with each request's own delay taken off
    own delay of a request = how late it left + how late its first token, or end, was read

A request that left late is late by so much at most: the engine did not have it before. What came
while the process stood still (stopped, starved of a processor) is read when it goes on. Such
standstills are seen by a timer that rings late; an engine that stands still delays no timer.

A run is invalid if so many requests were delayed that a percentile may be theirs (`max_late_share`)
and some percentile in the report is more than `late_after_s` above what it would be. One late
request among fifty is more than one in a hundred, and may change no figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from headrace.bench.figures.percentiles import percentile
from headrace.bench.record import Lag, Record

READ_WITHIN_S, READ_WITHIN_SHARE = 0.01, 0.05
"""After a standstill all that has come is read within this, or this share of it if that is more."""
JUDGED = (0.5, 0.9, 0.95, 0.99)
"""The percentiles that are reported. The longest is one request, and always told beside them."""


class Standstill(NamedTuple):
    """Of one process, in seconds since the run's start: at least so long."""

    worker: int
    from_s: float
    until_s: float


def lag_of(records: Sequence[Record], late_after_s: float, stops: Sequence[Standstill] = ()) -> Lag:
    """How late the generator was over a run."""
    longest_s = max((stop.until_s - stop.from_s for stop in stops), default=0.0)
    lags_s = sorted(record.lag_s for record in records)
    if not lags_s:
        return Lag(late_after_s=late_after_s, stopped_s=longest_s)
    late = sum(lag_s > late_after_s for lag_s in lags_s)
    return Lag(
        percentile(lags_s, 0.5),
        percentile(lags_s, 0.99),
        lags_s[-1],
        late / len(lags_s),
        late_after_s,
        longest_s,
    )


def own_delays_s(
    records: Sequence[Record], stops: Sequence[Standstill]
) -> tuple[list[float], list[float]]:
    """Of each request: of its first token (its end where none came), and of its end."""
    by_worker: dict[int, list[Standstill]] = {}
    for stop in sorted(stops):
        by_worker.setdefault(stop.worker, []).append(stop)
    firsts, lasts = list[float](), list[float]()
    for record in records:
        lag_s = max(record.lag_s, 0.0)
        its_stops = by_worker.get(record.worker, [])
        first_s = record.ended_s if record.first_token_s is None else record.first_token_s
        firsts.append(lag_s + _read_late_s(first_s, record.sent_s, its_stops))
        lasts.append(lag_s + _read_late_s(record.ended_s, record.sent_s, its_stops))
    return firsts, lasts


def doubt(
    records: Sequence[Record],
    lag: Lag,
    stops: Sequence[Standstill],
    max_late_share: float,
) -> str:
    """Why the generator's own delay makes the figures worthless, or nothing."""
    firsts, lasts = own_delays_s(records, stops)
    late = sum(max(pair) > lag.late_after_s for pair in zip(firsts, lasts, strict=True))
    if late <= max_late_share * len(records):
        return ""
    moved_s, name = _most_moved(records, firsts, lasts, lag.late_after_s)
    if not moved_s:
        return ""
    moved = f"; it is {moved_s * 1000:,.0f} ms of {name}" if moved_s < inf else ""
    if lag.late_share <= max_late_share:
        return (
            f"the generator stood still for {lag.stopped_s:.2f} s or more: what came for "
            f"{late / len(records) * 100:.1f} % of requests was read late{moved}"
        )
    return (
        f"the generator was late: {lag.late_share * 100:.1f} % of requests left more than "
        f"{lag.late_after_s * 1000:g} ms after their time (p99 {lag.p99_s * 1000:.1f} ms, "
        f"limit {max_late_share * 100:.0f} %){moved}"
    )


def _most_moved(
    records: Sequence[Record], firsts: Sequence[float], lasts: Sequence[float], least_s: float
) -> tuple[float, str]:
    """The figure that has most own delay beyond what is tolerated; 0 if none has.

    Infinite where nothing was measured that could show how little it is.
    """
    found, measured = (0.0, ""), False
    ttft = [
        (ttft_s, own_s)
        for record, own_s in zip(records, firsts, strict=True)
        if (ttft_s := record.ttft_s) is not None
    ]
    e2e = [
        (record.e2e_s, own_s)
        for record, own_s in zip(records, lasts, strict=True)
        if not record.error and not record.left and record.status == 200
    ]
    for name, pairs in (("TTFT", ttft), ("E2E", e2e)):
        told, true = sorted(time_s for time_s, _ in pairs), sorted(t - own for t, own in pairs)
        for place in JUDGED if pairs else ():
            measured = True
            moved_s = percentile(told, place) - percentile(true, place)
            if moved_s > max(least_s, found[0]):
                found = moved_s, f"{name} p{place * 100:g}"
    return found if measured else (inf, "")


def _read_late_s(at_s: float, sent_s: float, stops: Sequence[Standstill]) -> float:
    """How much earlier it may have come; `stops` in order of time.

    A loop that goes on may read before it sees to its timers, so what came is noted before the end
    of the standstill, or shortly after it.
    """
    place = bisect_left(stops, at_s, key=lambda stop: stop.until_s)
    for stop in stops[max(place - 1, 0) : place + 1]:
        length_s = stop.until_s - stop.from_s
        within_s = max(READ_WITHIN_S, READ_WITHIN_SHARE * length_s)
        if stop.from_s < at_s <= stop.until_s + within_s and sent_s < stop.until_s:
            return max(at_s - max(stop.from_s, sent_s), 0.0)
    return 0.0
