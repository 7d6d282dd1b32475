"""One point of several repetitions of an experiment: as it is when nothing disturbs it.

Whatever else a machine does only ever makes a token later, so the faster ones count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.core.latency import LatencyProfile
from headrace.engine_model.calibration_table import DecodePoint, PrefillPoint, QueuePoint

USUAL_QUANTILE = 0.25
"""Of three the fastest. Of many it is nearer to the usual than the fastest is."""
FASTEST = 0.0
HELD_UP_S, HELD_UP_TIMES = 0.5, 2.0
"""Later than the fastest by so much, and so many times as long: nobody's noise, but an engine or a
machine that stood still for a while, or that worked for somebody else."""


def undisturbed(
    points: Sequence[PrefillPoint], pace: LatencyProfile, quantile: float
) -> PrefillPoint:
    """The repetition at a quantile of what they are off, with its own tokens.

    They differ by a few tokens, which `pace` accounts for.
    """
    usual_s = [pace.prefill_s(each.uncached_tokens, each.cached_tokens) for each in points]
    place, off_s = _at(
        quantile, [point.ttft_s - usual for point, usual in zip(points, usual_s, strict=True)]
    )
    return replace(points[place], ttft_s=usual_s[place] + off_s, repeats=len(points))


def undisturbed_queue(
    points: Sequence[QueuePoint], pace: LatencyProfile, quantile: float
) -> QueuePoint:
    """The same of prompts in a queue, which differ in the steps that they waited, too."""
    usual_s = [pace.seconds(each.work) for each in points]
    place, off_s = _at(
        quantile, [point.ttft_s - usual for point, usual in zip(points, usual_s, strict=True)]
    )
    return replace(points[place], ttft_s=usual_s[place] + off_s, repeats=len(points))


def undisturbed_step(
    points: Sequence[DecodePoint], pace: LatencyProfile, quantile: float
) -> DecodePoint:
    """The same of streams."""
    usual_s = [pace.step_s(each.batch, each.context_tokens) for each in points]
    place, off_s = _at(
        quantile, [point.step_s - usual for point, usual in zip(points, usual_s, strict=True)]
    )
    return replace(points[place], step_s=usual_s[place] + off_s, repeats=len(points))


def held_up(times_s: Sequence[tuple[float, float]]) -> int:
    """How many repetitions took far longer than the fastest: more than noise adds.

    Each is what it took, and what it usually does: they are not of quite the same length.
    """
    least_s = min(took - usual for took, usual in times_s)
    return sum(
        took - usual - least_s > HELD_UP_S and took > HELD_UP_TIMES * (usual + least_s)
        for took, usual in times_s
    )


def _at(quantile: float, values: Sequence[float]) -> tuple[int, float]:
    """The quantile, in the mean the same of any number of values, and which of them is nearest."""
    ordered = sorted(values)
    rank = min(max(quantile * (len(values) + 1) - 1, 0.0), len(values) - 1.0)
    below = int(rank)
    above = min(below + 1, len(values) - 1)
    found = ordered[below] + (rank - below) * (ordered[above] - ordered[below])
    return min(range(len(values)), key=lambda i: abs(values[i] - found)), found
