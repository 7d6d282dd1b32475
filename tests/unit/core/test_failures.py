"""Retries, ejection and expiry."""

import pytest

from headrace.core.events import Dispatch, Probe, Reject, RejectReason, ReplicaChanged, WakeAt
from headrace.core.health import LONE_BLAME_S, EjectionSettings
from headrace.core.model import Endpoint, Outcome, ReplicaState
from headrace.core.retries import RetryBudget, RetrySettings
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Target
from tests.unit.core.driver import POOL, PROFILE, Driver, only


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.add("a", "b", "c")
    return driver


def alone() -> Driver:
    driver = Driver()
    driver.add("a")
    return driver


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.TIMED_OUT])
def test_a_failed_attempt_is_tried_elsewhere(driver, outcome):
    first = driver.dispatched()
    second = only(driver.fail(first.attempt, outcome), Dispatch)
    assert second.request_id == first.request_id
    assert second.attempt > first.attempt
    assert second.replica != first.replica


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.ABORTED, Outcome.REFUSED])
def test_what_reached_the_client_is_not_tried_again(driver, outcome):
    effects = driver.fail(driver.dispatched().attempt, outcome)
    assert not [effect for effect in effects if isinstance(effect, Dispatch | Reject)]


def test_nothing_is_tried_again_after_the_first_token(driver):
    attempt = driver.dispatched().attempt
    driver.first_token(attempt)
    assert driver.fail(attempt, Outcome.TIMED_OUT) == []


def test_events_of_a_finished_attempt_do_nothing(driver):
    attempt = driver.dispatched().attempt
    driver.complete(attempt)
    assert driver.fail(attempt) == []
    driver.first_token(attempt)
    driver.progress(attempt, 10)
    assert driver.complete(attempt) == []
    assert driver.complete(999) == []


def test_three_attempts_are_all_there_are(driver):
    effects = [driver.dispatched()]
    tried = set[str]()
    for _ in range(2):
        dispatch = only(effects, Dispatch)
        tried.add(dispatch.replica)
        effects = driver.fail(dispatch.attempt)
    dispatch = only(effects, Dispatch)
    tried.add(dispatch.replica)
    reject = only(driver.fail(dispatch.attempt, detail="connection reset"), Reject)
    assert tried == {"a", "b", "c"}
    assert (reject.status, reject.reason) == (502, RejectReason.RETRIES_EXHAUSTED)
    assert "3 attempts failed" in reject.message
    assert "connection reset" in reject.message


def test_a_timeout_at_last_is_a_gateway_timeout():
    driver = alone()
    second = only(driver.fail(driver.dispatched().attempt, Outcome.TIMED_OUT), Dispatch)
    reject = only(driver.fail(second.attempt, Outcome.TIMED_OUT, detail="no answer"), Reject)
    assert (reject.status, reject.reason) == (504, RejectReason.TIMED_OUT)


def test_the_only_replica_gets_a_dropped_request_once_more():
    driver = alone()
    second = only(driver.fail(driver.dispatched().attempt), Dispatch)
    assert second.replica == "a"
    reject = only(driver.fail(second.attempt), Reject)
    assert reject.status == 502


def test_a_busy_engine_is_not_asked_again_and_the_client_told_to_wait():
    driver = alone()
    reject = only(driver.fail(driver.dispatched().attempt, status=503, detail="busy"), Reject)
    assert (reject.status, reject.reason) == (503, RejectReason.OVERLOADED)
    assert reject.retry_after_s == 1.0
    assert reject.message == "replica 'a' answered HTTP 503; no other replica is ready"
    assert not reject.passes_answer
    assert driver.replica("a").state is ReplicaState.READY


def test_retries_are_limited_over_all_requests():
    settings = DispatcherSettings(
        retry=RetrySettings(budget_floor=3.0, budget_ratio=0.1),
        ejection=EjectionSettings(failures=1000),
    )
    driver = Driver(settings=settings)
    driver.add("a", "b")
    attempts = [driver.dispatched().attempt for _ in range(20)]
    effects = [effect for attempt in attempts for effect in driver.fail(attempt)]
    retried = [effect for effect in effects if isinstance(effect, Dispatch)]
    rejected = [effect for effect in effects if isinstance(effect, Reject)]
    assert len(retried) == 5  # 3 + a tenth of 20
    assert len(rejected) == 15
    assert "too many requests are being retried" in rejected[0].message
    driver.wait(60.0)
    only(driver.fail(driver.dispatched().attempt), Dispatch)


