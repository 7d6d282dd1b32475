"""The plots of one run, each a drawing of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headrace.bench.figures import timelines
from headrace.bench.figures.percentiles import percentile
from headrace.bench.record import Record
from headrace.core.durations import in_words
from headrace.plotting import svg
from headrace.plotting.svg import Frame, Point, Scale

SHORTEST_S = 1e-5
"""Shorter times are drawn as this long: a logarithmic axis has no zero."""
MOST_DOTS = 1500
"""Of a plot; of more requests every n-th has one."""
MOST_FAILED = 400
CURVE_POINTS = 160
BINS = 16
"""Of prompt lengths, for the line through their middle."""
FEWEST_OF_BIN = 5
MINUTES_FROM_S = 300.0
"""Longer runs have an axis in minutes."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Line:
    """One of several lines: its name, the class of its colour, its values."""

    name: str
    kind: str
    values: Sequence[float]


def over_time(
    records: Sequence[Record],
    span_s: float,
    value: Callable[[Record], float | None],
    targets_s: Sequence[float],
    title: str,
    *,
    width: float = svg.WIDE,
) -> str:
    """Each request's figure when it was due, with p50 and p95; failed ones along the top."""
    found = [(record.intended_s, at) for record in records if (at := value(record)) is not None]
    frame = _frame(width)
    x, y = _time_scale(span_s, frame), _log_scale([at for _, at in found], targets_s, frame)
    parts = _axes(frame, x, y, span_s)
    parts += _levels(frame, y, targets_s)
    place = _placed(x, y, span_s)
    dots = svg.dots([place(each) for each in _sampled(found, MOST_DOTS)], "dots")
    parts.append(svg.group([dots], name="each request", kind="series c0", tip="each request"))
    ranked = timelines.by_window(found, span_s)
    for name, kind, windows in (("p50", "c0", ranked.p50), ("p95", "c1", ranked.p95)):
        points = windows
        if len(windows) == 1:  # it has all there is: as long as that lasted
            points = [(at_s, windows[0][1]) for at_s in (found[0][0], found[-1][0])]
        line = svg.curve([place(each) for each in points], "line")
        parts.append(svg.group([line], name=name, kind=f"series {kind}", tip=name))
    failed = [
        record.intended_s for record in records if not record.ok and not record.was_interrupted
    ]
    if failed:
        unit = _unit(span_s)
        marks = [x.place(at_s / unit) for at_s in _sampled(failed, MOST_FAILED)]
        strokes = svg.ticks(marks, frame.y_to - 4, 10, "failed")
        tip = f"{len(failed):,} failed"
        parts.append(svg.group([strokes], name="failed", kind="series bad", tip=tip))
    return svg.drawing(frame, title, parts)


def cdf(
    lines: Sequence[Line],
    targets_s: Sequence[float],
    label: str,
    title: str,
    *,
    width: float = svg.WIDE,
) -> str:
    """The share of values up to each time; values must be ranked."""
    drawn = [line for line in lines if line.values]
    ends = [end for line in drawn for end in (percentile(line.values, 0.005), line.values[-1])]
    frame = _frame(width)
    x = _log_scale(ends, targets_s, frame, along_x=True)
    y = Scale(0.0, 1.0, frame.y_from, frame.y_to)
    parts = svg.x_axis(frame, x, label, svg.time) + svg.y_axis(frame, y, _percent)
    for at_s in targets_s:
        if not x.low <= at_s <= x.high:
            continue  # at the edge it would pass for another target
        place = x.place(at_s)
        parts.append(svg.line((place, frame.y_from), (place, frame.y_to), "target"))
    shares = [number / (CURVE_POINTS - 1) for number in range(CURVE_POINTS)]
    for line in drawn:
        points = [
            (x.place(max(percentile(line.values, share), SHORTEST_S)), y.place(share))
            for share in shares
        ]
        tip = f"{line.name}: p50 {in_words(percentile(line.values, 0.5))}"
        tip += f", p99 {in_words(percentile(line.values, 0.99))}"
        curve = svg.curve(points, "line")
        parts.append(svg.group([curve], name=line.name, kind=f"series {line.kind}", tip=tip))
    return svg.drawing(frame, title, parts)


def against_prompt(
    records: Sequence[Record],
    kinds: Mapping[str, str],
    targets_s: Sequence[float],
    *,
    width: float = svg.WIDE,
) -> str:
    """TTFT by the prompt's tokens, with the middle of each length; `kinds` colour the classes."""
    found = [
        (float(max(record.input_tokens, 1)), ttft_s, record.length_class)
        for record in records
        if (ttft_s := record.ttft_s) is not None
    ]
    frame = _frame(width)
    lengths = [length for length, _, _ in found]
    x = svg.logarithmic(
        min(lengths, default=1.0), max(lengths, default=10.0), frame.x_from, frame.x_to
    )
    y = _log_scale([ttft_s for _, ttft_s, _ in found], targets_s, frame)
    parts = svg.x_axis(frame, x, "input tokens", lambda tokens: f"{tokens:,.0f}")
    parts += svg.y_axis(frame, y, svg.time)
    parts += _levels(frame, y, targets_s)
    sampled = _sampled(found, MOST_DOTS)
    for name, kind in kinds.items():
        places = [
            (x.place(length), y.place(max(ttft_s, SHORTEST_S)))
            for length, ttft_s, of in sampled
            if of == name
        ]
        shown = name or "each request"
        dots = svg.dots(places, "dots")
        parts.append(svg.group([dots], name=shown, kind=f"series {kind}", tip=shown))
    middles = [
        (x.place(length), y.place(max(ttft_s, SHORTEST_S)))
        for length, ttft_s in middle_by_length([(length, ttft) for length, ttft, _ in found])
    ]
    line = svg.curve(middles, "line")
    parts.append(svg.group([line], name="p50", kind="series reference", tip="p50"))
    return svg.drawing(frame, "TTFT against prompt length", parts)


