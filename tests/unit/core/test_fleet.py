"""Names, pools and replicas: what is known, what may be routed to."""

from typing import Any

import pytest

from headrace.core.events import ConfigChanged, Dispatch, Reject, RejectReason
from headrace.core.model import PROMPT_BLOCK_BYTES, Endpoint, ReplicaState
from headrace.core.retries import RetrySettings
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Role, Target
from tests.unit.core.driver import POOL, PROFILE, Driver, chain, only

LONG = chain("long", blocks_each=64)
LONG_DETAILS = {"blocks": LONG, "text_bytes": len(LONG) * PROMPT_BLOCK_BYTES}


def hit_tokens(driver: Driver, replica: str, **details: Any) -> int:
    driver.dispatched(id="asked", **(details or LONG_DETAILS))
    explanation = driver.dispatcher.decisions.explain("asked")
    assert explanation is not None
    found = {each.replica: each.hit_tokens for each in explanation.attempts[0].candidates}
    return found[replica]


def test_an_unknown_model_is_rejected_with_the_known_ones():
    driver = Driver(POOL, aliases=(Alias("chat", (Target("model"),)),))
    driver.add("a", adapters=("lora",))
    reject = driver.rejected("gpt")
    assert (reject.status, reject.reason) == (404, RejectReason.UNKNOWN_MODEL)
    assert reject.message == "model 'gpt' does not exist here; known models: chat, lora, model"


def test_the_list_of_known_models_is_bounded():
    driver = Driver(*[PoolSpec(f"p{i}", f"m{i:02}", profile=PROFILE) for i in range(25)])
    assert driver.rejected("gpt").message.endswith("m19 and 5 more")


def test_a_known_model_without_a_ready_replica_is_unavailable():
    driver = Driver()
    driver.add("a", ready=False)
    driver.add("b", draining=True)
    reject = driver.rejected()
    assert (reject.status, reject.reason) == (503, RejectReason.NO_REPLICA)
    assert reject.retry_after_s == 2.0


def test_one_model_may_have_several_pools():
    fast = PoolSpec("fast", "model", profile=PROFILE)
    other = PoolSpec("other", "model", profile=PROFILE)
    driver = Driver(fast, other)
    driver.add("a", pool="other")
    driver.add("b", pool="fast")
    dispatches = [driver.dispatched() for _ in range(2)]
    assert [(each.pool, each.replica) for each in dispatches] == [("other", "a"), ("fast", "b")]


def test_a_request_without_a_model_means_the_only_one():
    driver = Driver()
    driver.add("a")
    assert driver.dispatched("", endpoint=Endpoint.OTHER).model == "model"
    driver = Driver(POOL, PoolSpec("second", "other"))
    driver.add("a")
    assert driver.rejected("", endpoint=Endpoint.OTHER).status == 404


def test_only_pools_that_do_both_phases_are_routed_to():
    driver = Driver(PoolSpec("pool", "model", role=Role.PREFILL))
    driver.add("a")
    assert driver.rejected().status == 503


def canary(share: float) -> tuple[Alias, ...]:
    targets = (Target("stable", 1.0 - share), Target("canary", share))
    return (Alias("chat", targets, fallbacks=("spare",)),)


def pools(*models: str) -> list[PoolSpec]:
    return [PoolSpec(model, model, profile=PROFILE) for model in models]


def test_an_alias_splits_by_weight():
    driver = Driver(*pools("stable", "canary", "spare"), aliases=canary(0.2))
    for model in ("stable", "canary", "spare"):
        driver.add(f"{model}-0", pool=model)
    models = list[str]()
    for _ in range(500):
        dispatch = driver.dispatched("chat")
        models.append(dispatch.model)
        driver.complete(dispatch.attempt)
    assert 60 < models.count("canary") < 140
    assert models.count("spare") == 0


def test_a_fall_back_is_used_when_the_target_cannot():
    driver = Driver(*pools("stable", "canary", "spare"), aliases=canary(0.0))
    driver.add("canary-0", pool="canary")
    driver.add("spare-0", pool="spare")
    assert driver.dispatched("chat").model == "spare"
    driver.gone("spare-0")
    assert driver.dispatched("chat").model == "canary"


