"""Arrival processes have the rate and the burstiness asked for; a wrong process would fail."""

from collections.abc import Iterator
from itertools import count, islice, pairwise
from math import exp
from random import Random
from statistics import mean, pstdev

import pytest

from headrace.traffic.arrivals import (
    RateSegment,
    at_rates,
    constant_arrivals,
    gamma_arrivals,
    poisson_arrivals,
    weibull_arrivals,
    weibull_shape,
)

SAMPLES = 40_000


def gaps(times: Iterator[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise([0.0, *islice(times, SAMPLES)])]


def cv(values: list[float]) -> float:
    return pstdev(values) / mean(values)


def test_constant():
    assert list(islice(constant_arrivals(4.0), 3)) == [0.25, 0.5, 0.75]


def test_poisson_has_its_rate_and_the_distribution_of_its_gaps():
    found = gaps(poisson_arrivals(200.0, Random(1)))
    assert mean(found) == pytest.approx(1 / 200, rel=0.02)
    assert cv(found) == pytest.approx(1.0, abs=0.02)
    # Kolmogorov–Smirnov against 1 − exp(−rate·gap), at 1 %.
    distance = max(
        abs((rank + 0.5) / SAMPLES - (1 - exp(-200.0 * gap)))
        for rank, gap in enumerate(sorted(found))
    )
    assert distance < 1.63 / SAMPLES**0.5


@pytest.mark.parametrize("process", [gamma_arrivals, weibull_arrivals])
@pytest.mark.parametrize(("wanted", "bound"), [(0.3, 0.01), (1.0, 0.03), (1.5, 0.06), (3.0, 0.3)])
def test_burstiness(process, wanted: float, bound: float):
    found = gaps(process(5.0, wanted, Random(7)))
    assert mean(found) == pytest.approx(0.2, rel=0.02 * max(1.0, 2 * wanted))
    assert cv(found) == pytest.approx(wanted, abs=bound)


def test_gamma_and_weibull_differ_in_more_than_their_cv():
    gamma, weibull = (
        sorted(gaps(process(1.0, 3.0, Random(3)))) for process in (gamma_arrivals, weibull_arrivals)
    )
    # Half of Gamma's gaps at CV 3 are far shorter than half of Weibull's.
    assert gamma[SAMPLES // 2] < 0.3 * weibull[SAMPLES // 2]


@pytest.mark.parametrize(("shape", "known_cv"), [(1.0, 1.0), (2.0, 0.5227), (0.5, 2.2361)])
def test_weibull_shape_from_tables(shape: float, known_cv: float):
    assert weibull_shape(known_cv) == pytest.approx(shape, rel=1e-3)


def test_ramp_and_step_at_their_rates():
    segments = [RateSegment(100, 0, 50), RateSegment(50, 50, 50), RateSegment(50, 5, 5)]
    times = list(at_rates(segments, poisson_arrivals(1.0, Random(5))))
    assert times == sorted(times)
    assert times[-1] < 200
    windows = [(0, 50, 625), (50, 100, 1875), (100, 150, 2500), (150, 200, 250)]
    for start, end, expected in windows:
        found = sum(start <= at < end for at in times)
        assert found == pytest.approx(expected, abs=4 * expected**0.5)


def test_constant_gaps_bend_exactly():
    ramp = at_rates([RateSegment(10, 0, 2)], (float(number) for number in count(1)))
    assert list(ramp) == pytest.approx([(10 * number) ** 0.5 for number in range(1, 10)])
    fall = at_rates([RateSegment(10, 2, 0)], (float(number) for number in count(1)))
    assert list(fall) == pytest.approx([10 - (100 - 10 * number) ** 0.5 for number in range(1, 10)])


def test_nothing_arrives_at_rate_zero():
    segments = [RateSegment(5, 0, 0), RateSegment(1, 10, 10), RateSegment(9, 0, 0)]
    times = list(at_rates(segments, constant_arrivals(1.0)))
    assert len(times) == 9
    assert min(times) >= 5
    assert max(times) < 6


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_numbers_that_make_no_process(value: float):
    with pytest.raises(ValueError, match=r"requests_per_s .* is not above 0"):
        next(constant_arrivals(value))
    with pytest.raises(ValueError, match=r"requests_per_s .* is not above 0"):
        next(poisson_arrivals(value, Random(1)))
    with pytest.raises(ValueError, match=r"cv .* is not above 0"):
        next(gamma_arrivals(1.0, value, Random(1)))
    with pytest.raises(ValueError, match=r"cv .* is not from 0\.05 to 20"):
        next(weibull_arrivals(1.0, value, Random(1)))
    with pytest.raises(ValueError, match=r"duration_s .* is not above 0"):
        RateSegment(value, 1, 1)


def test_a_rate_below_zero():
    with pytest.raises(ValueError, match="to_per_s -1 is not 0 or above"):
        RateSegment(1, 1, -1)
