"""Weighted linear least squares with the intervals of its coefficients, for a handful of columns.

    minimise sum(((y - X b) / sigma)^2)       b = (X'WX)^-1 X'Wy,  W = 1 / sigma^2
    covariance of b = s^2 (X'WX)^-1           s^2 = what is left of that sum / (rows - columns)

so `sigma` has to be right only up to a common factor; `robust_sigma` widens it where a row is far
off. A coefficient lies within t * its standard
error with 95 %, t being Student's quantile (Draper and Smith, Applied Regression Analysis, ch. 1-2;
its expansion in 1/freedom: Abramowitz and Stegun 26.7.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

_NORMAL_975 = 1.959964
_HUBER = 2.0
"""Deviations up to so many usual ones count in full."""
_MAD_TO_SIGMA = 1.4826
_PASSES = 8
SINGULAR = 1e-9
"""A pivot below it, with columns scaled to length 1: the column is a combination of others."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Coefficients in the order of the columns, and how sure they are.

    `spreads` are their standard errors, `covariance` what these are the roots of the diagonal of;
    `error` is the weighted sum of squares that is left.
    """

    values: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    error: float
    variance: float
    """What the squares of `sigma` are to be multiplied by, as the rows show."""

    @property
    def spreads(self) -> tuple[float, ...]:
        """Standard errors of the coefficients."""
        return tuple(row[i] ** 0.5 for i, row in enumerate(self.covariance))

    def leverages(self, rows: Sequence[Sequence[float]], sigma: Sequence[float]) -> Iterator[float]:
        """How far the fit follows each row wherever it is, from 0 to 1."""
        for row, s in zip(rows, sigma, strict=True):
            spread = sum(
                a * b * c
                for a, covariances in zip(row, self.covariance, strict=True)
                for b, c in zip(row, covariances, strict=True)
            )
            yield spread / (self.variance * s * s) if self.variance > 0.0 else 0.0


def solve(
    rows: Sequence[Sequence[float]],
    observed: Sequence[float],
    sigma: Sequence[float],
    agreeing: float = 1.0,
) -> Solution | None:
    """Fit; None if there are no more rows than columns, or if columns cannot be told apart.

    `agreeing` is the share of rows that `robust_sigma` has left alone: the others were pulled in,
    so that what is left of them says less of how sure the coefficients are (Huber, Robust
    Statistics, ch. 7).
    """
    count, width = len(rows), len(rows[0]) if rows else 0
    if not width or count <= width:
        return None
    weighted = [[x / s for x in row] for row, s in zip(rows, sigma, strict=True)]
    target = [y / s for y, s in zip(observed, sigma, strict=True)]
    scale = [sum(row[j] ** 2 for row in weighted) ** 0.5 for j in range(width)]
    if min(scale) == 0.0:
        return None
    scaled = [[x / scale[j] for j, x in enumerate(row)] for row in weighted]
    gram = [
        [sum((row[i] * row[j] for row in scaled), 0.0) for j in range(width)] for i in range(width)
    ]
    inverse = _inverted(gram)
    if inverse is None:
        return None
    right = [sum(row[i] * y for row, y in zip(scaled, target, strict=True)) for i in range(width)]
    values = [sum(inverse[i][j] * right[j] for j in range(width)) for i in range(width)]
    error = sum(
        (y - sum(x * b for x, b in zip(row, values, strict=True))) ** 2
        for row, y in zip(scaled, target, strict=True)
    )
    freedom = count - width
    variance = error / freedom / agreeing**2
    return Solution(
        tuple(value / s for value, s in zip(values, scale, strict=True)),
        tuple(
            tuple(variance * inverse[i][j] / (scale[i] * scale[j]) for j in range(width))
            for i in range(width)
        ),
        error,
        variance,
    )


def robust_sigma(
    rows: Sequence[Sequence[float]], observed: Sequence[float], sigma: Sequence[float]
) -> list[float]:
    """`sigma`, widened for rows far off what the others agree on (Huber's weights).

    On a machine that does something else now and then, a few rows tell of that instead.
    """
    wider = list(sigma)
    for _ in range(_PASSES):
        solution = solve(rows, observed, wider)
        if solution is None:
            return list(sigma)
        off = [
            abs(y - sum(x * b for x, b in zip(row, solution.values, strict=True))) / s
            for row, y, s in zip(rows, observed, sigma, strict=True)
        ]
        # What is left of few rows behind many columns is less than what they are off.
        fitted_away = (len(rows) / (len(rows) - len(rows[0]))) ** 0.5
        usual = _HUBER * max(_MAD_TO_SIGMA * median(off) * fitted_away, 1e-12)
        wider = [s * max(each / usual, 1.0) ** 0.5 for s, each in zip(sigma, off, strict=True)]
    return wider


def student_975(freedom: int) -> float:
    """The quantile of Student's t that 95 % lie within, both sides; within 1 % from 3 on."""
    z = _NORMAL_975
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _inverted(matrix: list[list[float]]) -> list[list[float]] | None:
    """Gauss-Jordan on a symmetric positive matrix; None if a column depends on the others."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for k, pivot_row in enumerate(rows):
        pivot = pivot_row[k]
        if pivot < SINGULAR:
            return None
        pivot_row[:] = [value / pivot for value in pivot_row]
        for other in rows:
            if other is not pivot_row and other[k] != 0.0:
                factor = other[k]
                other[:] = [a - factor * b for a, b in zip(other, pivot_row, strict=True)]
    return [row[size:] for row in rows]
