"""Intervals are Wilson's, and narrower only where requests are independent."""

import random
from array import array

import pytest

from headrace.bench.figures.confidence import (
    Interval,
    Series,
    design_effect,
    effect_of,
    interval_of,
    least_requests,
    wilson,
)


def test_known_intervals():
    # Computed by hand from the formula with z = 1.96.
    found = wilson(95, 100)
    assert found.low == pytest.approx(0.8883, abs=2e-4)
    assert found.high == pytest.approx(0.9785, abs=2e-4)
    assert wilson(0, 0).low == 0.0
    assert wilson(0, 0).high == 1.0


@pytest.mark.parametrize("total", [1, 7, 16, 38, 381, 90_000])
def test_all_and_none_reach_the_ends(total):
    assert wilson(total, total).high == 1.0
    assert wilson(0, total).low == 0.0


def test_it_holds_the_true_share_about_as_often_as_it_says():
    rng, held = random.Random(1), 0
    for _ in range(1000):
        near = wilson(sum(rng.random() < 0.97 for _ in range(300)), 300)
        held += near.low <= 0.97 <= near.high
    assert 920 <= held <= 985


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_the_least_requests_just_show_a_share(share):
    least = least_requests(share)
    assert wilson(least, least).low >= share
    assert wilson(least - 1, least - 1).low < share


def test_independent_requests_tell_as_much_as_they_are():
    rng = random.Random(2)
    effects = [design_effect([rng.random() < 0.9 for _ in range(2000)]) for _ in range(50)]
    assert sum(effects) / len(effects) < 1.5


def test_requests_that_fail_together_tell_less():
    together = [number % 200 >= 40 for number in range(2000)]  # 40 in a row, ten times
    apart = [number % 5 != 0 for number in range(2000)]
    assert design_effect(together) > 10
    assert design_effect(apart) == 1.0


@pytest.mark.parametrize("met", [[], [True] * 500, [False] * 500, [True, False] * 10])
def test_where_nothing_can_be_said_it_is_one(met):
    assert design_effect(met) == 1.0


def series(met: list[bool], near: list[float]) -> Series:
    return Series(array("b", met), array("f", near))


def test_a_queue_that_did_not_miss_yet_still_shows_that_its_requests_hang_together():
    rng = random.Random(3)
    apart = [0.3 + 0.3 * rng.random() for _ in range(2000)]
    together = [0.3 + 0.5 * (place // 200 % 2) for place in range(2000)]
    all_met = [True] * 2000
    assert effect_of([series(all_met, apart)]) < 2.0
    assert effect_of([series(all_met, together)]) > 50.0
    interval, alone = interval_of([series(all_met, together)])
    assert alone < 40.0
    assert interval.low < 0.95


def test_swings_far_from_the_targets_are_no_queue():
    slower_at_times = [0.02 + 0.02 * (place // 200 % 2) for place in range(2000)]
    assert effect_of([series([True] * 2000, slower_at_times)]) == 1.0


def test_a_trend_that_would_reach_the_targets_tells_little():
    rising = [0.1 + 0.2 * place / 2000 for place in range(2000)]
    assert effect_of([series([True] * 2000, rising)]) > 100.0


def test_parts_that_are_shorter_than_a_queue_remembers_count_for_less():
    slow = [place // 1000 % 2 == 0 for place in range(4000)]  # five parts of 200 are alike
    alternating = [place // 200 % 2 == 0 for place in range(4000)]
    assert design_effect(alternating) == pytest.approx(200 * 20 / 19)
    assert design_effect(slow) > 2 * design_effect(alternating)


def test_students_quantile_is_wider_than_the_normal_one():
    drawn = random.Random(4)
    met = [drawn.random() < 0.9 for _ in range(400)]
    near = wilson(sum(met), 400)
    wider, _ = interval_of([series(met, [0.0] * 400)])
    assert wider.low < near.low
    assert wider.high > near.high
    assert interval_of([]) == (Interval(0.0, 1.0), 0.0)


def test_rare_tiers_around_a_usual_one_do_not_matter():
    rng = random.Random(4)

    def drawn(requests: int) -> Series:
        near = [rng.random() for _ in range(requests)]
        return series([each < 0.9 for each in near], near)

    assert 1.0 <= effect_of([drawn(20), drawn(2000), drawn(20)]) < 4.0
