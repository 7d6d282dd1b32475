"""Explanations: what is kept, for how long, and how it reads."""

import gc

import msgspec
import pytest

from headrace.core.admission import Tier
from headrace.core.decisions import MOST_CANDIDATES, Decisions, Explanation
from headrace.core.events import Dispatch, Ended, Left
from headrace.core.flights import Flight
from headrace.core.latency import LatencyProfile
from headrace.core.model import PROMPT_BLOCK_BYTES, Endpoint, Outcome, Request, Usage
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import Driver, chain

# 0.1 ms per token and nothing else, so that sentences can be checked by heart.
PLAIN = LatencyProfile("plain", "profile plain", 0.0, 1e-4, per_sequence_s=1e-3)
LONG = chain("long", blocks_each=128)
LONG_DETAILS = {"blocks": LONG, "text_bytes": len(LONG) * PROMPT_BLOCK_BYTES}


@pytest.fixture
def driver() -> Driver:
    driver = Driver(PoolSpec("pool", "model", profile=PLAIN))
    driver.add("local-0", "local-1")
    return driver


def explain(driver: Driver, request_id: str) -> Explanation:
    explanation = driver.dispatcher.decisions.explain(request_id)
    assert explanation is not None
    return explanation


def test_says_what_tipped_the_balance(driver):
    driver.add("local-0", ready=False)
    driver.serve(prefill_s=8192e-4, decode_s=99 * 1e-3, **LONG_DETAILS)
    driver.add("local-0")
    driver.wait(600.0)
    driver.dispatched(id="it", **LONG_DETAILS)
    assert explain(driver, "it").reason == (
        "replica local-1: queue 0 ms + prefill 1 of 8,192 tokens 0.1 ms; "
        "1.64 s less than local-0, which would prefill 8,192 tokens"
    )


def test_says_where_the_queue_is(driver):
    driver.dispatched(prompt_tokens=3000)
    driver.dispatched(id="it", prompt_tokens=1000)
    reason = explain(driver, "it").reason
    assert reason.startswith("replica local-1: queue 0 ms + prefill 1,000 of 1,000 tokens 100 ms;")
    assert reason.endswith("less than local-0, where the queue is 300 ms")


def test_says_no_cause_for_what_is_no_difference(driver):
    latency = driver.dispatcher.fleet.replicas["local-0"].latency
    latency.prefill_factor, latency.stale_s = 1.001, float("inf")
    driver.dispatched(id="it", prompt_tokens=1000)
    reason = explain(driver, "it").reason
    assert reason.endswith("; local-0 would cost less than a millisecond more")


def test_says_that_a_replica_is_slower_where_the_work_is_the_same(driver):
    driver.add("local-1", ready=False)
    for _ in range(20):
        driver.serve(prefill_s=0.3, decode_s=0.1)
    driver.add("local-1")
    driver.wait(20.0)  # idle again
    driver.dispatched(id="it")
    reason = explain(driver, "it").reason
    assert reason.startswith("replica local-1:")
    assert reason.endswith("less than local-0, which prefills more slowly")


@pytest.mark.parametrize(
    ("waited_s", "queue_s"), [(0.1, 0.5), (0.25, 0.35), (5.0, 0.3)], ids=["part", "more", "long"]
)
def test_the_head_of_a_queue_is_in_work_but_no_further_than_its_share(driver, waited_s, queue_s):
    driver.gone("local-1")
    for _ in range(2):
        driver.dispatched(prompt_tokens=3000)
    driver.wait(waited_s)
    driver.dispatched(id="it", prompt_tokens=1000)
    assert explain(driver, "it").attempts[0].candidates[0].queue_s == pytest.approx(queue_s)


def test_says_how_a_tie_was_broken(driver):
    driver.dispatched(id="by-name")
    driver.complete(driver.dispatched().attempt)
    driver.complete(1)
    driver.dispatched(id="by-turn")
    assert explain(driver, "by-name").reason.endswith(
        "local-1 would cost the same but comes later by name"
    )
    assert explain(driver, "by-turn").reason.endswith(
        "local-1 would cost the same but was used more recently"
    )


def test_says_that_there_was_no_choice(driver):
    driver.gone("local-0")
    driver.dispatched(id="it")
    assert explain(driver, "it").reason.endswith("the only one to choose from")


