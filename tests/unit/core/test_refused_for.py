"""Behind an alias, who is refused is counted under the model that has no room for him."""

from __future__ import annotations

from typing import Any

from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.events import ConfigChanged, Reject, RejectReason
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Target
from tests.unit.core.driver import Driver, only
from tests.unit.core.test_admission import PLAIN, POOL, SECOND, fleet, hold

GONE = PoolSpec("gone-pool", "gone", profile=PLAIN)
FALLING_BACK = Alias("chat", (Target("gone"),), fallbacks=("model",))


def falling_back(**details: Any) -> Driver:
    """Nobody serves what the alias stands for, and its fall-back is full."""
    driver = fleet("a", pools=(GONE, POOL), aliases=(FALLING_BACK,), **details)
    driver.dispatched(prompt_tokens=SECOND)
    return driver


def test_who_waits_in_vain_is_refused_for_the_model_that_he_waits_for():
    driver = falling_back(tier=Tier(ttl_s=0.3))
    hold(driver, "x", model="chat")
    driver.wait(0.4)
    reject = only(driver.wake(), Reject)
    assert (reject.reason, reject.model) == (RejectReason.HELD_TOO_LONG, "model")


def test_who_is_not_held_is_refused_for_the_model_that_he_would_wait_for():
    driver = falling_back(admission=AdmissionSettings(max_held=1))
    hold(driver, "x", model="chat")
    reject = only(driver.arrive("chat", id="y", prompt_tokens=100), Reject)
    assert (reject.reason, reject.model) == (RejectReason.OVERLOADED, "model")


def test_who_makes_room_is_refused_for_the_model_that_he_waits_for():
    tiers = (Tier(), Tier("high", priority=1))
    settings = DispatcherSettings(tiers=tiers, admission=AdmissionSettings(max_held=1))
    driver = falling_back()
    driver.send(ConfigChanged((GONE, POOL), (FALLING_BACK,), settings))
    hold(driver, "x", model="chat")
    effects = driver.arrive("chat", id="y", prompt_tokens=100, tier="high")
    reject = only(effects, Reject)
    assert (reject.request_id, reject.model) == ("x", "model")


def test_whose_wait_is_too_long_is_refused_for_the_model_that_has_it():
    driver = falling_back(tier=Tier(ttft_s=0.1, shed_after_factor=1.0))
    reject = only(driver.arrive("chat", id="x", prompt_tokens=100), Reject)
    assert (reject.reason, reject.model) == (RejectReason.OVERLOADED, "model")
