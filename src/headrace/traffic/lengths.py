"""Distributions of lengths in tokens and of pauses in seconds.

Prompt lengths in production are close to lognormal with a fat tail, answers close to exponential
(Xiang et al., "ServeGen", 2025, fig. 5; they mix a Pareto tail into the prompts).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, isfinite, log, sqrt
from random import Random
from typing import Protocol


class Lengths(Protocol):
    """A distribution of whole numbers of tokens."""

    @property
    def mean_tokens(self) -> float:
        """The mean, before bounds cut the tails."""
        ...

    def draw(self, rng: Random) -> int:
        """One length, at least 1."""
        ...


@dataclass(frozen=True, slots=True)
class FixedTokens:
    """Always the same length."""

    mean_tokens: float

    def draw(self, rng: Random) -> int:  # noqa: ARG002 - the protocol of all lengths
        """The length."""
        return max(1, round(self.mean_tokens))


@dataclass(frozen=True, slots=True)
class LognormalTokens:
    """Lognormal with a mean and CV, cut to `least` and `most`.

    σ² = ln(1 + CV²), μ = ln(mean) − σ²/2.
    """

    mean_tokens: float
    cv: float
    least: int = 1
    most: int = 1 << 20
    _mu: float = field(init=False, repr=False, compare=False)
    _sigma: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (isfinite(self.mean_tokens) and self.mean_tokens >= 1):
            raise ValueError(f"mean_tokens {self.mean_tokens:g} is not 1 or above")
        if not (isfinite(self.cv) and self.cv >= 0):
            raise ValueError(f"cv {self.cv:g} is not 0 or above")
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least {self.least} and most {self.most} are not in order from 1")
        variance = log(1 + self.cv**2)
        object.__setattr__(self, "_mu", log(self.mean_tokens) - variance / 2)
        object.__setattr__(self, "_sigma", sqrt(variance))

    def draw(self, rng: Random) -> int:
        """One length."""
        return min(self.most, max(self.least, round(exp(rng.gauss(self._mu, self._sigma)))))


@dataclass(frozen=True, slots=True)
class ExponentialTokens:
    """Exponential with a mean, at least 1, cut to `most`."""

    mean_tokens: float
    most: int = 1 << 20

    def __post_init__(self) -> None:
        if not (isfinite(self.mean_tokens) and self.mean_tokens >= 1):
            raise ValueError(f"mean_tokens {self.mean_tokens:g} is not 1 or above")

    def draw(self, rng: Random) -> int:
        """One length."""
        return min(self.most, max(1, round(rng.expovariate(1 / self.mean_tokens))))


@dataclass(frozen=True, slots=True)
class LognormalSeconds:
    """A pause: lognormal with a median and `sigma`, the standard deviation of its logarithm."""

    median_s: float
    sigma: float

    def __post_init__(self) -> None:
        if not (isfinite(self.median_s) and self.median_s > 0 and 0 <= self.sigma <= 4):
            raise ValueError(f"median_s {self.median_s:g} or sigma {self.sigma:g} out of range")

    @property
    def mean_s(self) -> float:
        """The mean: median · exp(σ²/2)."""
        return self.median_s * exp(self.sigma**2 / 2)

    def draw(self, rng: Random) -> float:
        """One pause in seconds."""
        return self.median_s * exp(rng.gauss(0.0, self.sigma))


@dataclass(frozen=True, slots=True)
class GeometricCounts:
    """How many turns a session has: geometric from 1 with a mean, at most `most`."""

    mean: float
    most: int = 200

    def __post_init__(self) -> None:
        if not 1 <= self.mean <= self.most:
            raise ValueError(f"mean {self.mean:g} is not from 1 to {self.most}")

    def draw(self, rng: Random) -> int:
        """One count."""
        if self.mean == 1:
            return 1
        return min(self.most, 1 + int(log(1 - rng.random()) / log(1 - 1 / self.mean)))

    def moments(self) -> tuple[float, float]:
        """The mean and the mean square of what `draw` gives, cut at `most`.

        P(N ≥ k) = (1 − 1/mean)^(k−1), so E[N] = Σ P(N ≥ k) and E[N²] = Σ (2k − 1)·P(N ≥ k).
        """
        stay = 1 - 1 / self.mean
        tails = [stay ** (number - 1) for number in range(1, self.most + 1)]
        return sum(tails), sum((2 * number + 1) * tail for number, tail in enumerate(tails))
