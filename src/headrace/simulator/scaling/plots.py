"""The plots of the scaling report: what each scaler did over time, and what it came to.

A panel has two drawings on one axis of time: replicas (demand, forecast, ready, ordered) and the
misses below. Weeks have more points than a screen: of each column of pixels the highest demand, the
least that was ready and all misses are shown, so that no gap is hidden.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TypeAlias

from headrace.plotting import svg
from headrace.plotting.svg import Frame, Point, Scale
from headrace.simulator.scaling.scalers import ORACLE, OWN
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores, Timeline

PANEL_HEIGHT, MISS_HEIGHT = 300.0, 46.0
LEAST_RATE = 1e-4
"""Where the logarithmic axis of misses begins: a request in ten thousand."""
DAY_S, HOUR_S = 86_400.0, 3600.0
LEAST_SHOWN = 0.3
"""Attainment from which a run has a say in the axis of the scatter; others stand at its edge."""
LETTER_WIDTH, NAME_HEIGHT = 8.5, 15.0
"""Room of a name in the scatter: what would overlap is moved apart."""
LABEL_STEPS = 16
"""Lines up and down within which a name looks for a place."""
NAMED_DOT = 6.0

Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge."""


@dataclass(frozen=True, slots=True)
class Binned:
    """A timeline in columns; each field has one value per column, nan where there is none."""

    at_s: array[float]
    demand: array[float]
    forecast: array[float]
    ready: array[float]
    ordered: array[float]
    missed: array[float]


def binned(timeline: Timeline, columns: int) -> Binned:
    """A timeline in columns: highest demand, forecast and orders, least ready, misses summed."""
    count = len(timeline.at_s)
    columns = min(columns, count)
    fields: list[array[float]] = [array("d") for _ in range(6)]
    for column in range(columns):
        low, high = column * count // columns, (column + 1) * count // columns
        known = [value for value in timeline.forecast[low:high] if not isnan(value)]
        values = (
            timeline.at_s[low],
            max(timeline.demand[low:high]),
            max(known) if known else nan,
            min(timeline.ready[low:high]),
            max(timeline.ordered[low:high]),
            sum(timeline.missed[low:high]),
        )
        for field, value in zip(fields, values, strict=True):
            field.append(value)
    return Binned(*fields)


def replicas_axis(runs: Sequence[ScalingRun]) -> float:
    """The top of all panels: the highest demand with room above, so that panels compare."""
    demand = max((max(run.timeline.demand, default=1.0) for run in runs), default=1.0)
    return max(demand * 1.5, 4.0)


def panel(run: ScalingRun, top: float, end_s: float, *, width: float = svg.WIDE) -> str:
    """One scaler over time."""
    scaler = run.scores.scaler
    below = svg.frame(width, PANEL_HEIGHT, left=56, right=14, top=10, bottom=44)
    frame = replace(below, bottom=below.bottom + MISS_HEIGHT + 12)
    columns = binned(run.timeline, int(frame.x_to - frame.x_from))
    unit_s, label = (DAY_S, "days") if end_s > 3 * DAY_S else (HOUR_S, "hours")
    if end_s < 3 * HOUR_S:
        unit_s, label = 60.0, "minutes"
    x = Scale(0.0, end_s / unit_s, frame.x_from, frame.x_to)
    y = Scale(0.0, top, frame.y_from, frame.y_to)
    parts = svg.y_axis(frame, y, _plain)
    times = [x.place(at_s / unit_s) for at_s in columns.at_s]
    parts.append(_area(times, [y.place(each) for each in columns.ready], frame.y_from))
    parts.append(svg.curve(_steps(times, columns.ordered, y), "ordered"))
    parts.append(svg.curve(_steps(times, columns.ready, y), "ready"))
    parts += [svg.curve(points, "forecast") for points in _pieces(times, columns.forecast, y)]
    parts.append(svg.curve(_points(times, columns.demand, y), "demand"))
    parts += _misses(frame, times, columns)
    parts += svg.x_axis(below, x, label, _plain)
    return svg.drawing(below, f"{scaler} over time", parts)


def scatter(runs: Sequence[ScalingScores], goal: float, *, width: float = svg.WIDE) -> str:
    """Attainment against replica-hours; up and left is better."""
    frame = svg.frame(width, 380, left=64, right=24, top=16, bottom=46)
    # Who serves next to nothing costs next to nothing; the axis is for the others.
    hours = [run.replica_hours for run in runs if run.attainment >= LEAST_SHOWN] or [1.0]
    x = svg.logarithmic(min(hours), max(*hours, min(hours) * 1.01), frame.x_from, frame.x_to)
    worst = max(1.0 - min(run.attainment for run in runs), 0.02)
    y = svg.logarithmic(LEAST_RATE, min(worst, 1.0), frame.y_to, frame.y_from)
    parts = svg.x_axis(frame, x, "replica-hours, fewer is cheaper", _held_at_ends(x, runs))
    parts += svg.y_axis(
        frame, y, lambda missed: f"{'≤ ' if missed <= LEAST_RATE else ''}{missed * 100:g} %"
    )
    level = y.place(1.0 - goal)
    parts.append(svg.line((frame.x_from, level), (frame.x_to, level), "target"))
    ordered = sorted(runs, key=lambda each: ":" not in each.scaler)
    places = [
        (x.place(run.replica_hours), y.place(max(1.0 - run.attainment, LEAST_RATE)))
        for run in ordered
    ]
    taken = [_around(at, NAMED_DOT) for at, run in zip(places, ordered, strict=True) if _named(run)]
    for at, run in zip(places, ordered, strict=True):
        name = run.scaler.partition(":")[0]
        inner = [svg.dot(at, NAMED_DOT if _named(run) else 3.0, "dot")]
        if _named(run):
            inner = [*_label(frame, at, name, taken), *inner]
        share = f"{run.attainment * 100:.2f} %"
        tip = f"{run.scaler}: {share} at {run.replica_hours:,.1f} replica-hours"
        parts.append(svg.group(inner, name=name, kind=f"policy {kind_of(name)}", tip=tip))
    return svg.drawing(frame, "Misses against replica-hours", parts)


