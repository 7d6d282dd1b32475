"""What demand goes back to, and how far."""

import json
import random

import pytest

from headrace.forecasting.reversion import Reversion

HORIZON, DAY = 5, 1440


def learned(loads: list[float], usual: float = 10.0) -> Reversion:
    reversion = Reversion()
    for minute, load in enumerate(loads):
        reversion.observe(minute, load, usual - load, HORIZON)
    return reversion


def trembling(minutes: int, every: int) -> list[float]:
    rng = random.Random(every)
    levels = [10.0 + rng.gauss(0.0, 1.0) for _ in range(minutes // every + 1)]
    return [levels[minute // every] for minute in range(minutes)]


def test_before_anything_is_known_nothing_goes_back():
    assert Reversion().share(0) == 0.0
    early = learned(trembling(60, 1))
    assert sum(early.share(minute) for minute in range(60)) / 60 < 0.3


def test_what_trembles_about_its_level_goes_back_at_once():
    assert learned(trembling(3 * DAY, 1)).share(17) > 0.85


def test_what_moves_on_the_ten_minutes_goes_back_before_them_and_stays_behind_them():
    reversion = learned(trembling(4 * DAY, 10))
    assert min(reversion.share(minute) for minute in (5, 18, 39)) > 0.6
    assert max(reversion.share(minute) for minute in (1, 13, 34)) < 0.2


def test_a_random_walk_never_goes_back():
    rng = random.Random(3)
    load, loads = 10.0, []
    for _ in range(3 * DAY):
        load = max(load + rng.gauss(0.0, 0.1), 1.0)
        loads.append(load)
    hour_ago = [loads[max(minute - 60, 0)] for minute in range(len(loads))]
    reversion = Reversion()
    for minute, (now, usual) in enumerate(zip(loads, hour_ago, strict=True)):
        reversion.observe(minute, now, usual - now, HORIZON)
    assert sum(reversion.share(minute) for minute in range(60)) / 60 < 0.1


def test_a_gap_makes_no_neighbours():
    reversion = learned([20.0] * HORIZON)
    reversion.gap()
    reversion.observe(5000, 10.0, 0.0, HORIZON)
    assert reversion.share(0) == 0.0


def test_it_goes_on_from_what_it_kept():
    before, after = learned(trembling(DAY, 10)), Reversion()
    after.restore(json.loads(json.dumps(before.state())))
    for minute in range(DAY, DAY + 30):
        for each in (before, after):
            each.observe(minute, 12.0 + minute % 3, -2.0, HORIZON)
    assert after.share(7) == before.share(7) == pytest.approx(before.share(7))
