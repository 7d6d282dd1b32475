"""Which replica a request goes to, through the dispatcher."""

import random
from pathlib import Path

import pytest

from headrace.core import policies
from headrace.core.candidates import Ask
from headrace.core.catalog import LIGHTEST_USES, Serving, lightest
from headrace.core.events import ConfigChanged, Dispatch
from headrace.core.latency import LatencyProfile
from headrace.core.model import PROMPT_BLOCK_BYTES, Endpoint
from headrace.core.policies import POLICIES
from headrace.core.routing import AT_RANDOM, BEST_HOLDERS, LEAST_LOADED, MOST_SCORED, shortlist
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import POOL, PROFILE, Driver, chain, only

SLOW_PREFILL = LatencyProfile("cpu", "profile cpu", 0.008, 2e-3, per_sequence_s=0.004)


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.add("a", "b", "c")
    return driver


def test_an_idle_fleet_is_filled_in_the_order_of_names(driver):
    assert [driver.dispatched().replica for _ in range(4)] == ["a", "b", "c", "a"]


def test_the_same_prefix_goes_to_the_same_replica(driver):
    prompt = chain("long", blocks_each=64)
    details = {"blocks": prompt, "text_bytes": len(prompt) * PROMPT_BLOCK_BYTES}
    driver.dispatched()  # so that not the first name is the answer to everything
    first = driver.serve(**details)
    assert first == "b"
    driver.wait(5.0)
    assert driver.serve(**details) == first


@pytest.mark.parametrize("profile", [PROFILE, None])
def test_a_prompt_is_remembered_though_its_answer_was_not_streamed(profile):
    driver = Driver(PoolSpec("pool", "model", profile=profile))
    driver.add("a", "b")
    prompt = chain("long", blocks_each=64)
    details = {"blocks": prompt, "text_bytes": len(prompt) * PROMPT_BLOCK_BYTES}
    first = driver.dispatched(streamed=False, **details)
    driver.wait(0.001)  # sooner than predicted
    driver.complete(first.attempt)
    assert driver.dispatched(streamed=False, **details).replica == first.replica


def test_a_hit_is_not_worth_any_queue(driver):
    prompt = chain("long", blocks_each=64)
    details = {"blocks": prompt, "text_bytes": len(prompt) * PROMPT_BLOCK_BYTES}
    driver.add("b", "c", ready=False)
    driver.serve(**details)
    for _ in range(3):
        driver.dispatched(text_bytes=4 * 30_000)
    driver.add("b", "c")
    assert driver.replica("a").backlog_s > 1.0
    assert driver.dispatched(**details).replica == "b"


def test_decoding_streams_repel():
    driver = Driver(PoolSpec("pool", "model", profile=SLOW_PREFILL))
    driver.add("a", "b")
    for _ in range(4):
        attempt = driver.dispatched(text_bytes=40).attempt
        driver.wait(1.0)
        driver.first_token(attempt)
    assert driver.replica("a").decoding == driver.replica("b").decoding == 2


def test_full_slots_are_waited_for(driver):
    for name in "abc":
        driver.scrape(name, max_sequences=4.0)
    attempts = [driver.dispatched(text_bytes=40).attempt for _ in range(12)]
    for attempt in attempts:
        driver.first_token(attempt)
    driver.complete(attempts[-1])
    freed = next(name for name in "abc" if driver.replica(name).in_flight == 3)
    driver.dispatched(id="asked", text_bytes=40)
    explanation = driver.dispatcher.decisions.explain("asked")
    assert explanation is not None
    best, *others = explanation.attempts[0].candidates
    assert best.replica == freed
    waits = [term.value for other in others for term in other.terms if term.name == "slot wait"]
    # One in flight beyond the slots, answers of 350 tokens of 6 ms, four slots to free.
    assert waits == [pytest.approx(350 * 0.006 / 4, rel=0.5)] * 2


@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_that_said_it_is_busy_is_left_alone_for_a_while(driver, status):
    attempt = driver.dispatched().attempt
    driver.fail(attempt, status=status)
    assert driver.replica("a").in_flight == 0
    assert driver.dispatched().replica == "c"
    driver.wait(2.0)
    assert driver.dispatched().replica == "a"