def _named(run: ScalingScores) -> bool:
    """Whether its name stands beside it; other parameters of a rule are a small dot alone."""
    return ":" not in run.scaler


def _around(at: Point, radius: float) -> Box:
    return (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)


def _label(frame: Frame, at: Point, name: str, taken: list[Box]) -> list[str]:
    """The name beside its dot, or as near as neither dot nor name is: then a line leads there."""
    width = len(name) * LETTER_WIDTH
    for step in range(LABEL_STEPS):
        for down in (step, -step) if step else (0,):
            y = at[1] + down * NAME_HEIGHT
            for anchor, x in (("start", at[0] + 10.0), ("end", at[0] - 10.0)):
                left = x if anchor == "start" else x - width
                box = (left, y - NAME_HEIGHT / 2, left + width, y + NAME_HEIGHT / 2)
                if not _is_free(frame, box, taken):
                    continue
                taken.append(box)
                end = (x - 3.0 if anchor == "start" else x + 3.0, y)
                leader = [svg.line(at, end, "leader")] if step else []
                return [*leader, svg.text((x, y + 4.0), name, "name", anchor=anchor)]
    return []  # its tip and the table have the name


def _is_free(frame: Frame, box: Box, taken: Sequence[Box]) -> bool:
    left, upper, right, lower = box
    within = left >= frame.x_from and right <= frame.width and upper >= 0 and lower <= frame.y_from
    return within and not any(
        left < other[2] and other[0] < right and upper < other[3] and other[1] < lower
        for other in taken
    )


def kind_of(scaler: str) -> str:
    """The class that gives a scaler its colour."""
    name = scaler.partition(":")[0]
    if name == OWN:
        return "c0"
    return "reference" if name == ORACLE else "baseline"


def _misses(frame: Frame, times: Sequence[float], columns: Binned) -> list[str]:
    """Bars below the panel, the tallest where most missed."""
    top = frame.y_from + 10
    base = top + MISS_HEIGHT
    most = max(max(columns.missed, default=0.0), 1.0)
    said = _short(most) if any(columns.missed) else "none"
    wide = max((frame.x_to - frame.x_from) / max(len(times), 1), 0.8)
    parts = [
        svg.line((frame.x_from, base), (frame.x_to, base), "grid"),
        svg.text((frame.x_from - 6, top + 18), said, "tick", anchor="end"),
        svg.text((frame.x_from - 6, base), "missed", "tick", anchor="end"),
    ]
    bars = [
        f"M{x:.1f},{base:.1f}v{-missed / most * MISS_HEIGHT:.1f}"
        for x, missed in zip(times, columns.missed, strict=True)
        if missed / most * MISS_HEIGHT > 0.3
    ]
    if bars:
        path = "".join(bars)
        parts.append(f'<path d="{path}" class="missed" stroke-width="{max(wide, 1.2):.2f}"/>')
    return parts


def _area(times: Sequence[float], places: Sequence[float], base: float) -> str:
    """From the base up to a stepped line."""
    if not times:
        return ""
    path = [f"M{times[0]:.1f},{base:.1f}", f"V{places[0]:.1f}"]
    for time, place in zip(times[1:], places[1:], strict=True):
        path.append(f"H{time:.1f}V{place:.1f}")
    path.append(f"V{base:.1f}Z")
    return f'<path d="{"".join(path)}" class="capacity"/>'


def _steps(times: Sequence[float], values: Sequence[float], y: Scale) -> list[Point]:
    """A line that keeps its value until the next one."""
    points: list[Point] = []
    for time, value in zip(times, values, strict=True):
        place = y.place(value)
        if points:
            points.append((time, points[-1][1]))
        points.append((time, place))
    return points


def _points(times: Sequence[float], values: Sequence[float], y: Scale) -> list[Point]:
    return [(time, y.place(value)) for time, value in zip(times, values, strict=True)]


def _pieces(times: Sequence[float], values: Sequence[float], y: Scale) -> list[list[Point]]:
    """Lines where values are known."""
    pieces: list[list[Point]] = [[]]
    for time, value in zip(times, values, strict=True):
        if isnan(value):
            pieces.append([])
        else:
            pieces[-1].append((time, y.place(value)))
    return [piece for piece in pieces if len(piece) > 1]


def _held_at_ends(x: Scale, runs: Sequence[ScalingScores]) -> Callable[[float], str]:
    """Values of the axis; an end at which a run from beyond it stands says so."""
    hours = [run.replica_hours for run in runs]

    def written(tick: float) -> str:
        beyond = "≤ " if min(hours) < tick <= x.low else "≥ " if max(hours) > tick >= x.high else ""
        return beyond + _plain(tick)

    return written


def _plain(value: float) -> str:
    return f"{value:,.6g}"


def _short(value: float) -> str:
    steps: tuple[tuple[float, str], ...] = ((1e6, "M"), (1e3, "k"))
    for size, letter in steps:
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"
