"""A pool at zero replicas: its requests wait at the gateway for the first one to be ready."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.events import Dispatch, Left, Reject, WakeAt
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from headrace.core.waiting import LOOK_S
from tests.unit.core.driver import POOL, Driver, only

TO_ZERO = replace(POOL, wait_for_replica_s=300.0)


def driver(spec: PoolSpec = TO_ZERO, *, max_held: int = 4096, ttl_s: float = 120.0) -> Driver:
    return Driver(
        spec,
        settings=DispatcherSettings(
            tiers=(Tier(ttl_s=ttl_s),), admission=AdmissionSettings(max_held=max_held)
        ),
    )


def held(core: Driver) -> int:
    return core.dispatcher.held.get("model", 0)


def names(effects) -> list[str]:
    return [each.request_id for each in effects if isinstance(each, Dispatch)]


def test_without_the_setting_a_request_is_refused_at_once():
    core = driver(POOL)
    assert core.rejected().status == 503
    assert core.dispatcher.fleet.pools["pool"].demand.shed_requests == 1


@pytest.mark.parametrize("profile", [POOL.profile, None], ids=["known", "not learned yet"])
def test_requests_are_held_and_go_out_when_a_replica_is_ready(profile):
    core = driver(replace(TO_ZERO, profile=profile))
    first = core.arrive(id="a")
    assert only(first, WakeAt).at_s == core.now + LOOK_S
    core.arrive(id="b")
    assert held(core) == 2
    core.wait(200.0)  # longer than the tier's ttl
    assert not names(core.wake())
    assert not names(core.add("r1", ready=False))
    assert names(core.add("r1")) == ["a", "b"]
    assert held(core) == 0


def test_what_waits_too_long_is_refused_and_no_earlier():
    core = driver()
    core.arrive(id="a")
    core.wait(299.0)
    assert not [each for each in core.wake() if isinstance(each, Reject)]
    core.wait(1.5)
    refused = only(core.wake(), Reject)
    assert (refused.status, refused.reason) == (503, "held_too_long")
    assert "within 300 s" in refused.message


def test_a_longer_ttl_of_the_tier_holds_here_too():
    core = driver(ttl_s=900.0)
    core.arrive(id="a")
    core.wait(600.0)
    assert not [each for each in core.wake() if isinstance(each, Reject)]


def test_no_more_are_held_than_may_be():
    core = driver(max_held=1)
    core.arrive(id="a")
    assert core.rejected(id="b").status == 429


def test_one_whose_client_leaves_is_forgotten():
    core = driver()
    core.arrive(id="a")
    core.send(Left("a"))
    assert held(core) == 0
    assert not names(core.add("r1"))


def test_when_the_last_replica_leaves_what_was_held_for_load_waits_on():
    core = driver()
    core.add("r1")
    attempts = [core.dispatched(prompt_tokens=200_000).attempt]
    core.arrive(id="held", prompt_tokens=100)
    assert held(core) == 1
    core.add("r1", draining=True)
    assert held(core) == 1
    core.first_token(attempts[0])
    assert held(core) == 1
    assert names(core.add("r2")) == ["held"]


def test_a_request_that_only_one_replica_can_answer_is_not_held():
    core = driver()
    assert core.rejected(replica="gone").status == 503


def test_many_that_were_held_all_go_out_in_time():
    core = driver(replace(TO_ZERO, profile=None))
    for number in range(40):
        core.arrive(id=f"r{number:02}", prompt_tokens=10)
    sent = names(core.add("replica"))
    while held(core):
        core.wait(LOOK_S)
        sent += names(core.wake())
    assert sent == [f"r{number:02}" for number in range(40)]
