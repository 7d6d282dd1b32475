"""The curves of a sweep: latency against throughput, and goodput against the rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.bench.figures.percentiles import Distribution
from headrace.bench.figures.scores import Scores
from headrace.bench.sweep.step import INVALID, MET, NOT_MET, UNDECIDED, Step
from headrace.core.durations import in_words
from headrace.plotting import svg
from headrace.plotting.svg import Frame, Point, Scale

KINDS = {MET: "good", NOT_MET: "bad", UNDECIDED: "c4", INVALID: "muted"}
"""The class of the colour of each state."""
_SHORTEST_S = 1e-5


def on_the_line(steps: Sequence[Step]) -> list[Step]:
    """Those that a line goes through: long runs, and first looks where there are none.

    A first look near the answer ends before the queue is as long as it gets: beside a long run of
    nearly the same rate it would draw a line up and down that no engine has. An invalid run says
    nothing of the engine, and is a dot at most.
    """
    steps = [step for step in steps if step.state != INVALID]
    long = [step.rate_rps for step in steps if step.chance is not None]
    if not long:
        return steps
    overloaded = any(step.is_shown and step.state == NOT_MET for step in steps)
    return [
        step
        for step in steps
        if step.chance is not None
        or step.rate_rps < min(long)
        or (step.rate_rps > max(long) and step.state == NOT_MET and not overloaded)
    ]


def throughput_latency(
    steps: Sequence[Step],
    times: Callable[[Scores], Distribution],
    targets_s: Sequence[float],
    *,
    width: float = svg.WIDE,
) -> str:
    """p50, p95 and p99 of a time at the output tokens per second of each rate."""
    frame = _frame(width)
    shown = [step for step in steps if times(step.scores).count]
    most = max((step.scores.output_tokens_per_s for step in shown), default=1.0)
    ends = [each for step in shown for each in (times(step.scores).p50, times(step.scores).p99)]
    ends += [at_s for at_s in targets_s if at_s <= 30 * max(ends, default=1.0)]
    x = Scale(0.0, most * 1.05, frame.x_from, frame.x_to)
    y = svg.logarithmic(
        max(min(ends, default=0.001), _SHORTEST_S),
        max(max(ends, default=1.0), _SHORTEST_S),
        frame.y_from,
        frame.y_to,
    )
    parts = svg.x_axis(frame, x, "output tokens/s", svg.amount)
    parts += svg.y_axis(frame, y, svg.time)
    for at_s in targets_s:
        if y.low <= at_s <= y.high:
            level = y.place(at_s)
            parts.append(svg.line((frame.x_from, level), (frame.x_to, level), "target"))
    for name, kind in (("p50", "c0"), ("p95", "c1"), ("p99", "c3")):

        def place(step: Step, name: str = name) -> Point:
            return (
                x.place(step.scores.output_tokens_per_s),
                y.place(max(getattr(times(step.scores), name), _SHORTEST_S)),
            )

        # In order of rates: beyond saturation the curve may bend back.
        inner = [svg.curve([place(step) for step in on_the_line(shown)], "line")]
        inner += [_dot(place(step), step, times) for step in shown]
        parts.append(svg.group(inner, name=name, kind=f"series {kind}", tip=name))
    return svg.drawing(frame, "Latency against throughput", parts)


def _dot(at: Point, step: Step, times: Callable[[Scores], Distribution]) -> str:
    found = times(step.scores)
    tip = (
        f"{step.rate_rps:.4g} requests/s, {step.state}: "
        f"p50 {in_words(found.p50)}, p99 {in_words(found.p99)}"
    )
    return svg.tipped(svg.dot(at, 3.5, "dot"), tip)


def goodput_curve(
    steps: Sequence[Step], highest_met_rps: float | None, *, width: float = svg.WIDE
) -> str:
    """Goodput in requests/s against the rate; the dashes are where all requests are good.

    A rate is drawn where its run was: that of so many Poisson arrivals is not quite the one asked.
    """
    frame = _frame(width)
    offered = [step.summary.run.offered_rps or step.rate_rps for step in steps]
    most = max([*offered, highest_met_rps or 0.0], default=1.0)
    tallest = max((step.scores.goodput_rps for step in steps), default=1.0)
    x = Scale(0.0, most * 1.03, frame.x_from, frame.x_to)
    y = Scale(0.0, max(tallest * 1.15, 1e-9), frame.y_from, frame.y_to)
    parts = svg.x_axis(frame, x, "requests/s offered", svg.amount)
    parts += svg.y_axis(frame, y, svg.amount)
    top = min(most, y.high)
    ideal = svg.curve([(x.place(0), y.place(0)), (x.place(top), y.place(top))], "line")
    parts.append(svg.group([ideal], name="all good", kind="series reference", tip="all good"))
    parts += _answer(frame, x, highest_met_rps)
    points = [
        (x.place(rate), y.place(step.scores.goodput_rps))
        for rate, step in zip(offered, steps, strict=True)
    ]
    drawn = {step.rate_rps for step in on_the_line(steps)}
    at_line = [at for at, step in zip(points, steps, strict=True) if step.rate_rps in drawn]
    line = svg.curve(sorted(at_line), "line")
    parts.append(svg.group([line], name="goodput", kind="series c0", tip="goodput"))
    parts += [_state_dot(at, step) for at, step in zip(points, steps, strict=True)]
    return svg.drawing(frame, "Goodput against the rate", parts)


def share_curve(
    steps: Sequence[Step], highest_met_rps: float | None, share: float, *, width: float = svg.WIDE
) -> str:
    """The goodput share with its interval at each rate."""
    frame = _frame(width)
    most = max((step.rate_rps for step in steps), default=1.0)
    least = min((step.rate_rps for step in steps), default=0.1)
    x = svg.logarithmic(least, most, frame.x_from, frame.x_to)
    y = Scale(0.0, 1.0, frame.y_from, frame.y_to)
    parts = svg.x_axis(frame, x, "requests/s offered", svg.amount)
    parts += svg.y_axis(frame, y, lambda value: f"{value * 100:.0f} %")
    level = y.place(share)
    parts.append(svg.line((frame.x_from, level), (frame.x_to, level), "target"))
    parts += _answer(frame, x, highest_met_rps)
    for step in steps:
        at = x.place(step.rate_rps)
        interval = step.goodput_interval
        whisker = svg.whisker(at, y.place(interval.low), y.place(interval.high), "whisker")
        parts.append(
            svg.group([whisker], name=step.state, kind=f"series {KINDS[step.state]}", tip="")
        )
        parts.append(_state_dot((at, y.place(step.goodput_share)), step))
    return svg.drawing(frame, "Goodput share against the rate", parts)


def _frame(width: float) -> Frame:
    return svg.frame(width, 340, left=58, right=26, top=18, bottom=44)


def _answer(frame: Frame, x: Scale, highest_met_rps: float | None) -> list[str]:
    if highest_met_rps is None:
        return []
    at = x.place(highest_met_rps)
    parts = [svg.line((at, frame.y_from), (at, frame.y_to), "target")]
    right = at > (frame.x_from + frame.x_to) / 2
    where = (at - 6 if right else at + 6, frame.y_from - 8)
    anchor = "end" if right else "start"
    return [*parts, svg.text(where, f"{highest_met_rps:.4g}", "value", anchor=anchor)]


def _state_dot(at: Point, step: Step) -> str:
    tip = f"{step.rate_rps:.4g} requests/s: {step.state}; {step.reason}"
    dot = svg.dot(at, 5, "dot")
    return svg.group([dot], name=step.state, kind=f"series {KINDS[step.state]}", tip=tip)
