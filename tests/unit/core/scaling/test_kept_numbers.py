"""Which numbers of a kept state are believed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.core.scaling.demand import MinuteLoad
from headrace.core.scaling.kept_numbers import AHEAD_S, impossible
from headrace.forecasting.learned_margin import LearnedMargin
from tests.unit.core.scaling.world import World, each_replica

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def kept() -> tuple[dict[str, Any], float]:
    """A state of some hours, and when it was kept."""
    world = lively(random.Random(1))
    world.run(2 * 3600.0)
    return state_of(world), world.now


def lively(rng: random.Random) -> World:
    """Demand that rises, falls and stops, with misses, restarts and marks of KV caches."""
    world = World(
        lambda now: max(0.0, 60.0 * rng.random() * (1.0 + (now % 7200.0) / 3600.0) - 20.0),
        gateways=2,
    )
    world.spoil = each_replica(kv_usage_ratio=0.4)
    return world


def state_of(world: World) -> dict[str, Any]:
    return json.loads(json.dumps(world.scaler.state()))


@pytest.mark.parametrize("seed", range(2))
def test_what_a_scaler_keeps_is_believed_whenever_it_is_kept(seed: int):
    world = lively(random.Random(seed))
    for _ in range(16):
        world.run(900.0)
        assert impossible(state_of(world), world.now) == ""
    assert impossible(state_of(world), world.now - DAY_S) == ""  # the clock was set back
    assert impossible(state_of(world), world.now + DAY_S) == ""


def test_what_large_fleets_have_summed_up_is_believed():
    forecast, load, minutes = LearnedMargin(), 400.0, 2 * 1440
    for minute in range(minutes):
        forecast.observe(MinuteLoad(60.0 * minute, load), 240.0)
    state = json.loads(json.dumps({"forecast": forecast.state()}))
    assert state["forecast"]["demand"] > 1e6  # and ten times that in weeks
    assert impossible(state, 60.0 * minutes) == ""
    tokens = 1000 * 100_000.0 * 365 * DAY_S  # of each of its engines, cached for the most part
    last = {"requests": 1e12, "input_tokens": tokens}
    assert impossible({"demand": {"gateways": {"g": {"last": last}}}}, 365 * DAY_S) == ""


@pytest.mark.parametrize("wrong", [1e308, -1e308, float("nan"), float("inf")])
def test_no_number_may_be_beyond_anything_measured(kept, wrong: float):
    state, now = kept
    places = list(numbers(state))
    assert len(places) > 200
    for place in random.Random(2).sample(places, 200):
        assert impossible(changed(state, place, wrong), now), place


@pytest.mark.parametrize(
    "place",
    [
        ("hysteresis", "number"),
        ("granted",),
        ("ready_before",),
        ("counts", 0, 1),
        ("hysteresis", "wishes", 0, 1),
        ("misses", "minutes", 0, 1),
        ("served", "usable"),
        ("served", "_known", 3),
        ("kv_marks", 0, 1),
        ("demand", "plain", "load"),
        ("demand", "plain", "requests_per_s"),
        ("demand", "gateways", "gateway-0", "last", "requests"),
        ("demand", "gateways", "gateway-0", "last", "lengths", 0, 3),
        ("forecast", "margin"),
        ("forecast", "highest"),
        ("forecast", "shadows", "restless", "missed", 2),
    ],
)
def test_what_counts_is_not_below_zero(kept, place):
    state, now = kept
    told = impossible(changed(state, place, -3.0), now)
    assert told.startswith(f"{'.'.join(map(str, place))} is -3.0, and can only be from ")


@pytest.mark.parametrize(
    "place",
    [
        ("hysteresis", "wishes", 0, 0),
        ("hysteresis", "minutes", 1, 0),
        ("counts", 0, 0),
        ("kv_marks", 0, 0),
        ("misses", "minutes", 0, 0),
        ("misses", "burnt_s"),
        ("misses", "seen_s", "gateway-0"),
        ("fits_since_s",),
        ("demand", "plain", "known_since_s"),
        ("demand", "plain", "_minute_begin_s"),
        ("demand", "gateways", "gateway-1", "true_at_s"),
        ("demand", "gateways", "gateway-1", "distrusted_s"),
        ("demand", "gateways", "gateway-1", "marks", 0, 0),
    ],
)
def test_a_time_that_is_still_to_come_is_no_time(kept, place):
    state, now = kept
    told = impossible(changed(state, place, now + 2 * DAY_S), now)
    assert told == (
        f"{'.'.join(map(str, place))} is {now + 2 * DAY_S!r}, a time that is still to come"
    )
    assert impossible(changed(state, place, now), now) == ""


def test_shares_and_starts_have_a_most_of_their_own(kept):
    state, now = kept
    assert impossible(changed(state, ("kv_marks", 0, 1), 1.5), now)
    assert impossible(changed(state, ("served", "usable"), 3.0), now)
    assert impossible({**state, "cold_starts_s": [240.0, 2 * DAY_S]}, now)
    assert impossible({**state, "orders": {"open": [[now + 2 * AHEAD_S, 0.0, True]]}}, now)
    assert not impossible({**state, "orders": {"open": [[now, 0.0, True]], "seen": ["r"]}}, now)


def test_what_is_no_number_is_not_judged():
    for state in ({}, {"demand": []}, {"granted": "seven"}, {"hysteresis": {"number": None}}):
        assert impossible(state, 100.0) == ""


Place = tuple[Any, ...]


def numbers(value: object, at: Place = ()) -> Iterator[Place]:
    """Where the numbers of a state are."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each, (*at, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from numbers(each, (*at, place))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at


def changed(state: dict[str, Any], place: Place, value: float) -> dict[str, Any]:
    """The state with another number there."""
    found: Any = (state := copy.deepcopy(state))
    for key in place[:-1]:
        found = found[key]
    found[place[-1]] = value
    return state
