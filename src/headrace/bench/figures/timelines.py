"""What went on over a run: percentiles by window, requests open, tokens per second.

Times are seconds from the run's start. A window holds the requests that were due in it, so that a
stall of the engine stands where it happened. Output tokens of a stream are spread evenly between
its first and its last one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from headrace.bench.figures.percentiles import percentile
from headrace.bench.record import Record

Point = tuple[float, float]
MOST_WINDOWS = 60
REQUESTS_OF_WINDOW = 20
"""So many on average, that a p95 means something; with fewer requests there are fewer windows."""
FEWEST_OF_WINDOW = 3
STEPS = 240
"""Of the plots of what was open, and of tokens per second."""
AT_ONCE = 1e-6
"""Of a step: a stream that is over so soon has no rate that rounding leaves right."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """p50 and p95 by window, at the window's middle."""

    p50: list[Point]
    p95: list[Point]


def by_window(values: Sequence[Point], span_s: float) -> Percentiles:
    """Of figures with the time that each belongs to."""
    count = max(min(MOST_WINDOWS, len(values) // REQUESTS_OF_WINDOW), 1)
    windows: list[list[float]] = [[] for _ in range(count)]
    for at_s, value in values:
        windows[min(int(at_s / span_s * count), count - 1) if at_s > 0 else 0].append(value)
    p50, p95 = list[Point](), list[Point]()
    for place, window in enumerate(windows):
        if len(window) >= FEWEST_OF_WINDOW:
            window.sort()
            middle_s = (place + 0.5) * span_s / count
            p50.append((middle_s, percentile(window, 0.5)))
            p95.append((middle_s, percentile(window, 0.95)))
    return Percentiles(p50, p95)


def longest_by_window(values: Iterable[Point], span_s: float) -> list[Point]:
    """The largest figure of each window."""
    longest: dict[int, float] = {}
    for at_s, value in values:
        place = min(int(max(at_s, 0.0) / span_s * MOST_WINDOWS), MOST_WINDOWS - 1)
        longest[place] = max(longest.get(place, value), value)
    return [((place + 0.5) * span_s / MOST_WINDOWS, longest[place]) for place in sorted(longest)]


def waiting(records: Iterable[Record], span_s: float) -> list[Point]:
    """How many requests were due and had no first token yet; those without end when they end."""
    return _open(
        records,
        span_s,
        lambda record: record.intended_s,
        lambda record: record.ended_s if record.first_token_s is None else record.first_token_s,
    )


def open_requests(records: Iterable[Record], span_s: float) -> list[Point]:
    """How many requests had been sent and not ended yet."""
    return _open(records, span_s, lambda record: record.sent_s, lambda record: record.ended_s)


def _open(
    records: Iterable[Record],
    span_s: float,
    begin_s: Callable[[Record], float],
    end_s: Callable[[Record], float],
) -> list[Point]:
    changes, step_s = array("q", bytes(8 * (STEPS + 2))), span_s / STEPS
    for record in records:
        begin, end = (
            min(max(ceil(at_s / step_s), 0), STEPS + 1) for at_s in (begin_s(record), end_s(record))
        )
        changes[begin] += 1
        changes[end] -= 1
    points, now = list[Point](), 0
    for place in range(STEPS + 1):
        now += changes[place]
        points.append((place * step_s, float(now)))
    return points


def output_tokens_per_s(records: Iterable[Record], span_s: float) -> list[Point]:
    """Tokens that came in each window, per second, at its middle."""
    step_s = span_s / STEPS
    steps, slopes = _Steps(step_s), array("d", bytes(8 * (STEPS + 2)))
    for record in records:
        if not record.output_tokens:
            continue
        first_s, last_s = record.first_token_s, record.last_token_s
        if first_s is None or last_s is None or last_s <= first_s:
            steps.add(record.ended_s if first_s is None else first_s, record.output_tokens)
            continue
        steps.add(first_s, 1)
        steps.ramp(first_s, last_s, record.output_tokens - 1, slopes)
    return steps.rates(slopes)


class _Steps:
    """The count of tokens at each of the grid's times, as changes of level and of slope.

    A ramp from a to b adds r·(t − a) between them and r·(b − a) behind.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._levels = array("d", bytes(8 * (STEPS + 2)))

    def add(self, at_s: float, tokens: float) -> None:
        self._levels[self._place(at_s)] += tokens

    def ramp(self, from_s: float, to_s: float, tokens: int, slopes: array[float]) -> None:
        begin, end = self._place(from_s), self._place(to_s)
        if begin == end or to_s - from_s < AT_ONCE * self._step_s:
            self._levels[end] += tokens
            return
        rate = tokens / (to_s - from_s)
        self._levels[begin] += rate * (begin * self._step_s - from_s)
        self._levels[end] += rate * (to_s - end * self._step_s)
        slopes[begin] += rate
        slopes[end] -= rate

    def rates(self, slopes: array[float]) -> list[Point]:
        points, slope = list[Point](), 0.0
        for place in range(1, STEPS + 1):
            slope += slopes[place - 1]
            came = slope * self._step_s + self._levels[place]
            if place == 1:
                came += self._levels[0]
            points.append(((place - 0.5) * self._step_s, max(came, 0.0) / self._step_s))
        return points

    def _place(self, at_s: float) -> int:
        """The first of the grid's times that is not before."""
        return min(max(ceil(at_s / self._step_s), 0), STEPS + 1)
