"""The reckoned capacity, corrected by what was really missed."""

import json

import pytest

from headrace.core.scaling.served_curve import ServedCurve

ALLOWED = 0.01


def taught(cliff: float, uses: list[float], rounds: int = 60) -> ServedCurve:
    """A curve of replicas that miss nothing below `cliff` and half of everything above."""
    curve = ServedCurve()
    for _ in range(rounds):
        for use in uses:
            for _ in range(5):
                curve.observe(use, 0.5 if use > cliff else 0.0, 10, ALLOWED)
    return curve


def test_until_something_is_missed_the_reckoning_stands():
    assert ServedCurve().usable == 1.0
    assert taught(2.0, [0.6, 0.7, 0.8]).usable == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("cliff", [0.78, 0.88])
def test_misses_below_a_full_replica_lower_what_is_usable(cliff):
    curve = taught(cliff, [0.65, 0.72, 0.76, 0.83, 0.87, 0.93])
    assert cliff - 0.1 <= curve.usable <= cliff + 0.03


def test_replicas_that_carry_more_than_reckoned_are_used_for_more():
    curve = ServedCurve()
    for use in [0.9, 0.97, 1.02, 1.07, 1.12] * 400:
        curve.observe(use, 0.001, 10, ALLOWED)
        for _ in range(3):  # what comes behind a use above 1 is not believed
            curve.observe(0.6, 0.0, 10, ALLOWED)
    assert curve.usable > 1.05


def test_minutes_with_changes_and_behind_a_shortage_tell_nothing():
    curve = ServedCurve()
    for number in range(200):
        curve.observe(0.8, 0.9, number, ALLOWED)
    assert curve.usable == 1.0
    for _ in range(200):
        curve.observe(1.3, 1.0, 10, ALLOWED)
        curve.observe(0.8, 0.9, 10, ALLOWED)
    assert curve.usable > 0.95


def test_it_is_bounded_and_goes_on_from_what_it_kept():
    curve = taught(0.0, [0.55, 0.65])
    assert curve.usable == 0.7
    other = ServedCurve()
    other.restore(json.loads(json.dumps(curve.state())))
    assert other.state() == curve.state()
