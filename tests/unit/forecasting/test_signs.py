"""What is learned of minutes of the hour, where the cold start is another than it was."""

import random

import pytest

from headrace.forecasting.signs import Signs, moved

DAY = 1440
LOADS = [random.Random(minute // 10).uniform(5.0, 15.0) for minute in range(4 * DAY)]


def marks(*horizons: int) -> list[float]:
    """By minute of the hour, after a day of each horizon."""
    signs = Signs()
    found = [0.0] * 60
    for minute in range(len(horizons) * DAY):
        horizon = horizons[minute // DAY]
        signs.look_to(horizon)
        signs.observe(minute, LOADS[minute], horizon)
        found[minute % 60] = signs.mark
    return found


@pytest.mark.parametrize(("before", "after"), [(3, 5), (6, 4), (4, 4)])
def test_the_minutes_before_a_change_are_those_of_the_horizon_in_use(before: int, after: int):
    found = marks(before, before, after)
    early = [found[minute] for minute in range(60) if 0 < (-minute) % 10 <= after]
    late = [found[minute] for minute in range(60) if not 0 < (-minute) % 10 <= after]
    assert min(early) > 1.2
    assert max(late) < 0.7


def test_a_horizon_that_comes_and_goes_leaves_minutes_as_they_were():
    assert marks(4, 5, 4)[:60] == pytest.approx(marks(4, 4, 4), abs=0.35)


def test_minutes_without_habits_keep_their_own():
    same = [(2.0, 1.0)] * 60
    assert moved(same, 3, 5) == [*range(60)]
    assert moved(same, 5, 3) == [*range(60)]
    assert moved([(0.0, 0.0)] * 60, 1, 4) == [*range(60)]