def test_a_retry_may_go_to_a_fall_back():
    driver = Driver(
        *pools("stable", "spare"), aliases=(Alias("chat", (Target("stable"),), ("spare",)),)
    )
    driver.add("stable-0", pool="stable")
    driver.add("spare-0", pool="spare")
    first = driver.dispatched("chat")
    assert only(driver.fail(first.attempt, status=503), Dispatch).model == "spare"


def test_a_ready_fall_back_is_better_than_an_ejected_target():
    driver = Driver(
        *pools("stable", "spare"), aliases=(Alias("chat", (Target("stable"),), ("spare",)),)
    )
    driver.add("stable-0", pool="stable")
    driver.add("spare-0", pool="spare")
    for _ in range(2):
        driver.fail(driver.dispatched("stable").attempt)
    assert driver.replica("stable-0").state is ReplicaState.EJECTED
    assert driver.dispatched("chat").model == "spare"
    assert driver.dispatched("stable").model == "stable"
    driver.gone("spare-0")
    assert driver.dispatched("chat").model == "stable"


def test_a_fall_back_with_room_is_better_than_a_full_target():
    driver = Driver(
        *pools("stable", "spare"), aliases=(Alias("chat", (Target("stable"),), ("spare",)),)
    )
    driver.add("stable-0", pool="stable")
    driver.add("spare-0", pool="spare")
    driver.fail(driver.dispatched("stable").attempt, status=503)
    assert driver.dispatched("chat").model == "spare"
    driver.fail(driver.dispatched("spare").attempt, status=429)
    assert driver.dispatched("chat").model == "stable"  # both are full
    driver.wait(2.0)
    assert driver.dispatched("chat").model == "stable"


def test_an_adapter_is_served_by_who_holds_it():
    driver = Driver()
    driver.add("a", "b")
    driver.add("c", adapters=("lora",))
    dispatches = [driver.dispatched("lora") for _ in range(3)]
    assert {each.replica for each in dispatches} == {"c"}
    assert {each.model for each in dispatches} == {"lora"}
    assert {driver.dispatched().replica for _ in range(3)} <= {"a", "b", "c"}


def test_an_adapter_shares_no_cache_with_its_base_model():
    driver = Driver()
    driver.add("a", adapters=("lora",))
    driver.serve(**LONG_DETAILS)
    assert hit_tokens(driver, "a") > 1000
    driver.dispatched("lora", id="adapter", **LONG_DETAILS)
    explanation = driver.dispatcher.decisions.explain("adapter")
    assert explanation is not None
    assert explanation.attempts[0].candidates[0].hit_tokens == 0


def test_without_a_ready_holder_an_adapter_goes_to_the_rest_of_its_pool():
    driver = Driver()
    driver.add("a")
    driver.add("b", ready=False, adapters=("lora",))
    assert driver.dispatched("lora").replica == "a"


def test_a_stored_response_is_asked_of_the_replica_that_holds_it():
    driver = Driver()
    driver.add("a", "b", "c")
    for name in "bcb":
        assert driver.dispatched("", replica=name).replica == name
    assert driver.dispatched("", replica="b").model == "model"


@pytest.mark.parametrize("name", ["gone", "starting"])
def test_a_stored_response_of_a_replica_that_is_not_there_is_unavailable(name):
    driver = Driver()
    driver.add("a")
    driver.add("starting", ready=False)
    reject = driver.rejected("", replica=name)
    assert reject.status == 503
    assert name in reject.message


def test_a_pinned_request_is_not_sent_elsewhere():
    driver = Driver()
    driver.add("a", "b")
    attempt = driver.dispatched("", replica="b").attempt
    assert only(driver.fail(attempt, status=503), Reject).status == 503


