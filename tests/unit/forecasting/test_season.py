"""How demand goes with the time of the day, where single slots know little of it."""

import json
import math
import random

import pytest

from headrace.forecasting.season import Season

DAY = 1440


def trembling_day(minute: int, rng: random.Random, kept: dict[int, float]) -> float:
    """A slow day, each ten minutes off by 7 % or so."""
    slot = minute // 10
    if slot not in kept:
        kept[slot] = math.exp(rng.gauss(0.0, 0.07))
    return 20.0 * math.exp(0.5 * math.sin(2 * math.pi * minute / DAY)) * kept[slot]


def followed(days: float, demand) -> Season:
    season = Season()
    for minute in range(int(days * DAY)):
        season.observe(minute, demand(minute))
    return season


@pytest.fixture(scope="module")
def trembling() -> Season:
    rng, kept = random.Random(5), {}
    return followed(6, lambda minute: trembling_day(minute, rng, kept))


def test_a_slow_day_is_known_although_each_slot_trembles(trembling):
    """What is expected of the next ten minutes, all day long, is off by half of it at most."""

    def rise(minute: int) -> float:
        begin, end = (0.5 * math.sin(2 * math.pi * at / DAY) for at in (minute, minute + 10))
        return max(end - begin, 0.0)

    minutes = range(0, DAY - 10, 10)
    off = [math.log(trembling.ratio(6 * DAY + each, 10)) - rise(each) for each in minutes]
    assert math.hypot(*off) < 0.5 * math.hypot(*map(rise, minutes))


def test_a_job_at_a_certain_minute_is_not_smoothed_away():
    season = followed(4, lambda minute: 40.0 if 120 <= minute % DAY < 150 else 10.0)
    assert season.ratio(4 * DAY + 115, 10) > 2.0
    assert season.ratio(4 * DAY + 60, 10) == pytest.approx(1.0, abs=0.05)


def test_the_usual_load_is_the_level_of_the_last_hours_as_the_day_goes_on():
    rng, kept = random.Random(6), {}
    minutes = 6 * DAY + 1200  # where the day rises fastest but one
    season = followed(minutes / DAY, lambda minute: trembling_day(minute, rng, kept))
    truth = 20.0 * math.exp(0.5 * math.sin(2 * math.pi * (minutes + 10) / DAY))
    assert season.usual(minutes - 1, 10) == pytest.approx(truth, rel=0.08)


def test_before_a_slot_is_complete_nothing_is_usual():
    assert followed(5 / DAY, lambda _: 10.0).usual(5, 5) is None
    assert followed(25 / DAY, lambda _: 10.0).usual(25, 5) == pytest.approx(10.0)


def test_it_goes_on_from_what_it_kept_and_from_what_an_earlier_one_kept(trembling):
    kept = json.loads(json.dumps(trembling.state()))
    after = Season()
    after.restore(kept)
    assert after.ratio(6 * DAY + 300, 10) == trembling.ratio(6 * DAY + 300, 10)
    assert after.usual(6 * DAY, 5) == trembling.usual(6 * DAY, 5)
    del kept["_recent"]
    earlier = kept | {"_both": kept["_both"][0], "_own": kept["_own"][0]}
    after.restore(earlier)
    assert after.usual(6 * DAY, 5) is None
    after.observe(6 * DAY, 20.0)
    assert after.ratio(6 * DAY + 300, 10) >= 1.0


def test_who_has_stopped_has_no_usual_load():
    def stopped(minute: int) -> float:
        return 10.0 if minute < 10 else 0.0

    assert followed(20 / DAY, stopped).usual(20, 5) == pytest.approx(10.0)
    assert followed(25 / DAY, stopped).usual(25, 5) is None
