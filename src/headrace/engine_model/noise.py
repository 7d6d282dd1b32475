"""How far measured times are off, learned from what a fit leaves of them.

    sigma^2 = (scale * tick)^2 + (share * seconds)^2

A loop's tick weighs on what is short and averages out; a share of the time, as of a processor that
is shared or of a model that is not the engine, weighs on what is long. Which of them there is
decides whether long prompts tell more than short ones, so both are learned: the pair of highest
likelihood, with tails as of Student's t, since a few rows are far off (Lange, Little and Taylor,
Robust Statistical Modeling Using the t Distribution, 1989).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log, log1p

_SCALES = tuple(0.06 * 1.5**k for k in range(16))
_SHARES = tuple(0.0001 * 2.0**k for k in range(12))
"""No clock and no model is nearer than the least of them."""
_TAILS = 4.0
"""Degrees of freedom of the tails."""
_USUAL_SHARE = 0.002
_PRIOR_WIDTH = 2.5
"""Few rows are fitted by chance: scales and shares this many e-folds from the usual are unlikely.
"""
_LEAST_LEFT = 0.05
"""Of a row that the fit follows wherever it is, at least this share counts as left."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How far the rows of one phase are off."""

    scale: float = 1.0
    """Times the tick that was assumed."""
    share: float = 0.0
    """Of the time itself."""

    def sigma_s(self, tick_s: float, seconds: float) -> float:
        """Of a row."""
        return ((self.scale * tick_s) ** 2 + (self.share * seconds) ** 2) ** 0.5


USUAL = Noise(1.0, _USUAL_SHARE)


def learned(
    off: Sequence[float], ticks_s: Sequence[float], seconds: Sequence[float], left: Sequence[float]
) -> Noise:
    """The likeliest noise behind rows that are off by so much.

    `left` is the share of each row's variance that the fit does not take away: 1 less its leverage.
    """
    rows = [
        (each / max(share, _LEAST_LEFT) ** 0.5, tick_s, at, min(max(share, _LEAST_LEFT), 1.0))
        for each, tick_s, at, share in zip(off, ticks_s, seconds, left, strict=True)
    ]
    return max(_candidates(), key=lambda noise: _likelihood(noise, rows))


def _candidates() -> Iterator[Noise]:
    for scale in _SCALES:
        for share in _SHARES:
            yield Noise(scale, share)


def _likelihood(noise: Noise, rows: Sequence[tuple[float, float, float, float]]) -> float:
    """Rows count by what the fit leaves of them, in sum as many as its degrees of freedom: four
    that three columns follow are near by chance.
    """
    found = -((log(noise.scale) / _PRIOR_WIDTH) ** 2) / 2
    if noise.share > _USUAL_SHARE:
        found -= (log(noise.share / _USUAL_SHARE) / _PRIOR_WIDTH) ** 2 / 2
    for off, tick_s, seconds, left in rows:
        variance = (noise.scale * tick_s) ** 2 + (noise.share * seconds) ** 2
        found -= left * log(variance) / 2
        found -= left * (_TAILS + 1) / 2 * log1p(off * off / (_TAILS * variance))
    return found
