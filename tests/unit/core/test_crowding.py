"""How many streams of a replica are too slow."""

from __future__ import annotations

from math import inf

import pytest

from headrace.core.crowding import LATE_HARMLESS, busy_share, crowded, risk
from headrace.core.model import Replica
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import PROFILE, Driver


def replica_with(streams: int, prompt_tokens: int = 1000) -> tuple[Driver, Replica]:
    """One that has just been sent so many."""
    driver = Driver(PoolSpec("pool", "model", policy="round_robin", profile=PROFILE))
    driver.add("a", pool="pool")
    for _ in range(streams):
        driver.dispatched(prompt_tokens=prompt_tokens)
    return driver, driver.replica("a")


def count(driver: Driver, replica: Replica, tpot_s: float, target_s: float = 0.05) -> float:
    return crowded(replica, tpot_s=tpot_s, target_s=target_s, context_tokens=1000.0, now=driver.now)


@pytest.mark.parametrize("share", [1e2, 1e3, 1e30, 1e40, 1e300, inf])
def test_what_takes_far_too_long_is_missed_for_sure(share: float):
    assert risk(share) == pytest.approx(1.0)


def test_an_idle_replica_is_not_busy():
    driver, replica = replica_with(0)
    assert busy_share(replica, driver.now) == 0.0
    assert count(driver, replica, 1.0) == 0.0


def test_prefills_are_forgotten():
    driver, replica = replica_with(10)
    at_first = busy_share(replica, driver.now)
    driver.now += 2 * replica.pool.recent_s
    assert 0.0 < busy_share(replica, driver.now) < 0.2 * at_first <= 0.9


def test_nobody_is_too_slow_within_the_target():
    driver, replica = replica_with(10)
    left = 1.0 - busy_share(replica, driver.now)
    assert count(driver, replica, 0.04 * left) == 0.0
    assert 4.0 < count(driver, replica, 0.05 * left) < count(driver, replica, 0.06 * left) < 10.0


def test_what_is_missed_alone_is_not_for_the_company():
    driver, replica = replica_with(10)
    alone_s = PROFILE.per_step_s + PROFILE.per_sequence_s + 1000 * PROFILE.per_kv_token_s
    left = 1.0 - busy_share(replica, driver.now)
    in_company = count(driver, replica, 0.05 * left)
    assert count(driver, replica, alone_s * left, target_s=alone_s) < 0.5 * in_company
    assert count(driver, replica, alone_s * left, target_s=alone_s / 9) == pytest.approx(0, abs=0.1)


def test_who_is_late_already_counts_less():
    """A stream whose first token was late has no place in goodput to lose, but a reader."""
    driver, replica = replica_with(10)
    left = 1.0 - busy_share(replica, driver.now)
    in_time = count(driver, replica, 0.06 * left)
    driver.wait(2.1)
    for attempt in range(1, 6):
        driver.first_token(attempt)
    left = 1.0 - busy_share(replica, driver.now)
    assert replica.late_decoding == 5
    assert count(driver, replica, 0.06 * left) == pytest.approx(
        (1.0 - 0.5 * LATE_HARMLESS) * in_time
    )
