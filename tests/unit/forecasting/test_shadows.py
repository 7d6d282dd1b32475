"""Margins judged by all that is known and by what is recent."""

import json
from dataclasses import replace

import pytest

from headrace.forecasting.shadows import Budget, Shadows

HORIZON = 5
LOAD = 10.4
BUDGET = Budget(mean_load=LOAD, target=0.009, allowed=0.009, contagion=0.7)


def played(jumps: range, minutes: int = 1440, height: float = 14.0) -> Shadows:
    """A center of 10 and a spread of 1 all the time; demand was 10.4, and `height` in `jumps`."""
    shadows = Shadows()
    for minute in range(minutes):
        shadows.score(height if minute in jumps else LOAD, known_minutes=minute)
        shadows.want(10.0, 10.0, 1.0, HORIZON)
    return shadows


def test_a_shortage_of_the_first_hour_is_not_held_for_all_day():
    early, late = played(range(60, 85)), played(range(1400, 1425))
    assert late.margin(BUDGET)[0] > 3.0
    assert early.margin(BUDGET)[0] < 1.5


def test_a_shortage_lately_is_no_reason_to_hold_what_was_never_worth_it():
    """A day in which half an hour took ten times the load: by what is recent, to cover that alone
    keeps within the target.
    """
    shadows = played(range(1380, 1410), height=100.0)
    assert shadows.margin(BUDGET)[0] < 2.0


def test_what_is_left_of_the_budget_is_not_spent_twice():
    """What is recent is judged by the target, whatever is left."""
    shadows = played(range(60, 85))
    saved = replace(BUDGET, allowed=2.0 * BUDGET.target)
    assert shadows.margin(saved)[0] == shadows.margin(BUDGET)[0] > 0.3


@pytest.mark.parametrize("jumps", [range(60, 85), range(1400, 1402)])
def test_an_overdrawn_budget_is_earned_back_by_both(jumps: range):
    """What is recent decides first, then all that is known."""
    shadows = played(jumps)
    assert shadows.margin(replace(BUDGET, allowed=0.0))[0] > shadows.margin(BUDGET)[0]


@pytest.mark.parametrize("horizon", [3, 10])
def test_both_are_told_as_with_another_cold_start(horizon: int):
    shadows = played(range(60, 85))
    before = shadows.state()
    shadows.look_to(horizon)
    after = shadows.state()
    longer = horizon / HORIZON
    assert after["missed"] == pytest.approx([longer * each for each in before["missed"]])
    assert after["recent"]["missed"] == pytest.approx(
        [longer * each for each in before["recent"]["missed"]]
    )


def test_they_go_on_from_what_they_kept():
    shadows, other = played(range(60, 85)), Shadows()
    other.restore(json.loads(json.dumps(shadows.state())))
    assert other.state() == shadows.state()


def test_in_a_file_of_before_all_that_is_known_is_recent():
    shadows = played(range(1400, 1425))
    kept = {
        name: value for name, value in shadows.state().items() if name not in {"demand", "recent"}
    }
    other = Shadows()
    other.restore(kept, demand=LOAD * 1440)
    assert other.state()["demand"] == other.state()["recent"]["demand"] == LOAD * 1440
    assert other.margin(BUDGET)[0] > 3.0
