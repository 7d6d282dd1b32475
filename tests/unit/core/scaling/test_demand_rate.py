"""How soon a change of the rate is known, and what only trembles is not one."""

from __future__ import annotations

import pytest

from tests.unit.core.scaling.world import TICK_S, World

CHANGE_S = 1_200.0


def load_after(world: World, seconds: float) -> float:
    outlook = world.run(seconds).plan.outlook
    assert outlook is not None
    return outlook.now


@pytest.mark.parametrize(("before", "after"), [(2.0, 4.0), (4.0, 2.0)])
def test_a_change_beyond_chance_is_known_in_full_long_before_a_cold_start_is_over(before, after):
    world = World(lambda now: before if now < CHANGE_S else after, replicas=4)
    usual = load_after(world, CHANGE_S)
    assert load_after(world, 60.0) == pytest.approx(usual * after / before, rel=0.02)


def test_one_look_with_a_few_requests_more_is_no_change():
    world = World(lambda now: 4.8 if now == CHANGE_S else 4.0, replicas=4)
    usual = load_after(world, CHANGE_S)
    assert load_after(world, TICK_S) == pytest.approx(usual, rel=0.02)
