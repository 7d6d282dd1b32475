"""How far a share that was measured may be from the true one.

    Wilson interval = (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)

Wilson (1927), for n requests that are drawn alone. Those of one run wait in the same queue and are
late together, so that n of them tell as much as fewer would. How many fewer is measured with
*batch means* (Schmeiser 1982; Law, Simulation Modeling and Analysis, ch. 9): runs are cut into
consecutive parts, some 20 in all, and

    design effect = variance of the parts' means · size of a part / variance of the requests · a
    a = (1 + r) / (1 − r)      where r, the correlation of neighbouring parts, is significant

1 or more; n / design effect is what counts. `a` is the correction of Skart (Tafazzoli and Wilson
2011) for parts that are no longer than what a queue remembers.

The effect is measured twice: of who met, and of how near each request was to its targets. Misses
are rare where targets are met, and come in clumps; a run without a clump has no variance of who
met, while the queue that makes them shows in how near the others came. Nearness counts where its
swings, `HORIZON` times over, would reach the targets: else a machine that is a little slower at
times, far from its targets, would look like a queue.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, sqrt
from statistics import NormalDist, fmean, pvariance, variance

CONFIDENCE = 0.95
BATCHES = 20
"""Of a run: enough to measure their variance, long enough to differ by chance alone."""
HORIZON = 10.0
"""A trend that would not reach the targets in so many times what was seen of it is none."""
NEAREST_SHARE = 0.1
"""Of the requests, those that came nearest to their targets: where misses are rarer, they come in
clumps like these."""
MOST_CORRELATION = 0.95
"""A correlation that was measured on 20 parts is not taken for more."""
_SIGNIFICANT = 1.645
"""Standard errors of a correlation, 1 / √parts each, that come by chance once in 20."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Between which two shares the true one lies, with the confidence asked for."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """Requests of one run in order of when they were due."""

    met: array[int] = field(default_factory=lambda: array("b"))
    near: array[float] = field(default_factory=lambda: array("f"))
    """Latency ÷ target, of the target that it came nearest to."""


def wilson(met: float, total: float, confidence: float = CONFIDENCE) -> Interval:
    """Of `met` among `total`; from 0 to 1 where nothing was counted."""
    return _wilson(met, total, _deviations(confidence))


def interval_of(runs: Sequence[Series], confidence: float = CONFIDENCE) -> tuple[Interval, float]:
    """Of the share that meets, and how many requests drawn alone would tell as much."""
    total, met = sum(len(run.met) for run in runs), sum(sum(run.met) for run in runs)
    if not total:
        return Interval(0.0, 1.0), 0.0
    alone = total / effect_of(runs)
    deviations = _deviations(confidence)
    if (parts := min(BATCHES, total // 2)) > 1:
        deviations = _students(deviations, parts - 1)
    return _wilson(met / total * alone, alone, deviations), alone


def effect_of(runs: Sequence[Series]) -> float:
    """How many requests of some runs tell as much as one that is drawn alone."""
    met = [run.met for run in runs]
    near = [run.near for run in runs]
    effect = _effect(met)
    means = [fmean(part) for run in _parts(near) for part in run]
    if means and max(means) + HORIZON * (max(means) - min(means)) >= 1.0:
        effect = max(effect, _effect(_nearest(near)))
    return effect


def design_effect(met: Sequence[bool]) -> float:
    """The same of one run, of who met alone."""
    return _effect([met])


def least_requests(share: float, confidence: float = CONFIDENCE) -> int:
    """So many requests, all of them good, just show that the true share is `share` or more."""
    z = _deviations(confidence)
    return ceil(z * z * share / (1 - share)) if share < 1.0 else 0


def _effect(runs: Sequence[Sequence[float]]) -> float:
    parts = _parts(runs)
    means = [[fmean(part) for part in run] for run in parts]
    every = [mean for run in means for mean in run]
    spread = pvariance([value for run in parts for part in run for value in part] or [0.0])
    if len(every) < 2 or not spread > 0.0:
        return 1.0
    between, middle = variance(every), fmean(every)
    size = next(len(part) for run in parts for part in run)
    effect = between * size / spread
    if not between > 0.0:
        return 1.0
    pairs = sum(max(len(run) - 1, 0) for run in means)
    shared = sum((a - middle) * (b - middle) for run in means for a, b in pairwise(run))
    correlation = shared / pairs / between if pairs else 0.0
    if correlation > _SIGNIFICANT / sqrt(len(every)):
        correlation = min(correlation, MOST_CORRELATION)
        effect *= (1.0 + correlation) / (1.0 - correlation)
    return max(effect, 1.0)


def _nearest(near: Sequence[Sequence[float]]) -> list[list[bool]]:
    """Which requests are the tenth that came nearest to the targets."""
    every = sorted(value for run in near for value in run)
    least = every[int(len(every) * (1.0 - NEAREST_SHARE))]
    return [[value >= least for value in run] for run in near]


def _parts(runs: Sequence[Sequence[float]]) -> list[list[Sequence[float]]]:
    """Each run cut into parts of the same size; what is left over is at its beginning."""
    size = sum(len(run) for run in runs) // BATCHES
    if size < 2:
        return []
    return [
        [run[end - size : end] for end in range(len(run) % size + size, len(run) + 1, size)]
        for run in runs
    ]


def _wilson(met: float, total: float, z: float) -> Interval:
    if not total:
        return Interval(0.0, 1.0)
    share = met / total
    middle = share + z * z / (2 * total)
    around = z * sqrt(max(share * (1 - share), 0.0) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends the two halves cancel, but for rounding.
    low = (middle - around) / scale if met > 0 else 0.0
    high = (middle + around) / scale if met < total else 1.0
    return Interval(low, high)


def _deviations(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _students(z: float, freedom: int) -> float:
    """Student's quantile where the normal one is z (Abramowitz and Stegun, 26.7.5)."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