def test_says_that_the_pool_is_still_learning():
    driver = Driver(PoolSpec("pool", "model"))
    driver.add("a", "b")
    driver.dispatched(prompt_tokens=700)
    driver.dispatched(id="it", prompt_tokens=500)
    explanation = explain(driver, "it")
    assert explanation.reason == (
        "replica b: 0 uncached tokens in flight + prefill 500 of 500 tokens; "
        "700 tokens fewer than a, which has 700 uncached tokens in flight"
    )
    assert explanation.attempts[0].latency_source == (
        "learning, 0 of 50 streams: routed on in-flight uncached tokens"
    )
    assert explanation.attempts[0].cost_unit == "tokens"
    assert explanation.attempts[0].candidates[0].ttft_s is None


def test_keeps_what_every_candidate_showed(driver):
    driver.scrape("local-0", kv_capacity_tokens=10_000.0)
    driver.dispatched(prompt_tokens=3000)
    driver.dispatched(id="it", prompt_tokens=1000)
    attempt = explain(driver, "it").attempts[0]
    chosen, other = attempt.candidates
    assert (chosen.replica, chosen.chosen, other.replica, other.chosen) == (
        "local-1",
        True,
        "local-0",
        False,
    )
    assert (other.backlog_tokens, other.in_flight, other.uncached_tokens) == (3000, 1, 1000)
    assert (other.kv_space_tokens, chosen.kv_space_tokens) == (7000, None)
    assert other.queue_s == pytest.approx(0.3)
    assert other.ttft_s == pytest.approx(0.4)
    assert other.tpot_s == pytest.approx(2e-3)
    assert (attempt.pool, attempt.policy, attempt.latency_source, attempt.considered) == (
        "pool",
        "seconds",
        "profile plain",
        2,
    )


def test_keeps_what_came_of_each_attempt(driver):
    first = driver.dispatched(id="it")
    driver.fail(first.attempt, status=503, detail="busy")
    driver.wait(0.2)
    driver.first_token(first.attempt + 1)
    driver.wait(1.0)
    driver.complete(first.attempt + 1, output_tokens=101)
    failed, served = explain(driver, "it").attempts
    assert (failed.outcome, failed.status, failed.detail) == ("unavailable", 503, "busy")
    assert (failed.ttft_s, failed.tpot_s) == (None, None)
    assert served.outcome == Outcome.COMPLETED.value
    assert served.ttft_s == pytest.approx(0.2)
    assert served.tpot_s == pytest.approx(0.01)
    assert served.output_tokens == 101
    assert served.duration_s == pytest.approx(1.2)
    assert (failed.duration_s, failed.input_tokens) == (0.0, None)


def test_keeps_what_the_engine_counted(driver):
    attempt = driver.dispatched(id="it", prompt_tokens=500).attempt
    usage = Usage(input_tokens=498, output_tokens=7, cached_tokens=12)
    driver.send(Ended(attempt, Outcome.COMPLETED, usage=usage))
    served = explain(driver, "it").attempts[0]
    assert (served.input_tokens, served.cached_tokens, served.output_tokens) == (498, 12, 7)


def test_finds_the_last_request(driver):
    assert driver.dispatcher.decisions.explain_last() is None
    driver.dispatched(id="first")
    driver.dispatched(id="second")
    last = driver.dispatcher.decisions.explain_last()
    assert last is not None
    assert last.request_id == "second"


def test_keeps_why_a_request_was_rejected(driver):
    driver.rejected("gpt", id="it")
    explanation = explain(driver, "it")
    assert explanation.attempts == ()
    assert explanation.reason == explanation.rejected
    assert "known models: model" in explanation.reason


def test_finds_the_latest_request_of_a_client_id(driver):
    driver.dispatched(id="first", client_id="mine")
    driver.dispatched(id="second", client_id="mine")
    assert explain(driver, "mine").request_id == "second"
    assert explain(driver, "first").client_id == "mine"
    assert driver.dispatcher.decisions.explain("nobody's") is None


def test_forgets_the_oldest():
    driver = Driver(settings=DispatcherSettings(decisions=3))
    driver.add("a")
    for position in range(5):
        driver.dispatched(id=f"r{position}", client_id=f"c{position}")
    decisions = driver.dispatcher.decisions
    assert len(decisions) == 3
    known = [f"{kind}{i}" for kind in "rc" for i in range(5) if decisions.explain(f"{kind}{i}")]
    assert known == ["r2", "r3", "r4", "c2", "c3", "c4"]


def test_keeps_few_candidates_of_a_large_fleet():
    driver = Driver()
    driver.add(*[f"r{position:02}" for position in range(20)])
    dispatch = driver.dispatched(id="it")
    attempt = explain(driver, "it").attempts[0]
    assert attempt.considered == 20
    assert len(attempt.candidates) == MOST_CANDIDATES
    assert attempt.candidates[0].replica == dispatch.replica


