"""The engine's budget of prompt tokens in a step, from where the time to the first token jumps.

A prompt of n tokens takes ceil(n / budget) steps, so each budget is a column of its own in the
least squares, and the others stay. What these leave of the observations and of that column is all
that a budget is judged by: a search over hundreds costs no more than a few fits.

Budgets for which all prompts take as many steps cannot be told apart; the roundest of them stands
for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from headrace.engine_model.measured import prefill_steps

_LEAST_TOKENS = 64
_GRID = 1.012
"""From one budget to the next at first; prompts of fifty steps are off by half a step there."""
_KEPT = 6
"""Places that are looked at more closely."""
_FINER = 0.001
_ROUND = (1024, 1000, 512, 500, 256, 250, 128, 100, 64, 50, 32, 25, 16, 10, 8, 5, 4, 2, 1)

Misfit = Callable[[int], float]
"""The weighted squares that a budget leaves."""


def likeliest_budget(
    lengths: Sequence[int],
    fixed: Sequence[Sequence[float]],
    after: Sequence[float],
    observed: Sequence[float],
    sigma: Sequence[float],
) -> int | None:
    """The budget that leaves least; None where no prompt is long enough to show one.

    `lengths` are the uncached tokens of the first rows, `after` the steps of the rows that follow;
    `fixed` are the other columns, row by row.
    """
    longest = max(lengths)
    if longest <= 2 * _LEAST_TOKENS:
        return None
    misfit = _misfit_of(lengths, fixed, after, observed, sigma)
    grid: list[int] = []
    budget = float(_LEAST_TOKENS)
    while budget < longest:
        grid.append(round(budget))
        budget *= _GRID
    best = sorted(dict.fromkeys(grid), key=misfit)[:_KEPT]
    closer = {each for middle in best for each in _around(middle, _GRID - 1, _FINER)}
    best = sorted((each for each in closer if each < longest), key=misfit)[:_KEPT]
    closest = {each for middle in best for each in _around(middle, _FINER, 0.0)}
    found = min(sorted(each for each in closest if each < longest), key=misfit)
    return _roundest(*_alike(found, lengths))


def _misfit_of(
    lengths: Sequence[int],
    fixed: Sequence[Sequence[float]],
    after: Sequence[float],
    observed: Sequence[float],
    sigma: Sequence[float],
) -> Misfit:
    basis = _orthonormal(
        [[row[j] / s for row, s in zip(fixed, sigma, strict=True)] for j in range(len(fixed[0]))]
    )
    target = _left([y / s for y, s in zip(observed, sigma, strict=True)], basis)

    def misfit(budget: int) -> float:
        steps = [*(float(prefill_steps(each, budget)) for each in lengths), *after]
        column = _left([x / s for x, s in zip(steps, sigma, strict=True)], basis)
        along = _dot(target, column)
        size = _dot(column, column)
        # Steps that take less than no time explain nothing.
        explained = along**2 / size if along > 0.0 and size > 0.0 else 0.0
        return _dot(target, target) - explained

    return misfit


def _orthonormal(columns: Sequence[Sequence[float]]) -> list[list[float]]:
    """Gram-Schmidt, twice over for the digits."""
    basis: list[list[float]] = []
    for column in columns:
        size = _dot(column, column) ** 0.5
        if size == 0.0:
            continue
        left = _left(_left([x / size for x in column], basis), basis)
        size = _dot(left, left) ** 0.5
        if size > 1e-9:
            basis.append([x / size for x in left])
    return basis


def _left(column: Sequence[float], basis: Iterable[Sequence[float]]) -> list[float]:
    """What of a column no combination of others explains."""
    left = list(column)
    for other in basis:
        share = _dot(left, other)
        left = [x - share * o for x, o in zip(left, other, strict=True)]
    return left


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _around(middle: int, share: float, step: float) -> Iterable[int]:
    width = max(2, round(share * middle))
    return range(max(_LEAST_TOKENS, middle - width), middle + width + 1, max(1, int(step * middle)))


def _alike(budget: int, lengths: Sequence[int]) -> tuple[int, int]:
    """The least and the largest budget for which all prompts take as many steps as for this one."""
    least, most = 1, 2 * max(lengths)
    for tokens in lengths:
        steps = prefill_steps(tokens, budget)
        least = max(least, -(-tokens // steps))
        if steps > 1:
            most = min(most, -(-tokens // (steps - 1)) - 1)
    return least, max(least, most)


def _roundest(least: int, most: int) -> int:
    """A power of two if there is one between, else a multiple of the largest round number."""
    power = 1 << (least - 1).bit_length()
    if power <= most:
        return power
    middle = (least + most) / 2
    for unit in _ROUND:
        if unit <= most and most // unit * unit >= least:
            near = min(max(round(middle / unit), -(-least // unit)), most // unit)
            return near * unit
    return least
