"""The plots of the report, each a figure of its own.

Bars and ranges show every policy. Lines of many policies cannot be told apart, so a few are drawn
in colour (`Cast`), the others in grey behind them; the page brings out whichever is pointed at.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

from headrace.plotting import svg
from headrace.plotting.svg import Frame, Point, Scale
from headrace.simulator.results import Distribution, Results, Scores, percentile
from headrace.simulator.runs import POOLED_REFERENCE, PolicyRun

COLOURS = 5
"""Policies in colour; more could not be told apart."""
MUTED = "muted"
REFERENCE = "reference"
WINDOWS = 48
"""Of the trace, in the plot over time, where there are requests enough for so many."""
FEWEST_IN_WINDOW = 5
"""Requests of which a p90 is taken."""
USUAL_IN_WINDOW = 10
"""With fewer on average, windows are fewer and longer."""
LEAST_SHARE = 0.05
"""The shortest axis of shares, so that its ticks can be told apart."""
CURVE_POINTS = 160
SHORTEST_S = 1e-3
"""Shorter times are drawn as this long: a logarithmic axis has no zero."""
DOTS = (3.5, 4.5, 5.5)
"""Radii of the dots of p50, p90 and p99."""
LONGEST_NAME = 36
"""Characters of a policy with its parameters beside its row; the whole name shows on hover."""
CHARACTER = 7.9
"""Width of one, more than that of most."""
ROW, BAR = 24.0, 16.0
"""Heights of a policy's row in bars and ranges, and of its bar."""
NAME_ROW = 17.0
"""What a row is taller by where the name stands above it."""


class Cast:
    """Which policy has which colour: `seconds` and the best others by goodput."""

    def __init__(self, runs: Sequence[PolicyRun], lead: str = "seconds") -> None:
        ranked = ranked_runs(runs)
        names = [run.policy for run in ranked if run.policy != POOLED_REFERENCE]
        names.sort(key=lambda name: name != lead)
        self._kinds = {name: f"c{place}" for place, name in enumerate(names[:COLOURS])}
        self._kinds[POOLED_REFERENCE] = REFERENCE

    def kind(self, policy: str) -> str:
        """The class that gives a policy its colour."""
        return self._kinds.get(policy, MUTED)

    def drawn(self, runs: Sequence[PolicyRun]) -> list[PolicyRun]:
        """Runs in the order to draw their lines: grey ones first, below the others."""
        return sorted(runs, key=lambda run: self.kind(run.policy) != MUTED)


def ranked_runs(runs: Sequence[PolicyRun]) -> list[PolicyRun]:
    """The best goodput first, then the shortest mean TTFT; the reference, no rival, last."""
    return sorted(
        runs,
        key=lambda run: (
            run.policy == POOLED_REFERENCE,
            -run.scores.goodput_share,
            run.scores.ttft_s.mean,
            run.policy,
        ),
    )


def share_bars(
    runs: Sequence[PolicyRun],
    cast: Cast,
    title: str,
    value: Callable[[Scores], float],
    *,
    width: float = svg.WIDE,
) -> str:
    """A bar per policy of a share from 0 to 1, the longest first."""
    ranked = sorted(runs, key=lambda run: -value(run.scores))
    rows = _Rows.of([run.policy for run in ranked], width, right=52.0)
    frame = rows.frame
    most = max((value(run.scores) for run in ranked), default=0.0)
    # Shares near one another are told apart by their figures, never by an axis that is cut off.
    scale = Scale(0.0, max(_ceiling(most), LEAST_SHARE), frame.x_from, frame.x_to)
    parts = svg.x_axis(frame, scale, "", _percent)
    for place, run in enumerate(ranked):
        y, share = rows.middle(place), value(run.scores)
        long = scale.place(share) - frame.x_from
        inner = [
            rows.name(place, run.policy),
            svg.bar((frame.x_from, y - BAR / 2), (max(long, 1.0), BAR), "bar"),
            svg.text((frame.x_from + long + 6, y + 4), f"{share * 100:.1f}", "value"),
        ]
        tip = f"{run.policy}: {share * 100:.2f} %"
        parts.append(_group(inner, run.policy, cast, tip))
    return svg.drawing(frame, title, parts)


