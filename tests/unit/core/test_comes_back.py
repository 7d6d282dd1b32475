"""How soon an ejected replica is used again: one that restarted soon, one that flaps ever later."""

from __future__ import annotations

import pytest

from headrace.core.events import Probe
from headrace.core.health import EjectionSettings
from headrace.core.model import ReplicaState
from tests.unit.core.driver import Driver

EJECTION = EjectionSettings()
STEP_S = 0.125


def ejected() -> Driver:
    driver = Driver()
    driver.add("a", "b")
    break_down(driver)
    return driver


def break_down(driver: Driver) -> None:
    """Requests meet an `a` that gives no answer until it is taken out."""
    for _ in range(20):
        first = driver.dispatched()
        if first.replica == "a":
            driver.fail(first.attempt)
        else:
            driver.complete(first.attempt)
    assert driver.replica("a").state is ReplicaState.EJECTED


def waited_s(driver: Driver, down_s: float) -> float:
    """Until it is used again, whose probes are answered after `down_s`."""
    begin_s = driver.now
    while driver.replica("a").state is ReplicaState.EJECTED:
        driver.wait(STEP_S)
        if any(isinstance(effect, Probe) for effect in driver.wake()):
            driver.probed("a", driver.now - begin_s >= down_s)
    return driver.now - begin_s


@pytest.mark.parametrize("down_s", [0.5, 2.0, 5.0, 6.5, 20.0, 50.0])
def test_one_that_served_before_waits_no_longer_than_it_was_away(down_s: float):
    assert waited_s(ejected(), down_s) - down_s <= down_s + EJECTION.backoff_s


def test_one_that_answers_its_probes_and_no_request_waits_ever_longer():
    driver = ejected()
    waits = [waited_s(driver, 0.0)]
    for _ in range(8):
        break_down(driver)
        waits.append(waited_s(driver, 0.0))
    assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0], abs=STEP_S)


def test_a_request_that_it_serves_ends_the_long_waits():
    driver = ejected()
    for _ in range(8):
        waited_s(driver, 0.0)
        break_down(driver)
    waited_s(driver, 0.0)
    while driver.serve() != "a":
        pass
    break_down(driver)
    assert waited_s(driver, 0.0) == pytest.approx(EJECTION.backoff_s, abs=STEP_S)
