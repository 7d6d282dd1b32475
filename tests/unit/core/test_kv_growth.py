"""How long until a KV cache is full, from what scrapes have told of it."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.kv_growth import FEWEST, WINDOW, KvSample, exhaustion_s

ratios = st.floats(0, 1)


def samples(*usage: float, every_s: float = 1.0) -> list[KvSample]:
    return [KvSample(100.0 + index * every_s, ratio) for index, ratio in enumerate(usage)]


def test_steady_growth_ends_when_the_cache_is_full():
    seen = samples(0.50, 0.52, 0.54, 0.56, 0.58, 0.60)
    assert exhaustion_s(seen, 105.0) == pytest.approx(0.40 / 0.02)


def test_time_since_the_last_scrape_has_passed_already():
    seen = samples(0.50, 0.52, 0.54, 0.56, 0.58, 0.60)
    assert exhaustion_s(seen, 108.0) == pytest.approx(20 - 3)
    assert exhaustion_s(seen, 200.0) == 0


def test_the_beat_of_the_scrapes_does_not_matter():
    times = [0.0, 0.4, 2.0, 2.1, 5.0, 9.0]
    seen = [KvSample(at_s, 0.1 + 0.05 * at_s) for at_s in times]
    assert exhaustion_s(seen, 9.0) == pytest.approx((1 - 0.55) / 0.05)


@pytest.mark.parametrize(
    "usage", [(0.4,) * WINDOW, (0.9, 0.8, 0.7, 0.6, 0.5), (0.5, 0.6, 0.5, 0.6, 0.5), ()]
)
def test_a_cache_that_does_not_grow_is_never_full(usage: tuple[float, ...]):
    assert exhaustion_s(samples(*usage), 200.0) == inf


def test_a_few_samples_show_no_growth_yet():
    rising = [0.1 * index for index in range(FEWEST)]
    assert exhaustion_s(samples(*rising[:-1]), 103.0) == inf
    assert exhaustion_s(samples(*rising), 104.0) == pytest.approx(0.6 / 0.1)


def test_a_full_cache_is_full_however_it_came_to_be():
    assert exhaustion_s(samples(1.0), 100.0) == 0
    assert exhaustion_s(samples(0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 107.0) == 0


def test_requests_that_end_in_between_do_not_hide_the_growth():
    usage = [0.02 * index for index in range(WINDOW)]
    usage[5], usage[11], usage[14] = 0.0, 0.05, 0.9
    assert exhaustion_s(samples(*usage), 119.0) == pytest.approx(0.62 / 0.02, rel=0.15)


def test_samples_of_one_moment_are_no_division_by_zero():
    assert exhaustion_s([KvSample(1.0, 0.1 * index) for index in range(8)], 1.0) == inf


@given(st.lists(ratios, max_size=WINDOW), st.floats(0, 1000))
def test_it_is_never_negative_nor_no_number(usage: list[float], later_s: float):
    seen = samples(*usage)
    assert exhaustion_s(seen, 100.0 + len(seen) + later_s) >= 0


# Powers of two, so that no rounding decides whether the median slope is above zero.
binary_ratios = st.integers(0, 1024).map(lambda parts: parts / 1024)


@given(st.lists(binary_ratios, min_size=FEWEST, max_size=WINDOW), st.sampled_from([0.25, 4.0]))
def test_seconds_scale_with_the_beat(usage: list[float], every_s: float):
    quick, slow = samples(*usage), samples(*usage, every_s=every_s)
    scaled_s = exhaustion_s(quick, quick[-1].at_s) * every_s
    assert exhaustion_s(slow, slow[-1].at_s) == pytest.approx(scaled_s)