def test_the_budget_forgets():
    budget = RetryBudget(RetrySettings(budget_floor=2.0, budget_ratio=0.0, budget_window_s=10.0))
    assert [budget.take(0.0, answered=False) for _ in range(3)] == [True, True, False]
    assert not budget.take(1.0, answered=False)
    assert budget.take(10.0, answered=False)


def test_errors_that_engines_answer_do_not_use_up_the_retries_of_lost_connections():
    settings = DispatcherSettings(retry=RetrySettings(budget_floor=3.0, budget_ratio=0.0))
    driver = Driver(settings=settings)
    driver.add("a", "b")
    ends = [driver.fail(driver.dispatched().attempt, status=500) for _ in range(10)]
    assert [isinstance(effects[0], Dispatch) for effects in ends] == [True] * 3 + [False] * 7
    only(driver.fail(driver.dispatched().attempt), Dispatch)


def test_an_error_answer_is_tried_on_one_other_replica_and_then_passed_on(driver):
    driver.add("d")
    second = only(driver.fail(driver.dispatched(id="it").attempt, status=500), Dispatch)
    reject = only(driver.fail(second.attempt, status=500, detail="broken, HTTP 500"), Reject)
    assert (reject.status, reject.reason) == (502, RejectReason.RETRIES_EXHAUSTED)
    assert reject.passes_answer
    assert reject.message == (
        f"replica {second.replica!r} answered HTTP 500; 2 replicas answered with an error"
    )
    explanation = driver.dispatcher.decisions.explain("it")
    assert explanation is not None
    assert explanation.rejected == reject.message


@pytest.mark.parametrize(
    ("outcome", "status", "passes"),
    [
        (Outcome.UNAVAILABLE, 500, True),
        (Outcome.UNAVAILABLE, 502, True),
        (Outcome.UNAVAILABLE, 503, False),
        (Outcome.UNAVAILABLE, 429, False),
        (Outcome.UNAVAILABLE, 401, False),
        (Outcome.UNAVAILABLE, None, False),
        (Outcome.TIMED_OUT, None, False),
    ],
)
def test_only_an_error_of_the_engine_itself_is_passed_on(driver, outcome, status, passes):
    effects = driver.arrive()
    while (dispatch := effects[0]) and isinstance(dispatch, Dispatch):
        effects = driver.fail(dispatch.attempt, outcome, status)
    assert only(effects, Reject).passes_answer is passes


def test_the_last_failure_decides_what_the_client_hears(driver):
    second = only(driver.fail(driver.dispatched().attempt, status=500), Dispatch)
    third = only(driver.fail(second.attempt, detail="connection reset"), Dispatch)
    reject = only(driver.fail(third.attempt, detail="connection reset"), Reject)
    assert not reject.passes_answer
    assert reject.message == (
        f"replica {third.replica!r} failed: connection reset; 3 attempts failed"
    )


def eject(driver: Driver, name: str) -> float:
    """Fail twice in a row; the time of the probe."""
    while driver.replica(name).state is ReplicaState.READY:
        dispatch = driver.dispatched()
        if dispatch.replica == name:
            driver.fail(dispatch.attempt, Outcome.BROKEN)
    at_s = driver.replica(name).probe_at_s
    assert at_s is not None
    return at_s


def test_two_failures_in_a_row_eject(driver):
    attempts = [driver.dispatched().attempt for _ in range(6)]
    driver.fail(attempts[1], Outcome.BROKEN)
    assert driver.replica("b").state is ReplicaState.READY
    wake = only(driver.fail(attempts[4], Outcome.BROKEN), WakeAt)
    assert driver.replica("b").state is ReplicaState.EJECTED
    assert wake.at_s == driver.now + 1.0
    assert {driver.dispatched().replica for _ in range(6)} == {"a", "c"}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Outcome.UNAVAILABLE, 503), (Outcome.ABORTED, None), (Outcome.REFUSED, 400)],
    ids=["busy", "aborted", "refused"],
)
def test_only_failures_of_the_connection_eject(outcome, status):
    driver = alone()
    for _ in range(5):
        driver.fail(driver.dispatched().attempt, outcome, status)
    assert driver.replica("a").state is ReplicaState.READY


def test_a_request_that_breaks_every_replica_takes_out_none(driver):
    """Its first attempts go to other replicas each time, and only those count."""
    for _ in range(3):
        effects = driver.arrive()
        while isinstance(effects[0], Dispatch):
            effects = driver.fail(effects[0].attempt, detail="connection reset")
        driver.complete(driver.dispatched().attempt)
    assert {driver.replica(name).state for name in "abc"} == {ReplicaState.READY}
    assert len({driver.dispatched().replica for _ in range(6)}) == 3


