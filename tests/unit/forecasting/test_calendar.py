from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from headrace.forecasting.calendar import CalendarEntry, floors

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = CalendarEntry(
    start="0 8 * * 1-5", end="0 18 * * 1-5", replicas=12, timezone="Europe/Berlin", name="office"
)


def at(*when: int) -> float:
    return datetime(*when, tzinfo=BERLIN).timestamp()


def test_an_interval_that_holds_and_the_next_one():
    now = at(2026, 11, 25, 9, 30)  # a Wednesday
    today, tomorrow = floors([OFFICE], now, 86_400.0)
    assert (today.begins_s, today.ends_s) == (at(2026, 11, 25, 8), at(2026, 11, 25, 18))
    assert tomorrow.begins_s == at(2026, 11, 26, 8)
    assert (today.replicas, today.name) == (12, "office")


def test_nothing_at_the_weekend_until_monday_is_near():
    saturday = at(2026, 11, 28, 12)
    assert floors([OFFICE], saturday, 3600.0) == ()
    assert len(floors([OFFICE], saturday, 2 * 86_400.0)) == 1


def test_the_clock_on_the_wall_counts_when_clocks_change():
    before, after = at(2026, 3, 27, 7), at(2026, 3, 30, 7)
    [friday, *_] = floors([OFFICE], before, 7200.0)
    [monday, *_] = floors([OFFICE], after, 7200.0)
    # Three days of 24 h less the hour that Sunday lost.
    assert monday.begins_s - friday.begins_s == 3 * 86_400 - 3600


SPRING, AUTUMN = (2027, 3, 28), (2026, 10, 25)
"""At two o'clock it is three; at three it is two again."""


@pytest.mark.parametrize(
    ("start", "end", "day", "hours"),
    [
        ("30 2 * * *", "0 3 * * *", SPRING, 0.0),  # what there is not is left out, not a day long
        ("30 2 * * *", "45 2 * * *", SPRING, 0.0),
        ("0 1 * * *", "30 2 * * *", SPRING, 1.0),
        ("30 2 * * *", "30 4 * * *", SPRING, 1.5),
        ("0 3 * * *", "30 4 * * *", SPRING, 1.5),
        ("30 2 * * *", "0 3 * * *", AUTUMN, 1.5),
        ("30 2 * * *", "45 2 * * *", AUTUMN, 0.25),
        ("30 2 * * *", "30 4 * * *", AUTUMN, 3.0),
    ],
)
def test_an_interval_about_the_hour_that_there_is_not_or_is_twice(start, end, day, hours):
    entry = CalendarEntry(start=start, end=end, replicas=3, timezone="Europe/Berlin")
    begin, finish = at(*day), at(*day, 12)
    for now in (begin - 3600.0, begin + 3600.0, finish):  # before, shortly before, and behind it
        held = [
            min(floor.ends_s, finish) - max(floor.begins_s, begin)
            for floor in floors([entry], now, 6 * 3600.0)
            if floor.ends_s > begin and floor.begins_s < finish
        ]
        assert sum(held) / 3600.0 == (hours if now < finish else 0.0)


def test_an_interval_may_last_over_the_weekend():
    quiet = CalendarEntry(start="0 20 * * 5", end="0 6 * * 1", replicas=2)
    [weekend] = floors([quiet], datetime(2026, 11, 29, tzinfo=ZoneInfo("UTC")).timestamp(), 60.0)
    assert weekend.ends_s - weekend.begins_s == (4 + 48 + 6) * 3600


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": "0 25 * * *"}, "start is '0 25 \\* \\* \\*'"),
        ({"end": "daily"}, "give five fields"),
        ({"start": "0 0 8 * * *"}, "Wrong number of fields; give five fields"),
        ({"timezone": "Mars/Olympus"}, "timezone is 'Mars/Olympus'"),
        ({"replicas": 0}, "replicas is 0"),
    ],
)
def test_what_is_no_calendar_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CalendarEntry(**{"start": "0 8 * * *", "end": "0 9 * * *", "replicas": 1, **fields})


def test_an_interval_of_weeks_holds_to_its_end():
    season = CalendarEntry(start="0 0 1 12 *", end="0 0 1 1 *", replicas=8)
    utc = ZoneInfo("UTC")
    [december] = floors([season], datetime(2026, 12, 20, 10, tzinfo=utc).timestamp(), 86_400.0)
    assert december.begins_s == datetime(2026, 12, 1, tzinfo=utc).timestamp()
    assert december.ends_s == datetime(2027, 1, 1, tzinfo=utc).timestamp()


def test_a_start_of_every_minute_is_one_interval():
    busy = CalendarEntry(start="* 8-17 * * *", end="0 18 * * *", replicas=4, timezone=str(BERLIN))
    today, tomorrow = floors([busy], at(2026, 11, 26, 10, 5), 86_400.0)
    assert (today.begins_s, today.ends_s) == (at(2026, 11, 26, 10, 5), at(2026, 11, 26, 18))
    assert (tomorrow.begins_s, tomorrow.ends_s) == (at(2026, 11, 27, 8), at(2026, 11, 27, 18))


@pytest.mark.parametrize(
    ("hour", "holding"), [((7, 59, 59), 0), ((8,), 1), ((17, 59, 59), 1), ((18,), 0)]
)
def test_an_interval_holds_from_its_start_to_before_its_end(hour, holding):
    assert len(floors([OFFICE], at(2026, 11, 26, *hour), 0.0)) == holding
