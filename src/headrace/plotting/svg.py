"""Small pieces of SVG: scales, axes, lines, bars. Colours come from the page's style sheet.

Coordinates are those of the drawing's view box; text is escaped here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, inf, log10

Point = tuple[float, float]
WIDE, PHONE = 640.0, 340.0
"""Widths that a drawing is made for. Its units are about pixels on either screen: one drawing for
both would have letters of half their size on a phone.
"""
TICK_LETTER = 7.0
"""Width of a letter beside an axis, about."""
MOST_TICKS = 8
"""On a logarithmic scale; with more, only powers of ten have one."""

FEW_DOTS = 60
"""So few are drawn larger: each is to be seen by itself, and more would cover one another."""
SOME_DOTS = 400
"""So few are drawn a little larger."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing and the part of it that data is plotted in."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    @property
    def x_from(self) -> float:
        """The left edge of the plot."""
        return self.left

    @property
    def x_to(self) -> float:
        """Its right edge."""
        return self.width - self.right

    @property
    def y_from(self) -> float:
        """Its lower edge, where values begin."""
        return self.height - self.bottom

    @property
    def y_to(self) -> float:
        """Its upper edge."""
        return self.top


def frame(
    width: float, height: float, *, left: float, right: float, top: float, bottom: float
) -> Frame:
    """A drawing of this width; `height` is that of a `WIDE` one, a narrower one is less tall."""
    tall = height * (1.0 + width / WIDE) / 2
    return Frame(width, tall, left=left, right=right, top=top, bottom=bottom)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values between `low` and `high` to places between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies; beyond the ends it is held there."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = log10(low), log10(high), log10(at)
        share = (at - low) / (high - low) if high > low else 0.0
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values for grid lines, about five: tens in a long logarithmic scale."""
        if self.logarithmic:
            rounds = _rounds(self.low, self.high)
            tens = [each for each in rounds if abs(log10(each) - round(log10(each))) < 1e-9]
            return tens if len(rounds) > MOST_TICKS else rounds
        step = _round_step((self.high - self.low) / 5)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """A scale between the next round values (1, 2 or 5 times a power of ten) around these."""
    around = _rounds(low / 10, high * 10)
    below = max(each for each in around if each <= low * (1 + 1e-9))
    above = min(each for each in around if each >= high * (1 - 1e-9) and each > below)
    return Scale(below, above, start, end, logarithmic=True)


def drawing(frame: Frame, title: str, parts: Iterable[str]) -> str:
    """The whole drawing; `title` is what a screen reader says of it."""
    return (
        f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def text(at: Point, content: str, kind: str, *, anchor: str = "start") -> str:
    """A line of text; its y is the base line."""
    x, y = at
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def line(start: Point, end: Point, kind: str) -> str:
    """A straight line."""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" '
        f'x2="{end[0]:.1f}" y2="{end[1]:.1f}" class="{kind}"/>'
    )


def curve(points: Sequence[Point], kind: str) -> str:
    """A line through these points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="{kind}"/>'


def bar(at: Point, size: Point, kind: str) -> str:
    """A bar that grows to the right, its end rounded."""
    (x, y), (width, height) = at, size
    round_ = min(3.0, width / 2, height / 2)
    return (
        f'<path class="{kind}" d="M{x:.1f},{y:.1f}h{width - round_:.1f}'
        f"q{round_:.1f},0 {round_:.1f},{round_:.1f}v{height - 2 * round_:.1f}"
        f'q0,{round_:.1f} {-round_:.1f},{round_:.1f}h{round_ - width:.1f}z"/>'
    )


def dot(at: Point, radius: float, kind: str) -> str:
    """A dot."""
    return f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}" class="{kind}"/>'