def test_who_serves_what_another_could_not_is_not_at_fault_itself():
    driver = Driver(settings=DispatcherSettings(ejection=EjectionSettings(failures=1)))
    driver.add("a", "b")
    second = only(driver.fail(driver.dispatched().attempt, status=500), Dispatch)
    driver.complete(second.attempt)
    server = driver.replica(second.replica)
    assert (server.state, server.ejections) == (ReplicaState.READY, 0)


def test_who_lost_an_adapter_goes_on_with_its_own_model():
    driver = Driver(settings=DispatcherSettings(ejection=EjectionSettings(failures=1)))
    driver.add("a", "b", adapters=("tuned",))
    second = only(driver.fail(driver.dispatched("tuned").attempt, status=404), Dispatch)
    driver.complete(second.attempt)
    assert all(driver.replica(name).state is ReplicaState.READY for name in "ab")


@pytest.mark.parametrize("status", [307, 401, 404])
def test_a_pool_that_refuses_our_key_does_not_keep_an_alias_from_its_fall_back(status):
    aliases = (Alias("chat", (Target("model"),), ("spare",)),)
    driver = Driver(PoolSpec("pool", "model"), PoolSpec("spare", "spare"), aliases=aliases)
    driver.add("a", "b", "c", "d")
    driver.add("s", pool="spare")
    attempts = 0
    for _ in range(9):
        dispatch, attempts = driver.dispatched("chat"), 1
        while dispatch.model == "model":
            dispatch = only(driver.fail(dispatch.attempt, status=status), Dispatch)
            attempts += 1
        driver.complete(dispatch.attempt)
    assert attempts == 1
    assert all(driver.replica(name).state is ReplicaState.EJECTED for name in "abcd")
    assert driver.replica("s").state is ReplicaState.READY


def test_a_sibling_is_asked_before_another_model():
    aliases = (Alias("chat", (Target("model"),), ("spare",)),)
    settings = DispatcherSettings(retry=RetrySettings(max_attempts=2))
    pools = (PoolSpec("pool", "model"), PoolSpec("spare", "spare"))
    driver = Driver(*pools, aliases=aliases, settings=settings)
    driver.add("a", "b")
    driver.add("s", pool="spare")
    second = only(driver.fail(driver.dispatched("chat").attempt, status=401), Dispatch)
    assert second.model == "model"


def test_a_request_that_a_pool_answers_with_500_takes_none_of_its_replicas_out():
    """A 500 may be the request's own fault: two that say the same are enough."""
    aliases = (Alias("chat", (Target("model"),), ("spare",)),)
    driver = Driver(PoolSpec("pool", "model"), PoolSpec("spare", "spare"), aliases=aliases)
    driver.add("a", "b", "c")
    driver.add("s", pool="spare")
    for _ in range(9):
        second = only(driver.fail(driver.dispatched("chat").attempt, status=500), Dispatch)
        assert second.model == "model"
        only(driver.fail(second.attempt, status=500), Reject)
    assert all(driver.replica(name).state is ReplicaState.READY for name in "abcs")


@pytest.mark.parametrize("status", [307, 401, 404])
def test_who_cannot_serve_what_another_can_is_taken_out(status):
    driver = Driver()
    driver.add("a", "b")
    for _ in range(9):
        dispatch = driver.dispatched()
        if dispatch.replica == "a":
            dispatch = only(driver.fail(dispatch.attempt, status=status), Dispatch)
        driver.complete(dispatch.attempt)
    assert driver.replica("a").state is ReplicaState.EJECTED
    assert driver.replica("b").state is ReplicaState.READY


def test_failures_of_second_attempts_do_not_eject():
    driver = Driver(settings=DispatcherSettings(ejection=EjectionSettings(failures=2)))
    driver.add("a", "b")
    for _ in range(3):
        first = driver.dispatched()
        second = only(driver.fail(first.attempt, status=500), Dispatch)
        driver.fail(second.attempt, Outcome.BROKEN)
    assert {driver.replica(name).consecutive_failures for name in "ab"} == {0}