def ttft_cdf(
    runs: Sequence[PolicyRun], cast: Cast, slo_s: float, *, width: float = svg.WIDE
) -> str:
    """The share of requests that had their first token by then."""
    columns = [(run, sorted(run.results.judged_ttft_s())) for run in cast.drawn(runs)]
    frame = svg.frame(width, 360, left=44, right=26, top=14, bottom=44)
    values = [max(each, SHORTEST_S) for _, ranked in columns for each in _ends(ranked)]
    values.append(slo_s)  # or the target would be drawn at the edge
    x = svg.logarithmic(min(values), max(values), frame.x_from, frame.x_to)
    y = Scale(0.0, 1.0, frame.y_from, frame.y_to)
    parts = svg.x_axis(frame, x, "seconds to the first token", _seconds)
    parts += svg.y_axis(frame, y, _percent)
    parts += _target(frame, x, slo_s)
    for run, ranked in columns:
        if not ranked:
            continue
        shares = [number / (CURVE_POINTS - 1) for number in range(CURVE_POINTS)]
        points = [
            (x.place(max(percentile(ranked, share), SHORTEST_S)), y.place(share))
            for share in shares
        ]
        tip = f"{run.policy}: p50 {run.scores.ttft_s.p50:.3f} s, p99 {run.scores.ttft_s.p99:.3f} s"
        parts.append(_group([svg.curve(points, "line")], run.policy, cast, tip))
    return svg.drawing(frame, "Distribution of TTFT", parts)


def ttft_over_time(
    runs: Sequence[PolicyRun], cast: Cast, slo_s: float, *, width: float = svg.WIDE
) -> str:
    """The p90 of those that arrived in each window."""
    frame = svg.frame(width, 360, left=52, right=16, top=14, bottom=44)
    span_s = max((max(run.results.arrival_s, default=0.0) for run in runs), default=0.0) or 1.0
    columns = [(run, p90_by_window(run.results, span_s)) for run in cast.drawn(runs)]
    values = [max(value, SHORTEST_S) for _, points in columns for _, value in points]
    values.append(slo_s)
    x = Scale(0.0, span_s / 60, frame.x_from, frame.x_to)
    y = svg.logarithmic(min(values), max(values), frame.y_from, frame.y_to)
    parts = svg.x_axis(frame, x, "minutes of the run", _plain)
    parts += svg.y_axis(frame, y, _seconds)
    level = y.place(slo_s)
    parts.append(svg.line((frame.x_from, level), (frame.x_to, level), "target"))
    for run, points in columns:
        placed: list[Point] = [
            (x.place(at_s / 60), y.place(max(value, SHORTEST_S))) for at_s, value in points
        ]
        tip = f"{run.policy}: mean TTFT {run.scores.ttft_s.mean:.3f} s"
        parts.append(_group([svg.curve(placed, "line")], run.policy, cast, tip))
    return svg.drawing(frame, "p90 of TTFT over time", parts)


