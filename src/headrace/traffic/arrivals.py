"""Arrival processes: endless, increasing times in seconds, with a mean rate and a burstiness.

    CV = standard deviation of the gaps between arrivals / their mean

CV is 0 for a constant gap, 1 for a Poisson process, above 1 for bursts. Production LLM traffic fits
Gamma and Weibull gaps with a CV above 1 better than Poisson (Xiang et al., "ServeGen", 2025; Wang
et al., "BurstGPT", 2024). `at_rates` bends any of them to ramps and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import gamma as gamma_function
from math import isfinite, sqrt
from random import Random

MIN_WEIBULL_CV, MAX_WEIBULL_CV = 0.05, 20.0
"""Beyond, the shape is too far out for Γ in floats."""


def constant_arrivals(requests_per_s: float) -> Iterator[float]:
    """Times at equal gaps, the first one gap after 0."""
    gap_s = 1 / _positive("requests_per_s", requests_per_s)
    return (number * gap_s for number in count(1))


def poisson_arrivals(requests_per_s: float, rng: Random) -> Iterator[float]:
    """Times of a Poisson process: exponential gaps, CV 1."""
    _positive("requests_per_s", requests_per_s)
    now = 0.0
    while True:
        now += rng.expovariate(requests_per_s)
        yield now


def gamma_arrivals(requests_per_s: float, cv: float, rng: Random) -> Iterator[float]:
    """Times with Gamma gaps: shape 1/CV², scale CV²/rate."""
    shape = 1 / _positive("cv", cv) ** 2
    scale = 1 / (_positive("requests_per_s", requests_per_s) * shape)
    now = 0.0
    while True:
        now += rng.gammavariate(shape, scale)
        yield now


def weibull_arrivals(requests_per_s: float, cv: float, rng: Random) -> Iterator[float]:
    """Times with Weibull gaps: the shape k that has the CV, the scale 1/(rate·Γ(1 + 1/k))."""
    shape = weibull_shape(cv)
    scale = 1 / (_positive("requests_per_s", requests_per_s) * gamma_function(1 + 1 / shape))
    now = 0.0
    while True:
        now += rng.weibullvariate(scale, shape)
        yield now


def weibull_shape(cv: float) -> float:
    """The shape k of a Weibull distribution with this CV: CV² = Γ(1 + 2/k) / Γ(1 + 1/k)² − 1.

    Raises:
        ValueError: the CV is outside 0.05 to 20.
    """
    if not MIN_WEIBULL_CV <= cv <= MAX_WEIBULL_CV:
        raise ValueError(f"cv {cv:g} is not from {MIN_WEIBULL_CV:g} to {MAX_WEIBULL_CV:g}")
    low, high = 0.1, 50.0  # CV falls with k: 430 at 0.1, 0.025 at 50
    for _ in range(80):
        middle = sqrt(low * high)
        spread = gamma_function(1 + 2 / middle) / gamma_function(1 + 1 / middle) ** 2 - 1
        low, high = (middle, high) if spread > cv * cv else (low, middle)
    return sqrt(low * high)


@dataclass(frozen=True, slots=True)
class RateSegment:
    """A stretch of time in which the rate goes straight from one value to another.

    A step is two segments with a jump between them.
    """

    duration_s: float
    from_per_s: float
    to_per_s: float

    def __post_init__(self) -> None:
        _positive("duration_s", self.duration_s)
        for field, value in (("from_per_s", self.from_per_s), ("to_per_s", self.to_per_s)):
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{field} {value:g} is not 0 or above")

    @property
    def arrivals(self) -> float:
        """Expected arrivals within the segment."""
        return self.duration_s * (self.from_per_s + self.to_per_s) / 2

    def after_s(self, arrivals: float) -> float:
        """Seconds into the segment until so many arrivals are expected.

        Solves rate·t + slope·t²/2 = arrivals, in the form that is stable for a slope near 0.
        """
        slope = (self.to_per_s - self.from_per_s) / self.duration_s
        root = sqrt(max(0.0, self.from_per_s**2 + 2 * slope * arrivals))
        total = self.from_per_s + root
        return min(self.duration_s, 2 * arrivals / total) if total > 0 else 0.0


def at_rates(segments: Sequence[RateSegment], unit_arrivals: Iterator[float]) -> Iterator[float]:
    """Bend a process of rate 1 to a rate that changes; ends with the last segment.

    `unit_arrivals` is any process above at 1 request per second; its time becomes the expected
    number of arrivals so far (the time-rescaling theorem), so its burstiness stays at any rate.
    """
    start_s = before = 0.0
    remaining = iter(segments)
    segment = next(remaining, None)
    for expected in unit_arrivals:
        while segment is not None and expected >= before + segment.arrivals:
            before += segment.arrivals
            start_s += segment.duration_s
            segment = next(remaining, None)
        if segment is None:
            return
        yield start_s + segment.after_s(expected - before)


def _positive(field: str, value: float) -> float:
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{field} {value:g} is not above 0")
    return value
