"""What an HPA makes of wishes."""

import pytest

from headrace.simulator.scaling.actuation import DIRECT, Actuator, Behaviour, Policy


def play(behaviour, wishes, current, *, least=1, most=100, sync_s=15.0):
    """The numbers that follow from a wish at each sync."""
    actuator = Actuator(behaviour, least, most)
    numbers = []
    for place, wish in enumerate(wishes):
        current = actuator.number(wish, current, place * sync_s)
        numbers.append(current)
    return numbers


def test_the_tolerance_swallows_eleven_instead_of_ten():
    assert play(Behaviour(), [11, 9], 10) == [10, 10]
    assert play(Behaviour(), [12], 10) == [12]
    assert play(DIRECT, [11, 9], 10) == [11, 9]


def test_up_at_once_by_the_double_or_four_a_period():
    assert play(Behaviour(), [50, 50, 50], 2) == [6, 12, 24]


def test_down_only_to_the_highest_wish_of_five_minutes():
    wishes = [10, 4] + [2] * 25
    numbers = play(Behaviour(), wishes, 10)
    assert numbers[19] == 10  # at 285 s the wish of 10 is within the window
    assert numbers[20] == 4  # exactly a window old is out: Kubernetes keeps what is after its begin
    assert numbers[21] == 2


def test_nothing_goes_down_before_a_window_has_passed():
    # Kubernetes takes the number that it finds for its first recommendation.
    numbers = play(Behaviour(), [4] * 22, 10)
    assert numbers[:21] == [10] * 20 + [4]


def test_up_by_the_lowest_wish_of_the_up_window_the_first_number_too():
    patient = Behaviour(up_window_s=30.0)
    assert play(patient, [20, 15, 20, 20, 20], 10) == [10, 10, 15, 20, 20]


def test_a_fall_in_the_period_is_room_for_a_rise():
    # Down by 6 at 15 s: up to 10 + 4 in the 60 s after, not to 4 + 4.
    mixed = Behaviour(0.0, 0.0, 0.0, (Policy("pods", 4, 60),), (Policy("percent", 100, 60),))
    assert play(mixed, [10, 4, 40, 40], 10) == [10, 4, 14, 14]


def test_pods_a_period_bound_both_ways():
    slow = Behaviour(0.0, 0.0, 0.0, (Policy("pods", 1, 60),), (Policy("pods", 1, 120),))
    assert play(slow, [9] * 9, 2) == [3, 3, 3, 3, 4, 4, 4, 4, 5]
    assert play(slow, [1] * 10, 5) == [4, 4, 4, 4, 4, 4, 4, 4, 3, 3]


@pytest.mark.parametrize(("wish", "number"), [(0, 2), (99, 8)])
def test_never_beyond_the_bounds(wish, number):
    assert play(DIRECT, [wish], 4, least=2, most=8) == [number]