def test_is_plain_data(driver):
    driver.complete(driver.dispatched(id="it").attempt)
    encoded = msgspec.json.encode(explain(driver, "it"))
    assert msgspec.json.decode(encoded, type=Explanation) == explain(driver, "it")


def test_what_is_forgotten_leaves_no_cycle_behind():
    driver = Driver(settings=DispatcherSettings(decisions=1))
    driver.add("a", "b")

    def use():
        driver.serve(text_bytes=2000)
        driver.fail(driver.dispatched().attempt, Outcome.REFUSED)

    use()
    gc.collect()
    gc.disable()
    try:
        for _ in range(40):
            use()
        assert gc.collect() < 40
    finally:
        gc.enable()


class TestHeld:
    """What the log tells of a request that was not sent at once."""

    def flight(self, ttft_target_s: float | None = None) -> Flight:
        request = Request("it", "model", Endpoint.CHAT, streamed=True, ttft_target_s=ttft_target_s)
        return Flight(request, ("model",), Tier("gold", ttft_s=1.0, tpot_s=0.02), now=10.0)

    def explain(self, flight: Flight) -> Explanation:
        decisions = Decisions(1)
        decisions.note(flight)
        explanation = decisions.explain("it")
        assert explanation is not None
        return explanation

    def test_one_that_waits(self):
        told = self.explain(self.flight())
        assert told.held_s is None
        assert told.reason == "held at the gateway: no replica has taken it yet"

    def test_one_that_was_left(self):
        flight = self.flight()
        flight.released_s = 12.5
        flight.land()
        told = self.explain(flight)
        assert told.held_s == 2.5
        assert told.reason == "its client went away while it was held at the gateway"

    def test_targets_are_the_tiers_but_for_those_it_brought(self):
        told = self.explain(self.flight())
        assert (told.tier, told.ttft_target_s, told.tpot_target_s) == ("gold", 1.0, 0.02)
        told = self.explain(self.flight(ttft_target_s=0.25))
        assert (told.tier, told.ttft_target_s, told.tpot_target_s) == ("gold", 0.25, 0.02)


def test_tells_what_was_promised_and_that_it_was_sent_at_once():
    gold = Tier("gold", ttft_s=1.0, tpot_s=0.02)
    driver = Driver(settings=DispatcherSettings(tiers=(gold,)))
    driver.add("a")
    driver.dispatched(id="it", tier="gold")
    told = explain(driver, "it")
    assert (told.held_s, told.tier, told.ttft_target_s) == (0.0, "gold", 1.0)
    driver.dispatched(id="other")
    assert explain(driver, "other").tier == "default"
    # A reload may take away a tier that a request under way has named.
    driver.dispatched(id="third", tier="gone")
    assert explain(driver, "third").tier == "default"


def test_a_refused_request_did_not_wait(driver):
    driver.rejected(id="it", model="unknown")
    told = explain(driver, "it")
    assert (told.held_s, told.attempts) == (0.0, ())


def test_a_second_hold_is_told_while_it_lasts_and_when_it_is_over():
    driver = Driver(PoolSpec("pool", "model", profile=PLAIN, wait_for_replica_s=60.0))
    driver.add("r1")
    attempt = driver.dispatched(id="a").attempt
    driver.wait(1.0)
    [again] = [each for each in driver.fail(attempt) if isinstance(each, Dispatch)]
    driver.fail(again.attempt)
    told = explain(driver, "a")
    assert [each.held_s for each in told.attempts] == [0.0, 0.0]
    assert told.held_again_s is None
    driver.gone("r1")
    driver.wait(7.5)
    [sent] = [each for each in driver.add("r2") if isinstance(each, Dispatch)]
    told = explain(driver, "a")
    assert [each.held_s for each in told.attempts] == [0.0, 0.0, 7.5]
    assert (told.held_s, told.held_again_s) == (0.0, 0.0)
    driver.complete(sent.attempt)
    assert explain(driver, "a").held_again_s == 0.0


def test_who_leaves_or_is_refused_in_a_second_hold_was_held_until_then():
    driver = Driver(PoolSpec("pool", "model", profile=PLAIN, wait_for_replica_s=60.0))
    driver.add("r1")
    for name in "ab":
        attempt = driver.dispatched(id=name).attempt
        [again] = [each for each in driver.fail(attempt) if isinstance(each, Dispatch)]
        driver.fail(again.attempt)
    driver.gone("r1")
    driver.wait(3.0)
    driver.send(Left("a"))
    assert explain(driver, "a").held_again_s == 3.0
    driver.wait(200.0)
    driver.wake()
    told = explain(driver, "b")
    assert "within 203 s" in told.rejected
    assert told.held_again_s == 203.0
