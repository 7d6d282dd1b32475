"""How lengths lie around their means: pairs of (prompt, answer), each over its mean.

A file of rates gives means only, and capacity depends on the spread: attention costs the square of
a prompt, and short answers miss a target per token more easily than long ones. A spread is drawn
from (events) and known by a few weighted points (fluid), whose means are 1:

    lognormal:cv=1    prompts and answers independent, each lognormal with this CV
    of a trace        the pairs of its requests, each length over the mean of all: the joint
                      distribution as it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, isfinite, log, sqrt
from random import Random
from statistics import NormalDist
from typing import Protocol

from headrace.traffic.trace import TraceRequest

Point = tuple[float, float, float]
"""(weight, prompt over its mean, answer over its mean)."""
MOST_CV = 10.0
SHARES = (0.02, 0.08, 0.2, 0.4, 0.2, 0.08, 0.02)
"""Into which parts, by rank, each length is divided for the points."""
PARTS_OF_A_TRACE = (5, 5)
"""Classes by prompt, and of each of them by answer."""


class LengthSpread(Protocol):
    """A joint distribution of two factors with mean 1."""

    @property
    def points(self) -> tuple[Point, ...]:
        """A few points that stand for it; weights add up to 1, means are 1."""
        ...

    def draw(self, rng: Random) -> tuple[float, float]:
        """One pair."""
        ...


@dataclass(frozen=True, slots=True)
class LognormalSpread:
    """Prompts and answers independent, each lognormal with this CV (0: all are of mean length).

    Raises:
        ValueError: the CV is not from 0 to `MOST_CV`.
    """

    cv: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.cv) and 0.0 <= self.cv <= MOST_CV):
            raise ValueError(f"cv {self.cv:g} is not from 0 to {MOST_CV:g}")

    @property
    def points(self) -> tuple[Point, ...]:
        """A grid of the means of the parts of each length."""
        line = self._line()
        return tuple((wi * wo, i, o) for wi, i in line for wo, o in line)

    def draw(self, rng: Random) -> tuple[float, float]:
        """One pair; variance ln(1 + CV²), mean minus half of it."""
        variance = log(1.0 + self.cv**2)
        sigma = sqrt(variance)
        return (
            exp(rng.gauss(-variance / 2, sigma)),
            exp(rng.gauss(-variance / 2, sigma)),
        )

    def _line(self) -> list[tuple[float, float]]:
        """(share, mean of the part): between ranks z1 and z2, Φ(z2 - s) - Φ(z1 - s)."""
        if self.cv == 0.0:
            return [(1.0, 1.0)]
        sigma, normal = sqrt(log(1.0 + self.cv**2)), NormalDist()
        line: list[tuple[float, float]] = []
        before, below = 0.0, 0.0
        for number, share in enumerate(SHARES):
            last = number == len(SHARES) - 1
            below += share
            part = 1.0 if last else normal.cdf(normal.inv_cdf(below) - sigma)
            line.append((share, (part - before) / share))
            before = part
        return line


class TraceSpread:
    """The lengths of a trace's requests, each over the mean of all.

    Raises:
        ValueError: there are no requests.
    """

    __slots__ = ("_pairs", "points")

    def __init__(self, requests: Sequence[TraceRequest]) -> None:
        if not requests:
            raise ValueError("lengths need at least one request")
        count = len(requests)
        mean_input = sum(request.input_tokens for request in requests) / count
        mean_output = sum(request.output_tokens for request in requests) / count
        self._pairs = sorted(
            (request.input_tokens / mean_input, request.output_tokens / mean_output)
            for request in requests
        )
        self.points: tuple[Point, ...] = tuple(_points(self._pairs))

    def draw(self, rng: Random) -> tuple[float, float]:
        """The lengths of one of its requests."""
        return self._pairs[int(rng.random() * len(self._pairs))]


def _points(pairs: Sequence[tuple[float, float]]) -> list[Point]:
    """The means of classes by prompt and, within each, by answer."""
    by_input, by_output = PARTS_OF_A_TRACE
    points: list[Point] = []
    for part in _parts(pairs, by_input):
        ranked = sorted(part, key=lambda pair: pair[1])
        for few in _parts(ranked, by_output):
            weight = len(few) / len(pairs)
            points.append(
                (
                    weight,
                    sum(pair[0] for pair in few) / len(few),
                    sum(pair[1] for pair in few) / len(few),
                )
            )
    return points


def _parts(
    ranked: Sequence[tuple[float, float]], count: int
) -> list[Sequence[tuple[float, float]]]:
    """Ranked ones in up to `count` parts of about the same size, none empty."""
    cuts = [len(ranked) * number // count for number in range(count + 1)]
    return [ranked[low:high] for low, high in pairwise(cuts) if high > low]