@pytest.mark.parametrize("policy", ["least_requests", "round_robin", "power_of_two", "prefix_hash"])
def test_whatever_the_policy_a_busy_engine_is_left_alone(policy):
    driver = Driver(PoolSpec("pool", "model", policy=policy))
    driver.add("a", "b")
    first = driver.dispatched()
    driver.fail(first.attempt, status=503)
    for _ in range(5):
        dispatch = driver.dispatched()
        assert dispatch.replica != first.replica
        driver.complete(dispatch.attempt)


def test_without_a_profile_a_busy_engine_is_left_alone_too():
    driver = Driver(PoolSpec("pool", "model"))
    driver.add("a", "b")
    first = driver.dispatched()
    driver.fail(first.attempt, status=503)
    for _ in range(5):
        assert driver.dispatched(prompt_tokens=900).replica != first.replica
    driver.gone("ab".replace(first.replica, ""))
    assert driver.dispatched().replica == first.replica
    driver.add("ab".replace(first.replica, ""))
    driver.wait(2.0)
    assert {driver.dispatched().replica for _ in range(9)} == {"a", "b"}


def test_without_a_profile_the_uncached_tokens_in_flight_decide():
    driver = Driver(PoolSpec("pool", "model"))
    driver.add("a", "b")
    driver.dispatched(prompt_tokens=900)
    driver.dispatched(prompt_tokens=500)
    assert driver.dispatched(prompt_tokens=100).replica == "b"
    assert driver.dispatched(prompt_tokens=100).replica == "b"
    assert driver.replica("b").uncached_tokens == 700
    source = driver.dispatcher.fleet.pools["pool"].latency.source
    assert source == "learning, 0 of 50 streams: routed on in-flight uncached tokens"


def test_a_pool_learns_its_profile_from_its_first_streams():
    driver, _ = learned_pool(1e-4)
    profile = driver.dispatcher.fleet.pools["pool"].latency.profile
    assert profile is not None
    assert profile.source == "learned from 20 streams"
    assert profile.per_prefill_token_s == pytest.approx(1e-4, rel=0.1)
    assert profile.step_s(1, 2000) == pytest.approx(0.02, rel=0.1)


def learned_pool(per_token_s: float) -> tuple[Driver, random.Random]:
    """A pool that has learned from 20 streams that a token of the prompt takes so long."""
    driver = Driver(PoolSpec("pool", "model"), settings=DispatcherSettings(learn_from_streams=20))
    driver.add("a", "b")
    rng = random.Random(4)
    stream(driver, rng, per_token_s, count=20)
    return driver, rng


def stream(driver: Driver, rng: random.Random, per_token_s: float, *, count: int) -> None:
    for _ in range(count):
        tokens = rng.randrange(200, 4000)
        dispatch = driver.dispatched(prompt_tokens=tokens)
        driver.wait(0.01 + per_token_s * tokens)
        driver.first_token(dispatch.attempt)
        driver.wait(99 * 0.02)
        driver.complete(dispatch.attempt, input_tokens=tokens, output_tokens=100)


def test_a_learned_profile_that_turns_out_wrong_is_learned_anew():
    driver, rng = learned_pool(2e-3)  # cold caches, kernels that are compiled at first use
    latency = driver.dispatcher.fleet.pools["pool"].latency
    slow = latency.profile
    assert slow is not None
    stream(driver, rng, 2e-5, count=200)
    assert latency.profile is not None
    assert latency.profile is not slow
    assert latency.profile.prefill_s(3000) == pytest.approx(0.07, rel=0.2)
    assert not latency.learns
    right = latency.profile
    stream(driver, rng, 2.2e-5, count=60)
    assert latency.profile is right  # its factors follow such changes


def test_prompts_of_one_length_do_not_replace_what_was_learned_from_many():
    driver, _ = learned_pool(1e-4)
    latency = driver.dispatcher.fleet.pools["pool"].latency
    learned = latency.profile
    for _ in range(100):
        dispatch = driver.dispatched(prompt_tokens=300)
        driver.wait(1.0)
        driver.first_token(dispatch.attempt)
        driver.complete(dispatch.attempt, input_tokens=300, output_tokens=100)
    assert latency.profile is learned
    assert latency.learns


