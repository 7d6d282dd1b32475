"""Lengths and pauses have the means and spreads asked for."""

from random import Random
from statistics import mean, median, pstdev

import pytest

from headrace.traffic.lengths import (
    ExponentialTokens,
    FixedTokens,
    GeometricCounts,
    LognormalSeconds,
    LognormalTokens,
)

SAMPLES = 20_000


def test_lognormal():
    rng = Random(1)
    drawn = [LognormalTokens(1000, 0.8).draw(rng) for _ in range(SAMPLES)]
    assert mean(drawn) == pytest.approx(1000, rel=0.03)
    assert pstdev(drawn) / mean(drawn) == pytest.approx(0.8, abs=0.05)
    assert median(drawn) == pytest.approx(1000 / 1.64**0.5, rel=0.03)


def test_bounds_cut():
    rng = Random(1)
    drawn = [LognormalTokens(100, 2.0, 50, 200).draw(rng) for _ in range(2000)]
    assert min(drawn) == 50
    assert max(drawn) == 200


def test_exponential():
    rng = Random(1)
    drawn = [ExponentialTokens(250).draw(rng) for _ in range(SAMPLES)]
    assert mean(drawn) == pytest.approx(250, rel=0.03)
    assert pstdev(drawn) / mean(drawn) == pytest.approx(1.0, abs=0.03)
    assert min(drawn) == 1


def test_fixed():
    assert FixedTokens(64).draw(Random(1)) == 64


def test_pause():
    rng = Random(1)
    pause = LognormalSeconds(30, 1.0)
    drawn = [pause.draw(rng) for _ in range(SAMPLES)]
    assert median(drawn) == pytest.approx(30, rel=0.04)
    assert mean(drawn) == pytest.approx(pause.mean_s, rel=0.05)


@pytest.mark.parametrize("turns", [GeometricCounts(4, 60), GeometricCounts(4, 5)])
def test_moments_are_those_of_what_is_drawn(turns: GeometricCounts):
    rng = Random(1)
    drawn = [turns.draw(rng) for _ in range(SAMPLES)]
    first, second = turns.moments()
    assert mean(drawn) == pytest.approx(first, rel=0.03)
    assert mean(count * count for count in drawn) == pytest.approx(second, rel=0.06)
    assert min(drawn) == 1
    assert max(drawn) <= turns.most


def test_one_turn_is_one_turn():
    assert GeometricCounts(1).draw(Random(1)) == 1


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (LognormalTokens, (0, 1)),
        (LognormalTokens, (10, -1)),
        (LognormalTokens, (10, 1, 9, 8)),
        (ExponentialTokens, (0,)),
        (LognormalSeconds, (0, 1)),
        (GeometricCounts, (0.5,)),
    ],
)
def test_numbers_that_make_no_distribution(kind, arguments):
    with pytest.raises(ValueError, match=r"not|out of range"):
        kind(*arguments)
