"""How far a share that was measured may be from the true one.

    Wilson interval = (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)

Wilson (1927). It counts requests as if each were drawn alone. Those of one run wait in the same
queue, so the true interval is wider: runs with other seeds show by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Between which two shares the true one lies, with the confidence asked for."""

    low: float
    high: float


def wilson(met: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Of `met` among `total`; from 0 to 1 where nothing was counted."""
    if not total:
        return Interval(0.0, 1.0)
    z, share = _deviations(confidence), met / total
    middle = share + z * z / (2 * total)
    around = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return Interval(max((middle - around) / scale, 0.0), min((middle + around) / scale, 1.0))


def least_requests(share: float, confidence: float = CONFIDENCE) -> int:
    """So many requests, all of them good, just show that the true share is `share` or more."""
    z = _deviations(confidence)
    return ceil(z * z * share / (1 - share)) if share < 1.0 else 0


def _deviations(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