@pytest.mark.parametrize("how", ["became-ready-again", "moved", "left-and-came-back"])
def test_a_restarted_replica_starts_with_an_empty_cache(how):
    driver = Driver()
    driver.add("a", "b")
    driver.add("b", ready=False)
    driver.serve(prefill_s=1.0, **LONG_DETAILS)
    assert hit_tokens(driver, "a") > 1000
    before = driver.replica("a").latency
    if how == "became-ready-again":
        driver.add("a", ready=False)
        driver.add("a")
    elif how == "moved":
        driver.add("a", url="http://elsewhere")
    else:
        driver.gone("a")
        driver.add("a")
    assert hit_tokens(driver, "a") == 0
    after = driver.replica("a").latency
    for latency in (before, after):
        latency.refresh(driver.now)
    assert after.prefill_factor < before.prefill_factor


def test_news_of_a_running_replica_cost_it_nothing():
    driver = Driver()
    driver.add("a")
    driver.serve(**LONG_DETAILS)
    driver.add("a", adapters=("lora",))
    driver.add("a", draining=True)
    driver.add("a")
    assert hit_tokens(driver, "a") > 1000


def test_the_index_of_a_departed_replica_is_reused():
    driver = Driver()
    driver.add("a", "b", "c")
    driver.gone("b")
    driver.add("d")
    indices = {name: driver.replica(name).index for name in "acd"}
    assert indices == {"a": 0, "c": 2, "d": 1}


def test_a_new_configuration_keeps_what_did_not_change():
    driver = Driver(POOL, PoolSpec("old", "old"))
    driver.add("a")
    driver.add("b", pool="old")
    pool = driver.dispatcher.fleet.pools["pool"]
    pool.output_tokens_mean = 77.0
    changed = PoolSpec("pool", "model", policy="round_robin", profile=PROFILE)
    driver.send(ConfigChanged((changed, PoolSpec("new", "new")), ()))
    assert list(driver.dispatcher.fleet.pools) == ["pool", "new"]
    assert list(driver.dispatcher.fleet.replicas) == ["a"]
    assert driver.dispatcher.fleet.pools["pool"].output_tokens_mean == 77.0
    assert driver.rejected("old").status == 404
    driver.dispatched(id="asked")
    explanation = driver.dispatcher.decisions.explain("asked")
    assert explanation is not None
    assert explanation.attempts[0].policy == "round_robin"


def test_a_stream_goes_on_when_its_pool_is_removed():
    driver = Driver(POOL, PoolSpec("other", "other"))
    driver.add("a")
    running, failing = driver.dispatched(), driver.dispatched()
    driver.first_token(running.attempt)
    driver.send(ConfigChanged((PoolSpec("other", "other"),), ()))
    driver.progress(running.attempt, 50)
    assert driver.complete(running.attempt) == []
    assert only(driver.fail(failing.attempt), Reject).status == 502
    assert driver.rejected().status == 404


def test_settings_change_with_the_configuration():
    driver = Driver()
    driver.add("a", "b")
    for number in range(3):
        driver.serve(id=f"request {number}")
    settings = DispatcherSettings(retry=RetrySettings(max_attempts=1), decisions=1)
    driver.send(ConfigChanged((POOL,), (), settings))
    assert driver.dispatcher.decisions.explain("request 1") is None
    assert driver.dispatcher.decisions.explain("request 2") is not None
    only(driver.fail(driver.dispatched().attempt), Reject)


def test_a_pool_that_serves_another_model_loses_its_replicas():
    driver = Driver()
    driver.add("a")
    driver.send(ConfigChanged((PoolSpec("pool", "other"),), ()))
    assert driver.rejected("other").status == 503


def test_a_replica_of_an_unknown_pool_is_ignored():
    driver = Driver()
    driver.add("a", pool="nowhere")
    assert driver.dispatcher.fleet.replicas == {}


def test_the_kv_capacity_that_an_engine_tells_bounds_what_is_believed_cached():
    driver = Driver()
    driver.add("a")
    driver.scrape("a", kv_capacity_tokens=1024.0)
    driver.serve(**LONG_DETAILS)
    assert 0 < hit_tokens(driver, "a") <= 1024


def test_weights_need_not_add_up_to_one():
    rng_driver = Driver(*pools("x", "y"), aliases=(Alias("z", (Target("x", 3), Target("y", 1))),))
    rng_driver.add("x-0", pool="x")
    rng_driver.add("y-0", pool="y")
    models = [rng_driver.dispatched("z").model for _ in range(200)]
    assert 120 < models.count("x") < 180
