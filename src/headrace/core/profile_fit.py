"""Latency profiles from measurements: a small non-negative least squares.

The model has five terms, so its optimum is found by solving for every subset of terms and keeping
the best subset whose solution is positive (the solution of a non-negative least squares problem is
the plain one on its own support; Lawson and Hanson, Solving Least Squares Problems, ch. 23).
Residuals are relative to what was observed: 1 ms matters on 5 ms and not on 5 s, and a stall
cannot weigh more than one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import isfinite
from typing import TypeAlias

from headrace.core.latency import LatencyProfile, Work, attended_pairs

Measurement: TypeAlias = tuple[Work, float]
"""Work and the seconds it took."""

TERMS = (
    "per_step_s",
    "per_prefill_token_s",
    "per_attended_token_s",
    "per_sequence_s",
    "per_kv_token_s",
)
UNKNOWN, PROBED, LEARNED = "unknown", "probed", "learned-"
"""Names of profiles that nobody gave: of a pool of which nothing is known yet, that was measured at
its start, and from its streams."""
PREFILL_TERMS = frozenset({1, 2})
# Terms in the order in which one is preferred where the data cannot tell two apart.
_PREFERENCE = (1, 0, 3, 4, 2)
# A further term must lower the squared error by this factor, or it is noise.
_WORTH_A_TERM = 1.03
_LENGTHS_APART = 1.5
# A column this close to a combination of others cannot be told from them.
_SINGULAR = 1e-7
_PERFECT_FIT = 1e-9


def fit_profile(
    prefill_samples: Sequence[tuple[float, float, float]],
    decode_samples: Sequence[tuple[float, float, float]],
    name: str,
    source: str,
) -> LatencyProfile:
    """Fit a profile to a probe of one replica that did nothing else meanwhile.

    Args:
        prefill_samples: (uncached tokens, cached tokens, TTFT in seconds) each.
        decode_samples: (sequences in the batch, their context tokens in sum, seconds of one step).
        name: the profile's name.
        source: where it comes from, in words.

    Terms that the samples cannot tell apart from others, or that come out negative, are 0.

    Raises:
        ValueError: the samples cannot support a term no profile can do without.
    """
    measurements = [
        ((1.0, uncached, attended_pairs(uncached, cached), 0.0, 0.0), seconds)
        for uncached, cached, seconds in prefill_samples
    ]
    measurements += [
        ((1.0, 0.0, 0.0, batch, context), seconds) for batch, context, seconds in decode_samples
    ]
    for _, seconds in measurements:
        if not (isfinite(seconds) and seconds > 0.0):
            raise ValueError(f"a sample took {seconds!r} s; give positive, finite seconds")
    lengths = [uncached for uncached, _, _ in prefill_samples]
    if not lengths or max(lengths) < _LENGTHS_APART * min(lengths) + 1:
        raise ValueError(
            f"per_prefill_token_s: {len(lengths)} prefills of nearly one length cannot show "
            "what a token costs; probe at least two lengths, one twice the other"
        )
    if not decode_samples:
        raise ValueError("per_step_s: no decoding step was measured; probe at least one stream")
    coefficients = _solve(measurements, frozenset())
    if coefficients is None or not any(coefficients[term] > 0.0 for term in PREFILL_TERMS):
        raise ValueError(
            "per_prefill_token_s: the time to the first token did not grow with the prompt; "
            "probe longer prompts, each with a text of its own so that none is cached"
        )
    return LatencyProfile(name, source, *coefficients)


def was_given(profile: LatencyProfile) -> bool:
    """Whether somebody named or wrote it, and it was not measured of the pool itself."""
    return profile.name not in {UNKNOWN, PROBED} and not profile.name.startswith(LEARNED)


class ProfileLearner:
    """Learns the profile of a pool from its first streams, in whatever company they ran.

    Later it learns another one only from prompts whose lengths differ: others tell how fast the
    pool is, which its factors follow, but not what a token costs beside what a step does.
    """

    def __init__(self, pool: str, streams: int) -> None:
        """Fit once `streams` first tokens were measured in the pool named `pool`."""
        self._pool = pool
        self._wanted = streams
        self._streams = 0
        self._measurements: list[Measurement] = []
        self._has_learned = False

    @property
    def progress(self) -> str:
        """How far the learner is and what routes meanwhile."""
        return (
            f"learning, {self._streams} of {self._wanted} streams: "
            "routed on in-flight uncached tokens"
        )

    def add_prefill(self, work: Work, seconds: float) -> LatencyProfile | None:
        """Take the work until a first token; the profile, once there is enough for one."""
        if seconds <= 0.0 or work[1] <= 0.0:
            return None
        self._measurements.append((work, seconds))
        self._streams += 1
        if self._streams < self._wanted:
            return None
        streams, self._streams = self._streams, 0
        measurements, self._measurements = self._measurements, []
        if self._has_learned and not _lengths_differ(measurements):
            return None
        coefficients = _solve(measurements, PREFILL_TERMS)
        if coefficients is None:
            return None
        self._has_learned = True
        source = f"learned from {streams} streams"
        return LatencyProfile(f"{LEARNED}{self._pool}", source, *coefficients)

    def add_decode(self, work: Work, seconds: float) -> None:
        """Take the work between a first and a last token."""
        if seconds > 0.0 and len(self._measurements) < 4 * self._wanted:
            self._measurements.append((work, seconds))


def _lengths_differ(measurements: list[Measurement]) -> bool:
    """Whether prompts were of lengths that tell the costs of a token and of a step apart."""
    lengths = [work[1] / work[0] for work, _ in measurements if work[1] > 0.0]
    return max(lengths) >= _LENGTHS_APART * min(lengths)


def _solve(
    measurements: list[Measurement], one_of: frozenset[int]
) -> tuple[float, float, float, float, float] | None:
    """The non-negative coefficients of least relative error; None if there are none.

    Where `one_of` names terms, only solutions that use at least one of them count.
    """
    gram, right = _normal_equations(measurements)
    scale = [gram[i][i] ** 0.5 for i in range(5)]
    usable = [i for i in _PREFERENCE if scale[i] > 0.0]
    best: tuple[float, dict[int, float]] | None = None
    for size in range(1, len(usable) + 1):
        for subset in combinations(usable, size):
            if one_of and one_of.isdisjoint(subset):
                continue
            solution = _solve_subset(gram, right, scale, subset)
            if solution is None:
                continue
            explained = sum(solution[i] * right[i] for i in subset)
            error = max(len(measurements) - explained, _PERFECT_FIT * len(measurements))
            if best is None or error * _WORTH_A_TERM < best[0]:
                best = (error, solution)
    if best is None:
        return None
    found = best[1]
    return (
        found.get(0, 0.0),
        found.get(1, 0.0),
        found.get(2, 0.0),
        found.get(3, 0.0),
        found.get(4, 0.0),
    )


def _normal_equations(measurements: list[Measurement]) -> tuple[list[list[float]], list[float]]:
    """X'X and X'y with every row divided by what was observed, so that y is all ones."""
    gram = [[0.0] * 5 for _ in range(5)]
    right = [0.0] * 5
    for work, seconds in measurements:
        row = [amount / seconds for amount in work]
        for i, left in enumerate(row):
            right[i] += left
            for j, other in enumerate(row):
                gram[i][j] += left * other
    return gram, right


def _solve_subset(
    gram: list[list[float]], right: list[float], scale: list[float], subset: tuple[int, ...]
) -> dict[int, float] | None:
    """Gauss-Jordan elimination on scaled columns; None if singular or not all positive."""
    rows = [
        [gram[i][j] / (scale[i] * scale[j]) for j in subset] + [right[i] / scale[i]] for i in subset
    ]
    for k, pivot_row in enumerate(rows):
        # The matrix is symmetric and positive semi-definite: its diagonal is the pivot.
        if pivot_row[k] < _SINGULAR:
            return None
        pivot_row[:] = [value / pivot_row[k] for value in pivot_row]
        for other in rows:
            if other is not pivot_row and other[k] != 0.0:
                factor = other[k]
                other[:] = [a - factor * b for a, b in zip(other, pivot_row, strict=True)]
    solution = {i: row[-1] / scale[i] for i, row in zip(subset, rows, strict=True)}
    return solution if all(value > 0.0 for value in solution.values()) else None
