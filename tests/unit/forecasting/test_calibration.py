"""What shadows say is held against what was really missed."""

import json

import pytest

from headrace.forecasting.calibration import (
    LEAST,
    MOST,
    MOST_PACE,
    Calibration,
)

TARGET, LOAD, HORIZON = 0.009, 10.0, 5


def told(measured_share: float, minutes: int = 1440, wanted: float = 9.0) -> Calibration:
    """A shortage of a tenth in one minute of ten, of which so much was measured."""
    calibration = Calibration()
    for minute in range(minutes):
        short = minute % 10 == 0
        calibration.want(wanted if short else 20.0, 1)
        calibration.observe(LOAD, measured_share if short else 0.0, 0.0, 1.0)
    return calibration


def test_before_anything_is_known_shadows_are_believed():
    assert Calibration().factor(LOAD, TARGET) == 1.0


@pytest.mark.parametrize(("share", "low", "high"), [(0.1, 0.95, 1.05), (0.07, 0.7, 0.85)])
def test_the_factor_goes_to_measured_over_said(share, low, high):
    assert low < told(share).factor(LOAD, TARGET) < high


def test_it_is_not_believed_to_be_off_by_more():
    assert told(0.0).factor(LOAD, TARGET) == LEAST
    assert told(1.0).factor(LOAD, TARGET) == MOST


def test_minutes_that_nobody_measured_say_nothing():
    calibration = Calibration()
    calibration.want(5.0, HORIZON)
    calibration.observe(LOAD, None, 1.0, 1.0)
    assert calibration.factor(LOAD, TARGET) == 1.0


def test_it_goes_on_from_what_it_kept():
    before, after = told(0.05), Calibration()
    after.restore(json.loads(json.dumps(before.state())))
    assert after.factor(LOAD, TARGET) == before.factor(LOAD, TARGET)


def spent(share: float, minutes: int = 1440) -> Calibration:
    """So many minutes of which that share was missed, for whatever reason."""
    return told(10.0 * share, minutes)


def test_before_anything_was_judged_the_target_may_be_missed():
    assert Calibration().allowed(LOAD, TARGET) == TARGET


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0, 1.2])
def test_what_is_left_of_the_error_budget_is_spent_and_what_is_overdrawn_earned_back(share):
    """In as long as it was saved in, so that the whole comes to the target."""
    allowed = spent(share * TARGET, 600).allowed(LOAD, TARGET)
    assert (allowed + share * TARGET) / 2 == pytest.approx(TARGET, rel=0.01)


def test_a_first_minute_without_a_miss_does_not_double_what_may_be_missed():
    """It tells next to nothing of the hours to come; nor does an hour of them."""
    assert spent(0.0, 1).allowed(LOAD, TARGET) < 1.01 * TARGET
    assert spent(0.0, 60).allowed(LOAD, TARGET) < 1.2 * TARGET


def test_not_all_that_was_saved_in_a_week_is_spent_in_an_hour():
    assert spent(0.0, 7 * 1440).allowed(LOAD, TARGET) == MOST_PACE * TARGET
    assert spent(0.95 * TARGET, 7 * 1440).allowed(LOAD, TARGET) < 1.4 * TARGET


def test_while_more_was_missed_than_can_be_earned_back_nothing_more_may_be():
    assert 0.3 * TARGET < spent(1.6 * TARGET, 600).allowed(LOAD, TARGET) < 0.5 * TARGET
    assert spent(3.0 * TARGET, 600).allowed(LOAD, TARGET) == 0.0
    assert spent(0.5, 7 * 1440).allowed(LOAD, TARGET) == 0.0


def test_what_was_overdrawn_over_days_is_earned_back_over_days():
    assert 0.4 * TARGET < spent(1.5 * TARGET, 4 * 1440).allowed(LOAD, TARGET) < 0.6 * TARGET


def test_what_is_unspent_is_nothing_while_below_the_goal_and_all_where_nothing_is_missed():
    assert Calibration().unspent(LOAD, TARGET) == 0.0
    assert spent(1.5 * TARGET, 600).unspent(LOAD, TARGET) == 0.0
    assert spent(0.6 * TARGET, 600).unspent(LOAD, TARGET) == pytest.approx(0.4, rel=0.02)
    assert spent(0.0, 600).unspent(LOAD, TARGET) == 1.0


def test_a_file_of_before_the_budget_was_kept_has_none_left_over():
    state = spent(0.0).state()
    state["sums"] = state["sums"][:2]
    calibration = Calibration()
    calibration.restore(state)
    assert calibration.allowed(LOAD, TARGET) == TARGET