def middle_by_length(values: Sequence[Point]) -> list[Point]:
    """The median TTFT by prompt length: bins of about as many requests, at their median length.

    Requests of one length are never in two bins.
    """
    ranked = sorted(values)
    size = max(len(ranked) // BINS, FEWEST_OF_BIN)
    middles, begin = list[Point](), 0
    for end in range(1, len(ranked) + 1):
        last = end == len(ranked)
        if last or (end - begin >= size and ranked[end][0] != ranked[end - 1][0]):
            part = ranked[begin:end]
            length = percentile([each[0] for each in part], 0.5)
            middles.append((length, percentile(sorted(each[1] for each in part), 0.5)))
            begin = end
    return middles


def amounts_over_time(
    lines: Sequence[tuple[str, str, Sequence[Point]]],
    span_s: float,
    title: str,
    *,
    width: float = svg.WIDE,
) -> str:
    """Counts or rates over the run; a line is its name, its colour's class, its points."""
    frame = _frame(width)
    most = max((value for _, _, points in lines for _, value in points), default=0.0)
    x, y = _time_scale(span_s, frame), Scale(0.0, (most * 1.05) or 1.0, frame.y_from, frame.y_to)
    parts = _axes(frame, x, y, span_s, written=svg.amount)
    unit = _unit(span_s)
    for name, kind, points in lines:
        placed = [(x.place(at_s / unit), y.place(value)) for at_s, value in points]
        inner = [svg.area(placed, frame.y_from, "area"), svg.curve(placed, "line")]
        parts.append(svg.group(inner, name=name, kind=f"series {kind}", tip=name))
    return svg.drawing(frame, title, parts)


def lag_over_time(
    points: Sequence[Point], span_s: float, limit_s: float, *, width: float = svg.WIDE
) -> str:
    """The longest lag of each window."""
    limits = [limit_s] if limit_s > 0.0 else []
    frame = _frame(width)
    x, y = _time_scale(span_s, frame), _log_scale([lag_s for _, lag_s in points], limits, frame)
    parts = _axes(frame, x, y, span_s) + _levels(frame, y, limits)
    place = _placed(x, y, span_s)
    line = svg.curve([place(each) for each in points], "line")
    parts.append(svg.group([line], name="longest lag", kind="series c0", tip="longest lag"))
    return svg.drawing(frame, "The generator's own lag over time", parts)


def _frame(width: float) -> Frame:
    return svg.frame(width, 320, left=58, right=26, top=18, bottom=44)


def _time_scale(span_s: float, frame: Frame) -> Scale:
    return Scale(0.0, span_s / _unit(span_s), frame.x_from, frame.x_to)


def _unit(span_s: float) -> float:
    return 60.0 if span_s >= MINUTES_FROM_S else 1.0


def _axes(
    frame: Frame, x: Scale, y: Scale, span_s: float, written: Callable[[float], str] | None = None
) -> list[str]:
    said = "minutes" if _unit(span_s) > 1.0 else "seconds"
    parts = svg.x_axis(frame, x, f"{said} of the run", svg.amount)
    return parts + svg.y_axis(frame, y, written or svg.time)


def _log_scale(
    values: Sequence[float], targets_s: Sequence[float], frame: Frame, *, along_x: bool = False
) -> Scale:
    """Holds all values, and the targets where they are not far away from them."""
    low = max(min(values, default=0.001), SHORTEST_S)
    high = max(max(values, default=1.0), low)
    near = [at_s for at_s in targets_s if at_s <= high * 30]
    low, high = min([low, *near]), max([high, *near])
    if along_x:
        return svg.logarithmic(low, high, frame.x_from, frame.x_to)
    return svg.logarithmic(low, high, frame.y_from, frame.y_to)


def _levels(frame: Frame, y: Scale, targets_s: Sequence[float]) -> list[str]:
    return [
        svg.line((frame.x_from, y.place(at_s)), (frame.x_to, y.place(at_s)), "target")
        for at_s in targets_s
        if y.low <= at_s <= y.high
    ]


def _placed(x: Scale, y: Scale, span_s: float) -> Callable[[Point], Point]:
    unit = _unit(span_s)
    return lambda each: (x.place(each[0] / unit), y.place(max(each[1], SHORTEST_S)))


def _sampled(values: Sequence[_T], most: int) -> Sequence[_T]:
    return values[:: -(-len(values) // most)] if len(values) > most else values


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