def test_an_answer_to_a_second_attempt_still_proves_a_replica_sound(driver):
    broken = driver.dispatched()
    driver.fail(broken.attempt, Outcome.BROKEN)
    assert driver.replica(broken.replica).consecutive_failures == 1
    driver.add(*({"a", "b", "c"} - {broken.replica}), ready=False)
    driver.add("d")
    first = driver.dispatched()
    while first.replica == broken.replica:
        first = driver.dispatched()
    second = only(driver.fail(first.attempt), Dispatch)
    assert second.replica == broken.replica
    driver.complete(second.attempt)
    assert driver.replica(broken.replica).consecutive_failures == 0


def test_a_success_between_two_failures_clears_the_count():
    driver = alone()
    for _ in range(4):
        driver.fail(driver.dispatched().attempt, Outcome.BROKEN)
        driver.complete(driver.dispatched().attempt)
    assert driver.replica("a").state is ReplicaState.READY


@pytest.mark.parametrize("draining", [False, True])
def test_who_is_not_ready_or_drains_is_not_probed_as_well(driver, draining):
    """Its health checks, or the end of its drain, tell what becomes of it."""
    driver.now = eject(driver, "b")
    url = driver.replica("b").url
    changed = ReplicaChanged("b", POOL.name, url, ready=draining, draining=draining)
    driver.send(changed)
    for _ in range(3):
        driver.wait(60.0)
        assert not [each for each in driver.wake() if isinstance(each, Probe)]


def test_an_ejected_replica_is_probed_back(driver):
    at_s = eject(driver, "b")
    driver.now = at_s
    assert only(driver.wake(), Probe) == Probe("b")
    driver.probed("b", True)
    assert driver.replica("b").state is ReplicaState.READY
    assert "b" in {driver.dispatched().replica for _ in range(6)}


def test_each_failed_probe_doubles_the_wait_up_to_a_minute(driver):
    at_s = eject(driver, "b")
    waits = list[float]()
    for _ in range(8):
        driver.now = at_s
        only(driver.wake(), Probe)
        driver.probed("b", False)
        at_s = driver.replica("b").probe_at_s or 0.0
        waits.append(at_s - driver.now)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_lost_probe_is_repeated(driver):
    driver.now = eject(driver, "b")
    effects = driver.wake()
    only(effects, Probe)
    driver.now = only(effects, WakeAt).at_s
    only(driver.wake(), Probe)


def test_wakes_too_many_do_no_harm(driver):
    eject(driver, "b")
    assert not [effect for effect in driver.wake() if isinstance(effect, Probe)]


def test_with_all_replicas_ejected_the_one_to_be_probed_next_is_tried(driver):
    for name in "cab":
        eject(driver, name)
        driver.wait(0.1)
    assert {driver.replica(name).state for name in "abc"} == {ReplicaState.EJECTED}
    dispatch = driver.dispatched()
    assert dispatch.replica == "c"
    driver.first_token(dispatch.attempt)
    driver.complete(dispatch.attempt)
    assert driver.replica("c").state is ReplicaState.READY


def test_an_attempt_without_an_end_expires(driver):
    effects = driver.arrive()
    at_s = only(effects, WakeAt).at_s
    assert at_s == driver.now + 7200.0
    driver.wait(10.0)
    later = driver.dispatched()
    driver.now = at_s
    next_wake = only(driver.wake(), WakeAt)
    assert next_wake.at_s == at_s + 10.0
    assert driver.replica("a").in_flight == 0
    assert driver.replica(later.replica).in_flight == 1
    explanation = driver.dispatcher.decisions.explain("request-1")
    assert explanation is not None
    assert explanation.attempts[0].outcome == "expired"


def test_a_replica_that_left_can_still_end_its_attempts(driver):
    dispatch = driver.dispatched()
    replica = driver.replica("a")
    driver.gone("a")
    driver.first_token(dispatch.attempt)
    second = only(driver.fail(driver.dispatched().attempt), Dispatch)
    assert second.replica in {"b", "c"}
    driver.complete(dispatch.attempt)
    assert (replica.in_flight, replica.decoding, replica.context_tokens) == (0, 0, 0)


def alias_with_spare(*names: str) -> Driver:
    """A pool that an alias's fall-back can stand in for."""
    aliases = (Alias("chat", (Target("model"),), ("spare",)),)
    driver = Driver(PoolSpec("pool", "model"), PoolSpec("spare", "spare"), aliases=aliases)
    driver.add(*names)
    driver.add("s", pool="spare")
    return driver


def served_by_spare(driver: Driver, caller: str, status: int = 401) -> None:
    dispatch = driver.dispatched("chat", caller=caller)
    while dispatch.model == "model":
        dispatch = only(driver.fail(dispatch.attempt, status=status), Dispatch)
    driver.complete(dispatch.attempt)