def test_answers_that_are_not_streamed_show_a_learned_profile_to_be_far_too_slow():
    driver, _ = learned_pool(2e-3)
    for _ in range(400):
        dispatch = driver.dispatched(prompt_tokens=3000, streamed=False)
        driver.wait(0.07)
        driver.complete(dispatch.attempt, input_tokens=3000, output_tokens=1)
    replica = driver.replica("a")
    replica.latency.refresh(driver.now)
    profile = replica.latency.pool.profile
    assert profile is not None
    assert replica.latency.prefill_factor * profile.prefill_s(3000) < 0.35


def test_a_profile_that_was_given_is_kept(driver):
    for _ in range(200):
        dispatch = driver.dispatched(prompt_tokens=3000)
        driver.wait(10 * PROFILE.prefill_s(3000))
        driver.first_token(dispatch.attempt)
        driver.complete(dispatch.attempt, input_tokens=3000, output_tokens=100)
    assert driver.dispatcher.fleet.pools["pool"].latency.profile is PROFILE


def test_queueing_is_not_learned_as_slow_prefill(driver):
    for _ in range(30):
        attempts = [driver.dispatched(prompt_tokens=5000).attempt for _ in range(12)]
        assert [driver.replica(name).prefilling for name in "abc"] == [4, 4, 4]
        for turn in range(4):  # one prompt per replica and turn, first come first served
            driver.wait(PROFILE.prefill_s(5000))
            for attempt in attempts[turn * 3 : turn * 3 + 3]:
                driver.first_token(attempt)
        for attempt in attempts:
            driver.complete(attempt, output_tokens=1)
    for name in "abc":
        latency = driver.replica(name).latency
        latency.refresh(driver.now)
        assert latency.prefill_factor == pytest.approx(1.0, rel=0.01)


def test_what_the_head_of_the_queue_has_behind_it_is_not_learned_as_fast_prefill():
    driver = Driver()
    driver.add("a")
    half_s = PROFILE.prefill_s(5000) / 2
    for _ in range(30):
        first = driver.dispatched(prompt_tokens=5000).attempt
        driver.wait(half_s)
        second = driver.dispatched(prompt_tokens=5000).attempt
        driver.wait(half_s)
        driver.first_token(first)
        driver.wait(2 * half_s)
        driver.first_token(second)
        for attempt in (first, second):
            driver.complete(attempt, output_tokens=1)
    latency = driver.replica("a").latency
    latency.refresh(driver.now)
    assert latency.prefill_factor == pytest.approx(1.0, rel=0.01)


def test_the_prefills_of_others_are_not_learned_as_slow_decoding():
    profile = LatencyProfile("p", "profile p", 0.1, 1e-4)
    driver = Driver(PoolSpec("pool", "model", profile=profile))
    driver.add("a")
    for _ in range(30):
        stream = driver.dispatched(prompt_tokens=10).attempt
        driver.wait(profile.prefill_s(10))
        driver.first_token(stream)
        others = [driver.dispatched(prompt_tokens=1000).attempt for _ in range(9)]
        for other in others:
            driver.wait(profile.prefill_s(1000))
            driver.first_token(other)
        driver.wait(9 * profile.step_s(1, 0))
        driver.complete(stream, output_tokens=10)
        for other in others:
            driver.complete(other, output_tokens=1)
    latency = driver.replica("a").latency
    latency.refresh(driver.now)
    assert latency.decode_factor == pytest.approx(1.0, rel=0.01)


def test_choices_side_by_side_are_not_learned_as_fast_decoding():
    """Eight answers of 10 tokens take nine steps behind the first token, not 79."""
    profile = LatencyProfile("p", "profile p", 0.1, 1e-4)
    driver = Driver(PoolSpec("pool", "model", profile=profile))
    driver.add("a")
    for _ in range(30):
        stream = driver.dispatched(prompt_tokens=10, sequences=8, id="last").attempt
        driver.wait(profile.prefill_s(10))
        driver.first_token(stream)
        driver.wait(9 * profile.step_s(1, 0))
        driver.complete(stream, output_tokens=80)
    replica = driver.replica("a")
    replica.latency.refresh(driver.now)
    assert replica.latency.decode_factor == pytest.approx(1.0, rel=0.01)
    assert replica.pool.output_tokens_mean < 350
    assert replica.pool.demand.tpot_recent[-1][1] == pytest.approx(0.1 / 0.05)
    told = driver.dispatcher.decisions.explain("last")
    assert told is not None
    assert told.attempts[0].tpot_s == pytest.approx(0.1)


