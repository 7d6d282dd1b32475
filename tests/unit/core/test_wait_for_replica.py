"""A pool at zero replicas: its requests wait at the gateway for the first one to be ready."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.events import Dispatch, Effect, Ended, Left, Probe, Reject, WakeAt
from headrace.core.model import Outcome, ReplicaState
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from headrace.core.waiting import LOOK_S, LOOKED_AT
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


def test_who_waited_in_vain_comes_again_as_who_was_not_held():
    core = driver()
    core.arrive(id="a")
    core.wait(301.0)
    told_s = only(core.wake(), Reject).retry_after_s
    assert told_s == DispatcherSettings().retry_after_s == driver(POOL).rejected().retry_after_s


def test_one_that_no_replica_came_for_is_told_so_and_by_which_settings():
    core = driver()
    core.arrive(id="a")
    core.wait(300.5)
    told = only(core.wake(), Reject).message
    assert told.startswith("no replica of model 'model' was ready within 300 s")
    assert "wait_for_replica" in told
    assert "tiers.ttl" in told


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


# ---------------------------------------------------------------- whose replica is gone


def lost(core: Driver, **details) -> Dispatch:
    """A request whose only replica gives no answer, twice; its last attempt."""
    dispatch = core.dispatched(**details)
    again = only(core.fail(dispatch.attempt), Dispatch)
    assert again.replica == dispatch.replica
    return again


def test_a_request_whose_replica_is_gone_is_held_for_the_next_one():
    core = driver()
    core.add("r1")
    again = lost(core, id="a")
    assert only(core.fail(again.attempt), Probe).replica == "r1"
    assert held(core) == 1
    assert core.replica("r1").in_flight == 0
    core.probed("r1", healthy=False)
    core.gone("r1")
    core.wait(200.0)
    assert not names(core.wake())
    assert names(core.add("r2")) == ["a"]
    demand = core.dispatcher.fleet.pools["pool"].demand
    assert (demand.requests, demand.judged, demand.other_misses) == (1, 0, 0)


def test_it_goes_to_the_same_one_once_that_is_well_and_is_given_up_if_it_fails_it_then():
    core = driver()
    core.add("r1")
    core.fail(lost(core, id="a").attempt)
    core.wait(1.0)
    assert not names(core.wake())
    effects = core.probed("r1", healthy=True)
    assert names(effects) == ["a"]
    attempt = only(effects, Dispatch).attempt
    refused = only(core.fail(attempt), Reject)
    assert (refused.status, refused.reason) == (502, "upstream_unavailable")
    assert held(core) == 0


def test_a_probe_whose_answer_is_lost_is_repeated():
    core = driver()
    core.add("r1")
    core.fail(lost(core, id="a").attempt)
    core.wait(0.9)
    assert not [each for each in core.wake() if isinstance(each, Probe)]
    core.wait(0.2)
    assert only(core.wake(), Probe).replica == "r1"
    assert names(core.probed("r1", healthy=True)) == ["a"]
    core.wait(60.0)
    assert not [each for each in core.wake() if isinstance(each, Probe)]


def test_one_that_its_health_checks_find_ill_is_not_probed_as_well():
    core = driver()
    core.add("r1")
    core.fail(lost(core, id="a").attempt)
    core.add("r1", ready=False)
    for _ in range(3):
        core.wait(2.0)
        assert not [each for each in core.wake() if isinstance(each, Probe)]
    assert names(core.add("r1")) == ["a"]


def test_the_first_token_of_another_request_tells_that_it_is_there():
    core = driver()
    core.add("r1")
    other = core.dispatched(id="other", prompt_tokens=10)
    core.fail(lost(core, id="a", prompt_tokens=10).attempt)
    assert core.replica("r1").suspect
    assert names(core.first_token(other.attempt)) == ["a"]
    assert not core.replica("r1").suspect


def test_so_does_its_refusal_of_another_request():
    core = driver()
    core.add("r1")
    other = core.dispatched(id="other", prompt_tokens=10)
    core.fail(lost(core, id="a", prompt_tokens=10).attempt)
    refusal = Ended(other.attempt, Outcome.REFUSED, None, 0, 400)
    assert names(core.send(refusal)) == ["a"]


def test_one_that_was_restarted_under_its_name_takes_it():
    core = driver()
    core.add("r1")
    core.fail(lost(core, id="a").attempt)
    core.add("r1", ready=False)
    assert names(core.add("r1")) == ["a"]


def test_one_that_the_probe_finds_ill_is_taken_out_and_probed_back():
    core = driver()
    core.add("r1")
    core.fail(lost(core, id="a").attempt)
    assert not names(core.probed("r1", healthy=False))
    assert core.replica("r1").state is ReplicaState.EJECTED
    core.wait(2.0)
    assert only(core.wake(), Probe).replica == "r1"
    assert names(core.probed("r1", healthy=True)) == ["a"]


def test_what_was_sent_and_lost_waits_no_longer_than_one_that_never_was():
    core = driver()
    core.add("r1")
    core.fail(lost(core, id="a").attempt)
    core.gone("r1")
    core.wait(301.0)
    refused = only(core.wake(), Reject)
    assert (refused.status, refused.reason) == (503, "held_too_long")


def test_one_that_leaves_while_it_is_held_again_is_forgotten():
    core = driver()
    core.add("r1")
    core.fail(lost(core, id="a").attempt)
    core.send(Left("a"))
    core.gone("r1")
    assert held(core) == 0
    assert not names(core.add("r2"))


def test_an_answer_of_a_replica_that_is_there_is_no_reason_to_wait():
    core = driver()
    core.add("r1")
    dispatch = core.dispatched(id="a")
    refused = only(core.fail(dispatch.attempt, status=500), Reject)
    assert refused.passes_answer
    assert held(core) == 0


def test_one_that_was_stopped_with_its_requests_unanswered_has_them_held():
    core = driver()
    core.add("r1")
    dispatch = core.dispatched(id="a")
    core.add("r1", draining=True)
    assert not [
        each for each in core.fail(dispatch.attempt, status=503) if isinstance(each, Reject)
    ]
    assert names(core.add("r2")) == ["a"]


def test_with_a_sibling_there_nobody_waits():
    core = driver()
    core.add("r1", "r2")
    attempt = core.dispatched(id="a").attempt
    for _ in range(2):
        attempt = only(core.fail(attempt), Dispatch).attempt
    assert only(core.fail(attempt), Reject).status == 502
    assert held(core) == 0


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_where_all_are_gone_before_it_is_sent_it_waits_however_many_they_were(replicas: int):
    """Who was never reached cannot have failed by the request."""
    core = driver()
    core.add(*[f"r{number}" for number in range(replicas)])
    effects: list[Effect] = [core.dispatched(id="a")]
    while names(effects):
        effects = core.fail(only(effects, Dispatch).attempt, reached=False)
    assert not [each for each in effects if isinstance(each, Reject)]
    assert held(core) == 1
    assert names(core.add("next")) == ["a"]


def test_many_that_lose_their_replica_at_once_are_all_held_whatever_retries_there_were():
    core = driver()
    core.add("r1")
    sent = [core.dispatched(id=f"r{number:02}", prompt_tokens=10) for number in range(40)]
    for dispatch in sent:
        effects = core.fail(dispatch.attempt)
        for again in [each for each in effects if isinstance(each, Dispatch)]:
            effects = core.fail(again.attempt)
        assert not [each for each in effects if isinstance(each, Reject)]
    assert held(core) == 40
    core.gone("r1")
    got = names(core.add("r2"))
    while held(core):
        core.wait(LOOK_S)
        got += names(core.wake())
    assert sorted(got) == [f"r{number:02}" for number in range(40)]


def test_no_more_are_held_again_than_may_be():
    core = driver(max_held=1)
    core.add("r1")
    attempts = [lost(core, id=each).attempt for each in ("a", "b")]
    core.fail(attempts[0])
    assert only(core.fail(attempts[1]), Reject).status == 429


def test_where_the_pool_does_not_wait_it_is_given_up_at_once():
    core = driver(POOL)
    core.add("r1")
    assert only(core.fail(lost(core).attempt), Reject).status == 502


def test_who_waited_for_room_waits_for_the_next_replica_as_long_as_who_comes_then():
    core = driver()
    core.add("r1")
    ids = [f"r{number:02}" for number in range(12)]
    sent = [each for name in ids for each in core.arrive(id=name, prompt_tokens=20_000)]
    attempts = [each.attempt for each in sent if isinstance(each, Dispatch)]
    assert held(core) > LOOKED_AT
    core.gone("r1")
    for attempt in attempts:
        core.fail(attempt)
    core.wait(200.0)  # longer than the tier's ttl
    assert not [each for each in core.wake() if isinstance(each, Reject)]
    core.wait(101.0)
    late = [each.reason for each in core.wake() if isinstance(each, Reject)]
    assert late == ["held_too_long"] * len(ids)


def test_while_a_replica_is_there_nobody_waits_longer_than_his_tier_says():
    core = driver()
    core.add("r1")
    for number in range(12):
        core.arrive(id=f"r{number:02}", prompt_tokens=20_000)
    waiting = held(core)
    core.wait(121.0)
    late = [each for each in core.wake() if isinstance(each, Reject | Dispatch)]
    assert len(late) == waiting
    assert {type(each) for each in late[LOOKED_AT:]} == {Reject}


def test_what_has_taken_longer_than_it_may_wait_is_told_what_failed_it():
    core = driver()
    core.add("r1")
    attempt = core.dispatched(id="a").attempt
    core.wait(200.0)
    attempt = only(core.fail(attempt, Outcome.TIMED_OUT), Dispatch).attempt
    core.wait(200.0)
    refused = only(core.fail(attempt, Outcome.TIMED_OUT), Reject)
    assert (refused.status, refused.reason) == (504, "upstream_timeout")
    assert held(core) == 0
