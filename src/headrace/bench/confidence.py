"""How far a share that was measured may be from the true one.

    Wilson interval = (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)

Wilson (1927), for n requests that are drawn alone. Those of one run wait in the same queue and are
late together, so that n of them tell as much as fewer would. How many fewer is measured:

    design effect = variance of the shares of batches · size of a batch / p(1 − p),  1 or more

with the run cut into consecutive batches (the method of batch means); n / design effect is what
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist, variance

CONFIDENCE = 0.95
BATCHES = 20
"""Of a run: enough to measure their variance, long enough to differ by chance alone."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Between which two shares the true one lies, with the confidence asked for."""

    low: float
    high: float


def wilson(met: float, total: float, confidence: float = CONFIDENCE) -> Interval:
    """Of `met` among `total`; from 0 to 1 where nothing was counted."""
    if not total:
        return Interval(0.0, 1.0)
    z, share = _deviations(confidence), met / total
    middle = share + z * z / (2 * total)
    around = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends the two halves cancel, but for rounding.
    low = (middle - around) / scale if met > 0 else 0.0
    high = (middle + around) / scale if met < total else 1.0
    return Interval(low, high)


def design_effect(met: Sequence[bool]) -> float:
    """How many requests of a run tell as much as one that is drawn alone; they are in order."""
    size, share = len(met) // BATCHES, sum(met) / len(met) if met else 0.0
    if size < 2 or share in {0.0, 1.0}:
        return 1.0
    shares = [sum(met[size * place : size * (place + 1)]) / size for place in range(BATCHES)]
    return max(variance(shares) * size / (share * (1 - share)), 1.0)


def least_requests(share: float, confidence: float = CONFIDENCE) -> int:
    """So many requests, all of them good, just show that the true share is `share` or more."""
    z = _deviations(confidence)
    return ceil(z * z * share / (1 - share)) if share < 1.0 else 0


def _deviations(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