def ranges(
    runs: Sequence[PolicyRun],
    cast: Cast,
    value: Callable[[Scores], Distribution],
    slo_s: float,
    unit: str,
    *,
    width: float = svg.WIDE,
) -> str:
    """p50, p90 and p99 of times, a row per policy; `unit` is "s" or "ms"."""
    factor = 1e3 if unit == "ms" else 1.0
    found = [(run, [each * factor for each in _percentiles(value(run.scores))]) for run in runs]
    found.sort(key=lambda row: (row[1][-1], row[0].policy))
    rows = _Rows.of([run.policy for run, _ in found], width, right=24.0, bottom=44.0)
    frame = rows.frame
    ends = [max(end, SHORTEST_S * factor) for _, times in found for end in (times[0], times[-1])]
    ends.append(slo_s * factor)
    x = svg.logarithmic(min(ends), max(ends), frame.x_from, frame.x_to)
    said = "seconds" if unit == "s" else "milliseconds"
    parts = svg.x_axis(frame, x, f"{said}: p50, p90, p99", _plain)
    parts += _target(frame, x, slo_s * factor)
    for place, (run, times) in enumerate(found):
        y = rows.middle(place)
        dots = [(x.place(max(each, x.low)), y) for each in times]
        inner = [
            rows.name(place, run.policy),
            svg.line(dots[0], dots[-1], "range"),
            *(svg.dot(at, radius, "dot") for at, radius in zip(dots, DOTS, strict=True)),
        ]
        p50, p90, p99 = times
        tip = f"{run.policy}: p50 {p50:.3g}, p90 {p90:.3g}, p99 {p99:.3g} {unit}"
        parts.append(_group(inner, run.policy, cast, tip))
    return svg.drawing(frame, f"Percentiles in {said}", parts)


def p90_by_window(results: Results, span_s: float) -> list[Point]:
    """The middle of each window in seconds, and the p90 of TTFT of what arrived in it."""
    count = min(max(len(results.arrival_s) // USUAL_IN_WINDOW, 1), WINDOWS)
    windows: list[list[float]] = [[] for _ in range(count)]
    judged: array[float] = results.judged_ttft_s()
    for arrival_s, ttft_s in zip(results.arrival_s, judged, strict=True):
        if not isnan(ttft_s):
            windows[min(int(arrival_s / span_s * count), count - 1)].append(ttft_s)
    return [
        ((place + 0.5) * span_s / count, percentile(sorted(values), 0.9))
        for place, values in enumerate(windows)
        if len(values) >= FEWEST_IN_WINDOW
    ]


@dataclass(frozen=True, slots=True)
class _Rows:
    """A row for each policy: its name to the left of what is drawn or, on a phone, above it."""

    frame: Frame
    height: float

    @classmethod
    def of(
        cls, policies: Sequence[str], width: float, *, right: float, bottom: float = 24.0
    ) -> _Rows:
        longest = max((len(_shown(policy)) for policy in policies), default=0)
        above = width <= svg.PHONE
        left, each = (8.0, ROW + NAME_ROW) if above else (longest * CHARACTER + 14, ROW)
        height = len(policies) * each + 8 + bottom
        return cls(Frame(width, height, left=left, right=right, top=8, bottom=bottom), each)

    def middle(self, place: int) -> float:
        """The y of the middle of what is drawn in a row."""
        return self.frame.y_to + (place + 1) * self.height - ROW / 2

    def name(self, place: int, policy: str) -> str:
        y = self.middle(place)
        if self.height > ROW:
            return svg.text((self.frame.x_from, y - ROW / 2 - 2), _shown(policy), "name")
        return svg.text((self.frame.x_from - 10, y + 4), _shown(policy), "name", anchor="end")


def _shown(policy: str) -> str:
    return policy if len(policy) <= LONGEST_NAME else f"{policy[: LONGEST_NAME - 1]}…"


def _target(frame: Frame, x: Scale, at: float) -> list[str]:
    place = x.place(at)
    return [svg.line((place, frame.y_from), (place, frame.y_to), "target")]


def _group(parts: list[str], policy: str, cast: Cast, tip: str) -> str:
    return svg.group(parts, name=policy, kind=f"series {cast.kind(policy)}", tip=tip)


def _percentiles(times: Distribution) -> tuple[float, float, float]:
    return times.p50, times.p90, times.p99


def _ends(ranked: list[float]) -> tuple[float, ...]:
    """A low percentile and the largest: a few instant answers must not take half of the axis."""
    return (percentile(ranked, 0.01), ranked[-1]) if ranked else ()


def _ceiling(share: float) -> float:
    """The top of an axis of shares: a multiple of 5 % that is not below."""
    return min(1.0, -(-share // 0.05) * 0.05)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _seconds(value: float) -> str:
    return f"{svg.amount(value)} s"


def _plain(value: float) -> str:
    return svg.amount(value)