@pytest.mark.parametrize("status", [307, 401, 404, 500])
def test_one_caller_takes_no_replica_out_with_requests_that_its_pool_alone_refuses(status):
    driver = alias_with_spare("a")
    for _ in range(30):
        for _ in range(3):
            served_by_spare(driver, "mallory", status)
        driver.wait(10.0)
        driver.complete(driver.dispatched(caller="alice").attempt)
    assert driver.replica("a").state is ReplicaState.READY


@pytest.mark.parametrize("status", [307, 401, 500])
def test_two_callers_that_a_pool_refuses_take_its_replica_out(status):
    driver = alias_with_spare("a")
    for _ in range(2):
        served_by_spare(driver, "alice", status)
        served_by_spare(driver, "bob", status)
    assert driver.replica("a").state is ReplicaState.EJECTED


def test_who_is_refused_where_the_gateway_is_refused_too_needs_no_second_caller():
    driver = alias_with_spare()
    driver.send(ReplicaChanged("a", "pool", "http://a", ready=True, doubted=True))
    for _ in range(2):
        served_by_spare(driver, "alice")
    assert driver.replica("a").state is ReplicaState.EJECTED


def test_a_pool_that_answers_nobody_is_left_even_by_its_only_caller():
    driver = alias_with_spare("a")
    for _ in range(3):
        served_by_spare(driver, "alice")
    assert driver.replica("a").state is ReplicaState.READY
    driver.wait(LONE_BLAME_S)
    for _ in range(2):
        served_by_spare(driver, "alice")
    assert driver.replica("a").state is ReplicaState.EJECTED


def test_a_replica_that_streams_to_somebody_is_not_taken_out_by_another_alone():
    driver = alias_with_spare("a")
    driver.first_token(driver.dispatched(caller="alice").attempt)
    for _ in range(30):
        served_by_spare(driver, "mallory")
        driver.wait(1.0)
    assert driver.replica("a").state is ReplicaState.READY


def test_siblings_are_proof_whoever_asks():
    driver = Driver()
    driver.add("a", "b")
    for _ in range(9):
        dispatch = driver.dispatched(caller="alice")
        if dispatch.replica == "a":
            dispatch = only(driver.fail(dispatch.attempt, status=500), Dispatch)
        driver.complete(dispatch.attempt)
    assert driver.replica("a").state is ReplicaState.EJECTED


def test_answers_that_are_only_presumed_to_be_on_their_way_do_not_keep_a_broken_pool():
    aliases = (Alias("chat", (Target("model"),), ("spare",)),)
    spare = PoolSpec("spare", "spare", profile=PROFILE)
    driver = Driver(POOL, spare, aliases=aliases)
    driver.add("a")
    driver.add("s", pool="spare")
    sent = list[Dispatch]()
    for _ in range(12):  # some more are always on their way, for longer than a prefill takes
        sent.append(driver.dispatched("chat", caller="alice", streamed=False))
        driver.wait(1.0)
        if len(sent) > 3 and sent[-1].replica == "a":
            instead = only(driver.fail(sent.pop(0).attempt, status=500), Dispatch)
            driver.complete(instead.attempt)
    assert driver.replica("a").state is ReplicaState.EJECTED


def test_a_whole_answer_that_another_may_be_getting_keeps_a_replica():
    aliases = (Alias("chat", (Target("model"),), ("spare",)),)
    driver = Driver(POOL, PoolSpec("spare", "spare", profile=PROFILE), aliases=aliases)
    driver.add("a")
    driver.add("s", pool="spare")
    driver.dispatched(caller="bob", streamed=False)
    driver.wait(LONE_BLAME_S)
    for _ in range(10):
        served_by_spare(driver, "alice")
        driver.wait(1.0)
    assert driver.replica("a").state is ReplicaState.READY


def test_what_needs_no_key_says_nothing_for_a_replica_that_refuses_ours():
    driver = Driver()
    driver.send(ReplicaChanged("a", "pool", "http://a", ready=True, doubted=True))
    driver.add("b")
    refused = 0
    while refused < EjectionSettings().failures:
        dispatch = driver.dispatched()
        if dispatch.replica == "a":
            dispatch = only(driver.fail(dispatch.attempt, status=401), Dispatch)
            driver.complete(driver.dispatched(endpoint=Endpoint.OTHER, replica="a").attempt)
            refused += 1
        driver.complete(dispatch.attempt)
    assert driver.replica("a").state is ReplicaState.EJECTED