def test_round_robin_takes_turns_whatever_the_load():
    driver = Driver(PoolSpec("pool", "model", policy="round_robin", profile=POOL.profile))
    driver.add("a", "b", "c")
    assert [driver.dispatched().replica for _ in range(5)] == ["a", "b", "c", "a", "b"]
    driver.add("b", ready=False)
    assert [driver.dispatched().replica for _ in range(3)] == ["c", "a", "c"]


def test_policies_are_named_after_their_files():
    folder = Path(policies.__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    assert list(POLICIES) == names
    assert {"seconds", "round_robin", "dynamo_kv"} <= set(names)
    spec = PoolSpec("pool", "model", policy="fastest")
    with pytest.raises(ValueError, match=f"unknown policy 'fastest'; known: {', '.join(names)}"):
        Driver().send(ConfigChanged((spec,), ()))


@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("profile", [POOL.profile, None], ids=["profile", "learning"])
def test_every_policy_explains_the_price_of_every_replica_it_was_shown(policy, profile):
    driver = Driver(PoolSpec("pool", "model", policy=policy, profile=profile))
    driver.add("a", "b", "c")
    chosen = [driver.dispatched(blocks=chain("it")).replica for _ in range(7)]
    explanation = driver.dispatcher.decisions.explain("request-7")
    assert explanation is not None
    attempt = explanation.attempts[0]
    assert attempt.candidates[0].replica == chosen[-1]
    names = {candidate.replica for candidate in attempt.candidates}
    assert names <= {"a", "b", "c"}
    assert len(names) == attempt.considered == (2 if policy == "power_of_two" else 3)
    for candidate in attempt.candidates:
        assert sum(term.value for term in candidate.terms) == pytest.approx(candidate.cost)
        assert candidate.cost >= attempt.candidates[0].cost


def test_large_fleets_are_judged_by_a_shortlist():
    driver = Driver()
    names = [f"r{position:03}" for position in range(100)]
    driver.add(*names)
    prompt = chain("long", blocks_each=64)
    details = {"blocks": prompt, "text_bytes": len(prompt) * PROMPT_BLOCK_BYTES}
    for _ in range(70):
        driver.dispatched()
    home = driver.serve(**details)
    assert driver.dispatched(id="asked", **details).replica == home
    explanation = driver.dispatcher.decisions.explain("asked")
    assert explanation is not None
    assert explanation.attempts[0].considered <= MOST_SCORED


def test_the_shortlist_keeps_the_least_loaded_the_best_holder_and_some_at_random():
    driver = Driver()
    driver.add(*[f"r{position:03}" for position in range(64)])
    pool = driver.dispatcher.fleet.pools["pool"]
    replicas = list(driver.dispatcher.fleet.replicas.values())
    for replica in replicas[:60]:
        replica.backlog_tokens = 1000
    serving = Serving(pool, replicas, "")
    ask = Ask(1000, 64.0, 100.0, (1, 2, 3))
    ask.hits = [(3, 1 << replicas[30].index)]
    chosen = shortlist(serving, ask, random.Random(1))
    assert set(replicas[60:]) | {replicas[30]} <= set(chosen)
    assert [replica.name for replica in chosen] == sorted(replica.name for replica in chosen)
    assert any(replica.index > 12 for replica in chosen if replica not in replicas[60:])


def test_the_least_loaded_of_a_large_fleet_are_seen_though_loads_change():
    driver = Driver()
    driver.add(*[f"r{position:03}" for position in range(64)])
    replicas = list(driver.dispatcher.fleet.replicas.values())
    for position, replica in enumerate(replicas):
        replica.backlog_tokens = 1000 + position
    serving = Serving(driver.dispatcher.fleet.pools["pool"], replicas, "")
    assert serving.least_loaded(2) == replicas[:2]
    replicas[0].backlog_tokens = 5000  # took a long prompt
    assert serving.least_loaded(2) == replicas[1:3]
    replicas[63].backlog_tokens = 0  # fell idle: seen soon
    lightest = [serving.least_loaded(2) for _ in range(LIGHTEST_USES)]
    assert lightest[-1] == [replicas[63], replicas[1]]


def test_least_to_do_is_prefill_first_then_requests_then_the_place():
    driver, rng = Driver(), random.Random(1)
    driver.add(*[f"r{position:03}" for position in range(64)])
    replicas = list(driver.dispatcher.fleet.replicas.values())
    for replica in replicas:
        replica.backlog_tokens, replica.in_flight = rng.randrange(3), rng.randrange(3)
    by_load = sorted(replicas, key=lambda each: (each.backlog_tokens, each.in_flight, each.name))
    assert lightest(replicas, 8) == by_load[:8]
    assert lightest(replicas, 40) == by_load[:40]


def test_where_nobody_holds_a_prompt_only_the_least_loaded_and_some_at_random_are_priced():
    driver = Driver()
    driver.add(*[f"r{position:03}" for position in range(64)])
    replicas = list(driver.dispatcher.fleet.replicas.values())
    serving = Serving(driver.dispatcher.fleet.pools["pool"], replicas, "")
    ask = Ask(1000, 64.0, 100.0, (1, 2, 3))
    sizes = {len(shortlist(serving, ask, random.Random(seed))) for seed in range(50)}
    assert max(sizes) == LEAST_LOADED + AT_RANDOM == 6


def test_of_many_holders_alike_some_are_looked_at_from_a_random_one_on():
    driver = Driver()
    driver.add(*[f"r{position:03}" for position in range(128)])
    replicas = list(driver.dispatcher.fleet.replicas.values())
    for replica in replicas:
        replica.backlog_tokens = 0 if replica.index < 16 else 1000
    serving = Serving(driver.dispatcher.fleet.pools["pool"], replicas, "")
    ask = Ask(1000, 64.0, 100.0, (1, 2, 3))
    ask.hits = [(3, sum(1 << replica.index for replica in replicas[64:]))]
    rng, seen = random.Random(1), set[int]()
    for _ in range(50):
        chosen = [replica.index for replica in shortlist(serving, ask, rng)]
        assert sum(index >= 64 for index in chosen) >= BEST_HOLDERS
        seen.update(index for index in chosen if index >= 64)
    assert len(seen) > 40


def test_embeddings_do_not_decode(driver):
    dispatch = driver.dispatched(endpoint=Endpoint.EMBEDDINGS, streamed=False)
    driver.wait(1.0)
    mean = driver.dispatcher.fleet.pools["pool"].output_tokens_mean
    driver.complete(dispatch.attempt, output_tokens=0)
    assert driver.dispatcher.fleet.pools["pool"].output_tokens_mean == mean
    explanation = driver.dispatcher.decisions.explain("request-1")
    assert explanation is not None
    terms = {term.name: term.value for term in explanation.attempts[0].candidates[0].terms}
    assert terms["decoding"] == 0.0


def test_an_answer_that_is_not_streamed_leaves_the_backlog_when_its_prefill_should_be_done(driver):
    driver.dispatched(streamed=False, prompt_tokens=10_000)
    assert driver.replica("a").backlog_tokens == 10_000
    driver.wait(10.0)
    driver.dispatched()
    assert driver.replica("a").decoding == 1
    explanation = driver.dispatcher.decisions.explain("request-1")
    assert explanation is not None
    assert explanation.attempts[0].ttft_s is None


def test_lengths_are_learned_from_usage(driver):
    pool = driver.dispatcher.fleet.pools["pool"]
    for _ in range(200):
        attempt = driver.dispatched(text_bytes=6000, media_items=1).attempt
        driver.first_token(attempt)
        driver.complete(attempt, input_tokens=3000 + pool.spec.media_tokens, output_tokens=40)
    assert pool.bytes_per_token == pytest.approx(2.0, rel=0.1)
    assert pool.output_tokens_mean == pytest.approx(40.0, rel=0.6)


@pytest.mark.parametrize(
    ("output_tokens", "shortest_s", "longest_s"), [(2, 0.5, 0.5), (40, 2.3, 2.5), (4000, 7.0, 7.0)]
)
def test_prefills_are_remembered_for_three_unhindered_answers(output_tokens, shortest_s, longest_s):
    slow = LatencyProfile("slow", "given", 0.02, 1e-6)
    driver = Driver(PoolSpec("pool", "model", profile=slow))
    driver.add("a")
    pool = driver.dispatcher.fleet.pools["pool"]
    pool.output_tokens_mean = output_tokens
    for _ in range(300):
        attempt = driver.dispatched().attempt
        driver.first_token(attempt)
        driver.complete(attempt, output_tokens=output_tokens)
    assert shortest_s <= pool.recent_s <= longest_s


def test_a_false_hit_shrinks_what_is_believed_to_be_cached(driver):
    driver.add("b", "c", ready=False)
    prompt = chain("long", blocks_each=64)
    details = {"blocks": prompt, "text_bytes": len(prompt) * PROMPT_BLOCK_BYTES}
    other = chain("older", blocks_each=64)
    driver.serve(**{**details, "blocks": other})
    driver.serve(**details)
    attempt = driver.dispatched(**details).attempt
    driver.first_token(attempt)
    driver.complete(attempt, input_tokens=4096, cached=4000)  # the engine tells of its cache
    attempt = driver.dispatched(**details).attempt
    driver.first_token(attempt)
    driver.complete(attempt, input_tokens=4096, cached=0)
    driver.dispatched(id="asked", **{**details, "blocks": other})
    explanation = driver.dispatcher.decisions.explain("asked")
    assert explanation is not None
    assert explanation.attempts[0].candidates[0].hit_tokens == 0


def test_a_prompt_goes_where_its_context_holds_it(driver):
    driver.add("a", "b", max_context_tokens=4096)
    driver.add("c", max_context_tokens=32_768)
    long = [driver.dispatched(text_bytes=8000 * 4).replica for _ in range(5)]
    assert set(long) == {"c"}
    assert {driver.dispatched(text_bytes=100).replica for _ in range(6)} == {"a", "b"}


@pytest.mark.parametrize(
    ("details", "fits"),
    [
        ({"text_bytes": 4400 * 4}, True),
        ({"text_bytes": 4520 * 4}, False),
        ({"prompt_tokens": 4095}, True),
        ({"prompt_tokens": 4096}, False),
    ],
    ids=["within the margin", "beyond it", "exact, with room for a token", "exact, without"],
)
def test_an_estimate_has_a_margin_and_an_exact_length_has_none(driver, details, fits):
    driver.gone("c")
    driver.add("a", max_context_tokens=4096)
    driver.add("b", max_context_tokens=32_768)
    replicas = {driver.dispatched(**details).replica for _ in range(4)}
    assert ("a" in replicas) is fits


def test_no_prompt_is_rejected_for_an_estimated_length(driver):
    driver.add("a", "b", "c", max_context_tokens=512)
    assert {driver.dispatched(text_bytes=400_000).replica for _ in range(3)} == {"a", "b", "c"}


def test_a_context_that_is_not_known_may_hold_anything(driver):
    driver.add("a", "b", max_context_tokens=512)
    assert {driver.dispatched(text_bytes=400_000).replica for _ in range(3)} == {"c"}


def test_a_retry_may_go_where_the_context_is_too_short(driver):
    driver.add("a", "b", max_context_tokens=512)
    first = driver.dispatched(text_bytes=40_000)
    assert first.replica == "c"
    assert only(driver.fail(first.attempt), Dispatch).replica in {"a", "b"}


def test_answers_that_are_not_streamed_show_that_prefills_are_shorter_than_thought():
    driver = Driver(PoolSpec("pool", "model", profile=SLOW_PREFILL))
    driver.add("a")
    for _ in range(40):
        attempt = driver.dispatched(streamed=False, prompt_tokens=1000).attempt
        driver.wait(0.1)  # 2 s were predicted
        driver.complete(attempt, input_tokens=1000, output_tokens=1)
    driver.dispatched(id="it", prompt_tokens=1000)
    explanation = driver.dispatcher.decisions.explain("it")
    assert explanation is not None
    ttft_s = explanation.attempts[0].candidates[0].ttft_s
    assert ttft_s is not None
    assert ttft_s < 0.7, "as far down as a factor goes"


def test_a_long_answer_that_is_not_streamed_says_nothing_of_its_prefill():
    driver = Driver(PoolSpec("pool", "model", profile=SLOW_PREFILL))
    driver.add("a")
    for _ in range(40):
        attempt = driver.dispatched(streamed=False, prompt_tokens=1000).attempt
        driver.wait(30.0)
        driver.complete(attempt, input_tokens=1000, output_tokens=300)
    assert driver.replica("a").latency.prefill_factor == 1.0