def dots(places: Sequence[Point], kind: str) -> str:
    """Small dots in one path, larger where they are few; how large is said by the style sheet."""
    path = "".join(f"M{x:.1f},{y:.1f}h0" for x, y in places)
    if len(places) <= SOME_DOTS:
        kind = f"few {kind}" if len(places) <= FEW_DOTS else f"some {kind}"
    return f'<path class="{kind}" d="{path}"/>' if path else ""


def ticks(places: Iterable[float], y: float, height: float, kind: str) -> str:
    """Short upright strokes at these x, from `y` upwards, in one path."""
    path = "".join(f"M{x:.1f},{y:.1f}v{-height:.1f}" for x in places)
    return f'<path class="{kind}" d="{path}"/>' if path else ""


def area(points: Sequence[Point], floor_y: float, kind: str) -> str:
    """What lies between a line through these points and a level below it."""
    if not points:
        return ""
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    start, end = points[0][0], points[-1][0]
    return f'<path class="{kind}" d="M{start:.1f},{floor_y:.1f}L{path}L{end:.1f},{floor_y:.1f}z"/>'


def whisker(x: float, from_y: float, to_y: float, kind: str) -> str:
    """An upright range with a short bar at either end."""
    bars = "".join(f"M{x - 3:.1f},{y:.1f}h6" for y in (from_y, to_y))
    return f'<path class="{kind}" d="M{x:.1f},{from_y:.1f}V{to_y:.1f}{bars}"/>'


def tipped(part: str, tip: str) -> str:
    """A part that shows words on hover."""
    return f"<g><title>{escape(tip)}</title>{part}</g>"


def group(parts: Iterable[str], *, name: str, kind: str, tip: str) -> str:
    """What belongs to one series: `name` ties it to its other figures, `tip` shows on hover."""
    return (
        f'<g class="{kind}" data-series="{escape(name)}"><title>{escape(tip)}</title>'
        f"{''.join(parts)}</g>"
    )


def x_axis(frame: Frame, scale: Scale, label: str, written: Callable[[float], str]) -> list[str]:
    """Vertical grid lines with their values, and what the axis is.

    A value that would touch the one before it is left out: its line says enough.
    """
    parts: list[str] = []
    free_from = -inf
    for tick in scale.ticks():
        x, said = scale.place(tick), written(tick)
        half = len(said) * TICK_LETTER / 2
        parts.append(line((x, frame.y_from), (x, frame.y_to), "grid"))
        if x - half >= free_from:
            parts.append(text((x, frame.y_from + 16), said, "tick", anchor="middle"))
            free_from = x + half + TICK_LETTER
    middle = (frame.x_from + frame.x_to) / 2
    parts.append(text((middle, frame.y_from + 34), label, "axis", anchor="middle"))
    return parts


def y_axis(frame: Frame, scale: Scale, written: Callable[[float], str]) -> list[str]:
    """Horizontal grid lines with their values."""
    parts: list[str] = []
    for tick in scale.ticks():
        y = scale.place(tick)
        parts.append(line((frame.x_from, y), (frame.x_to, y), "grid"))
        parts.append(text((frame.x_from - 6, y + 4), written(tick), "tick", anchor="end"))
    return parts


def amount(value: float) -> str:
    """A round number on an axis, in full: nobody reads 1.5e+04."""
    return f"{value:,.10g}"


def time(seconds: float) -> str:
    """A round time on an axis."""
    return f"{amount(seconds)} s" if seconds >= 1.0 else f"{seconds * 1e3:g} ms"


def _rounds(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from `low` to `high`."""
    powers = range(floor(log10(low)) - 1, ceil(log10(high)) + 2)
    every = [digit * 10.0**power for power in powers for digit in (1.0, 2.0, 5.0)]
    return [each for each in every if low * (1 - 1e-9) <= each <= high * (1 + 1e-9)]


def _round_step(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if step <= 0:
        return 1.0
    power = 10.0 ** floor(log10(step))
    return next((power * each for each in (1.0, 2.0, 5.0) if power * each >= step), power * 10.0)
