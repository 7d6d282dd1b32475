"""Who is held, who is sent when there is room, who is refused; on replicas that prefill 10,000
tokens in a second.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.events import ConfigChanged, Dispatch, Effect, Left, Reject, RejectReason, WakeAt
from headrace.core.health import EjectionSettings
from headrace.core.latency import LatencyProfile
from headrace.core.model import Outcome
from headrace.core.policies import POLICIES, make_policy
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Target
from headrace.core.waiting import LOOK_S, LOOKED_AT
from tests.unit.core.driver import Driver, only

PLAIN = LatencyProfile("plain", "profile plain", 0.0, 1e-4, per_sequence_s=1e-3)
POOL = PoolSpec("pool", "model", profile=PLAIN)
OTHER = PoolSpec("other-pool", "other", profile=PLAIN)
SECOND = 10_000
"""Tokens that take a second."""
LAX_S = 1.0
"""A TPOT target that is met in any company."""
AT_ONCE = [name for name in POLICIES if not make_policy(name).holds]


def fleet(
    *names: str,
    pools: tuple[PoolSpec, ...] = (POOL,),
    tier: Tier | None = None,
    admission: AdmissionSettings | None = None,
    aliases: tuple[Alias, ...] = (),
) -> Driver:
    settings = DispatcherSettings(
        tiers=(tier or Tier(),),
        admission=admission or AdmissionSettings(hold_above_missed=0.0),
        ejection=EjectionSettings(failures=1),
    )
    driver = Driver(*pools, settings=settings, aliases=aliases)
    driver.add(*names)
    return driver


def occupy(driver: Driver, *names: str, prompt_tokens: int = SECOND) -> list[int]:
    """Have each replica begin with a prefill; the attempts."""
    return [driver.dispatched(replica=name, prompt_tokens=prompt_tokens).attempt for name in names]


def hold(driver: Driver, name: str, model: str = "model", **details: Any) -> None:
    """One arrives and is held."""
    facts: dict[str, Any] = {"prompt_tokens": 100}
    effects = driver.arrive(model, id=name, **(facts | details))
    assert all(isinstance(each, WakeAt) for each in effects), effects
    assert waits(driver, name)


def waits(driver: Driver, name: str) -> bool:
    told = driver.dispatcher.decisions.explain(name)
    assert told is not None
    return told.held_s is None


def sent(effects: list[Effect]) -> list[str]:
    return [each.request_id for each in effects if isinstance(each, Dispatch)]


@pytest.fixture
def driver() -> Driver:
    return fleet("a")


# ---------------------------------------------------------------- held, and sent


def test_one_that_finds_room_is_sent_at_once(driver):
    assert sent(driver.arrive(id="x", prompt_tokens=SECOND)) == ["x"]
    driver.wait(0.7)
    assert sent(driver.arrive(id="y")) == ["y"]
    assert driver.dispatcher.held == {}


def test_one_that_finds_none_is_held_and_counted(driver):
    occupy(driver, "a")
    hold(driver, "x")
    hold(driver, "y")
    assert driver.dispatcher.held == {"model": 2}
    assert driver.replica("a").in_flight == 1


def test_a_first_token_makes_room(driver):
    (attempt,) = occupy(driver, "a")
    hold(driver, "x", prompt_tokens=SECOND)
    hold(driver, "y", prompt_tokens=SECOND)
    driver.wait(1.0)
    assert sent(driver.first_token(attempt)) == ["x"]
    assert driver.dispatcher.held == {"model": 1}
    told = driver.dispatcher.decisions.explain("x")
    assert told is not None
    assert told.held_s == 1.0


def test_an_end_makes_room(driver):
    (attempt,) = occupy(driver, "a")
    hold(driver, "x")
    driver.wait(0.1)
    assert sent(driver.fail(attempt, Outcome.ABORTED)) == ["x"]
    assert driver.dispatcher.held == {}


def test_a_slot_that_is_freed_is_room(driver):
    driver.scrape("a", max_sequences=1.0)
    (attempt,) = occupy(driver, "a")
    hold(driver, "x")
    driver.wait(1.0)
    assert sent(driver.first_token(attempt)) == []
    driver.wait(1.0)
    assert sent(driver.complete(attempt)) == ["x"]


def test_a_replica_that_becomes_ready_is_room(driver):
    occupy(driver, "a")
    hold(driver, "x")
    assert sent(driver.add("b", ready=False)) == []
    assert only(driver.add("b"), Dispatch).replica == "b"
    assert driver.dispatcher.held == {}


def test_a_replica_that_is_well_again_is_room():
    driver = fleet("a", "b")
    (on_a, on_b) = occupy(driver, "a", "b")
    driver.fail(on_b, Outcome.BROKEN)
    driver.first_token(on_a)
    occupy(driver, "a")
    hold(driver, "x")
    assert only(driver.probed("b", True), Dispatch).replica == "b"


def test_time_makes_room(driver):
    occupy(driver, "a")
    hold(driver, "x")
    driver.wait(0.6)
    assert sent(driver.wake()) == []
    driver.wait(0.1)
    assert sent(driver.wake()) == ["x"]


def test_time_makes_room_where_answers_are_not_streamed():
    """Nobody says when their prefills end: after two of a second each, both must be over."""
    driver = fleet("a", admission=AdmissionSettings(hold_above_s=0.9))
    driver.dispatched(prompt_tokens=SECOND, streamed=False)
    driver.wait(0.2)
    driver.dispatched(prompt_tokens=SECOND, streamed=False)
    hold(driver, "x")
    driver.wait(1.9)
    assert sent(driver.wake()) == ["x"]


def test_streams_alone_hold_nobody_up():
    """Their steps may be long on a slow machine, but it has nothing else to do."""
    slow = replace(PLAIN, per_sequence_s=0.2)
    driver = fleet("a", pools=(replace(POOL, profile=slow),))
    for _ in range(5):
        driver.first_token(driver.dispatched(prompt_tokens=10).attempt)
    assert sent(driver.arrive(id="x")) == ["x"]


def crowd(
    streams: int, hold_above_missed: float, *, ttl_s: float = 120.0, lax: int = 0
) -> tuple[Driver, list[int]]:
    """Streams that decode on `a`, one more of which makes steps a millisecond longer; their
    attempts. So many of them are in no hurry.
    """
    tier = Tier(shed_after_factor=0.0, ttl_s=ttl_s)
    driver = fleet("a", tier=tier)
    targets = [LAX_S] * lax + [None] * (streams - lax)
    attempts = [driver.dispatched(prompt_tokens=10, tpot_target_s=s).attempt for s in targets]
    for attempt in attempts:
        driver.first_token(attempt)
    driver.wait(24.5)  # as long as 490 tokens take; their prefills are forgotten
    admission = AdmissionSettings(hold_above_missed=hold_above_missed)
    settings = DispatcherSettings(tiers=(tier,), admission=admission)
    driver.send(ConfigChanged((POOL,), (), settings))
    return driver, attempts


def test_who_would_have_others_miss_their_targets_waits_until_fewer_are_left():
    """At a target of 50 ms, 50 streams are the most: one more has about two of them miss it."""
    driver, attempts = crowd(50, hold_above_missed=1.0)
    hold(driver, "x", prompt_tokens=10)
    ended = 0
    while not sent(driver.complete(attempts[ended], output_tokens=490)):
        ended += 1
    assert 3 <= ended <= 20


def test_a_replica_with_time_to_spare_takes_them_at_once():
    driver, _ = crowd(30, hold_above_missed=1.0)
    assert sent(driver.arrive(id="x", prompt_tokens=10)) == ["x"]


def test_zero_missed_targets_hold_nobody():
    driver, _ = crowd(50, hold_above_missed=0.0)
    assert sent(driver.arrive(id="x", prompt_tokens=10)) == ["x"]


def test_what_is_missed_goes_by_the_targets_of_those_who_are_there():
    """Not by those of the one that comes: that he has time is no reason to make others late."""
    driver, _ = crowd(50, hold_above_missed=1.0)
    hold(driver, "lax", prompt_tokens=10, tpot_target_s=LAX_S)
    driver, _ = crowd(50, hold_above_missed=1.0, lax=50)
    assert sent(driver.arrive(id="strict", prompt_tokens=10)) == ["strict"]


@pytest.mark.parametrize("target_s", [0.05, LAX_S])
def test_of_streams_with_different_targets_each_counts_by_its_own(target_s):
    """One more has about two of fifty miss 50 ms, so one of twenty-five."""
    driver, _ = crowd(50, hold_above_missed=0.75, lax=25)
    hold(driver, "x", prompt_tokens=10, tpot_target_s=target_s)
    driver, _ = crowd(50, hold_above_missed=1.5, lax=25)
    assert sent(driver.arrive(id="x", prompt_tokens=10, tpot_target_s=target_s)) == ["x"]
    driver, _ = crowd(50, hold_above_missed=1.5)
    hold(driver, "x", prompt_tokens=10, tpot_target_s=target_s)


def test_targets_are_forgotten_with_what_is_in_flight():
    driver, attempts = crowd(3, hold_above_missed=0.0, lax=1)

    def targets() -> dict[float, int]:
        return {each.target_s: each.attempts for each in driver.replica("a").tpot_targets}

    assert targets() == {LAX_S: 1, 0.05: 2}
    driver.dispatched(prompt_tokens=10, tpot_target_s=0.0333)
    assert targets() == {LAX_S: 1, 0.05: 2, 0.033: 1}
    for attempt in attempts:
        driver.complete(attempt, output_tokens=2)
    assert targets() == {0.033: 1}


def test_in_an_overload_a_lax_target_does_not_let_itself_in():
    """What is too slow goes by what those who come are usually promised."""
    driver, _ = crowd(70, hold_above_missed=0.0)
    long = driver.dispatched(prompt_tokens=17 * SECOND).attempt
    admission = AdmissionSettings(hold_above_missed=1.0)
    settings = DispatcherSettings(tiers=(Tier(shed_after_factor=0.0),), admission=admission)
    driver.send(ConfigChanged((POOL,), (), settings))
    for name in ("old 1", "old 2"):
        hold(driver, name)
    driver.wait(17.0)
    assert sent(driver.first_token(long)) == []
    hold(driver, "plain", prompt_tokens=10)
    hold(driver, "lax", prompt_tokens=10, tpot_target_s=3.0)


def test_who_is_held_for_others_is_held_for_seconds_for_each():
    driver, _ = crowd(50, hold_above_missed=1.0)
    hold(driver, "x", prompt_tokens=10)
    waited_s = 0.0
    while waited_s < 120.0 and not sent(driver.wake()):
        driver.wait(1.0)
        waited_s += 1.0
    assert 2.0 <= waited_s <= 12.0


def test_who_is_held_for_others_is_sent_before_it_would_be_refused():
    driver, _ = crowd(60, hold_above_missed=0.1, ttl_s=2.0)
    hold(driver, "x", prompt_tokens=10)
    driver.wait(0.9)
    assert sent(driver.wake()) == []
    driver.wait(0.2)
    assert sent(driver.wake()) == ["x"]


def test_room_is_given_by_priority_then_slack():
    driver = fleet("a", tier=Tier(ttft_s=60.0))
    settings = DispatcherSettings(tiers=(Tier(ttft_s=60.0), Tier("gold", ttft_s=90.0, priority=1)))
    driver.send(ConfigChanged((POOL,), (), settings))
    (attempt,) = occupy(driver, "a")
    hold(driver, "plain", prompt_tokens=SECOND)
    hold(driver, "hurried", prompt_tokens=SECOND, ttft_target_s=30.0)
    hold(driver, "gold", prompt_tokens=SECOND, tier="gold")
    order = list[str]()
    for _ in range(3):
        driver.wait(1.0)
        order += sent(effects := driver.first_token(attempt))
        attempt = only(effects, Dispatch).attempt
    assert order == ["gold", "hurried", "plain"]


@pytest.mark.parametrize(("tier", "first"), [("", ["waits"]), ("gold", ["comes"])])
def test_who_comes_does_not_take_the_room_of_one_above_it_that_waits(tier, first):
    """There is room by time alone, which nobody has looked at yet. Of equals who comes has it."""
    driver = fleet("a")
    admission = AdmissionSettings(hold_above_missed=0.0)
    tiers = (Tier(), Tier("gold", priority=1))
    settings = DispatcherSettings(tiers=tiers, admission=admission)
    driver.send(ConfigChanged((POOL,), (), settings))
    occupy(driver, "a")
    hold(driver, "waits", prompt_tokens=SECOND, tier="gold")
    driver.wait(0.7)
    assert sent(driver.arrive(id="comes", prompt_tokens=SECOND, tier=tier)) == first


def test_the_first_does_not_hold_up_those_that_find_room_elsewhere():
    driver = fleet("a", "b", tier=Tier(shed_after_factor=0.0, ttl_s=600.0))
    (_, on_b) = occupy(driver, "a", "b", prompt_tokens=5 * SECOND)
    hold(driver, "pinned", replica="a", ttft_target_s=0.5)
    names = [f"r{number}" for number in range(2 * LOOKED_AT)]
    for name in names:  # in no hurry once they run: it is room for prefills that they look for
        hold(driver, name, tpot_target_s=1.0)
    found = sent(driver.first_token(on_b))
    assert found == names[: LOOKED_AT - 1]
    found += sent(driver.wake())
    found += sent(driver.wake())
    assert found == names
    assert driver.dispatcher.held == {"model": 1}


def with_two_bands() -> tuple[Driver, int]:
    """A replica kept busy by an attempt; nobody is shed, and after ten seconds one starves."""
    plain, gold = Tier(shed_after_factor=0.0), Tier("gold", priority=1, shed_after_factor=0.0)
    driver = fleet("a")
    admission = AdmissionSettings(starved_after_s=10.0, hold_above_missed=0.0)
    settings = DispatcherSettings(tiers=(plain, gold), admission=admission)
    driver.send(ConfigChanged((POOL,), (), settings))
    (attempt,) = occupy(driver, "a")
    return driver, attempt


def test_no_band_starves_another():
    """Of priority 1 there come two for every one that is sent."""
    driver, attempt = with_two_bands()
    hold(driver, "x", prompt_tokens=SECOND)
    order = list[str]()
    for second in range(12):
        hold(driver, f"gold {second}", prompt_tokens=SECOND, tier="gold")
        hold(driver, f"more gold {second}", prompt_tokens=SECOND, tier="gold")
        driver.wait(1.0)
        effects = driver.first_token(attempt)
        order += sent(effects)
        attempt = only(effects, Dispatch).attempt
    assert order.index("x") == 9  # after ten seconds


def test_no_band_starves_another_that_comes_later():
    """By then many of the overloaded band are starved themselves, and older."""
    driver, attempt = with_two_bands()
    order = list[str]()
    for second in range(60):
        hold(driver, f"gold {second}", prompt_tokens=SECOND, tier="gold")
        hold(driver, f"more gold {second}", prompt_tokens=SECOND, tier="gold")
        if second == 30:
            hold(driver, "x", prompt_tokens=SECOND)
        driver.wait(1.0)
        effects = driver.first_token(attempt)
        order += sent(effects)
        attempt = only(effects, Dispatch).attempt
    # Ten seconds until it starves, and a turn of each band, of which others get four seconds.
    assert 40 <= order.index("x") <= 50


def test_models_wait_for_themselves():
    driver = fleet("a", pools=(POOL, OTHER))
    driver.add("o", pool="other-pool")
    on_a, on_o = occupy(driver, "a", "o")
    hold(driver, "x")
    hold(driver, "y", "other")
    assert driver.dispatcher.held == {"model": 1, "other": 1}
    assert sent(driver.first_token(on_o)) == ["y"]
    assert driver.dispatcher.held == {"model": 1}
    assert sent(driver.first_token(on_a)) == ["x"]


@pytest.mark.parametrize("policy", AT_ONCE)
def test_policies_of_others_hold_nothing(policy):
    driver = fleet("a", pools=(replace(POOL, policy=policy),))
    for _ in range(5):
        driver.dispatched(prompt_tokens=SECOND)
    assert driver.dispatcher.held == {}


def test_before_there_is_a_profile_nothing_is_held_or_shed():
    tier = Tier(shed_after_factor=0.001)
    driver = fleet("a", pools=(PoolSpec("pool", "model"),), tier=tier)
    for _ in range(5):
        driver.dispatched(prompt_tokens=SECOND)


# ---------------------------------------------------------------- wakes


def test_while_something_is_held_a_wake_is_coming(driver):
    occupy(driver, "a", prompt_tokens=2 * SECOND)
    wake = only(driver.arrive(id="x"), WakeAt)
    assert wake.at_s == driver.now + LOOK_S
    assert driver.arrive(id="y") == []
    for _ in range(6):
        driver.now = wake.at_s
        wake = only(driver.wake(), WakeAt)
        assert wake.at_s == driver.now + LOOK_S
        assert driver.dispatcher.held == {"model": 2}
    driver.now = wake.at_s
    assert sent(driver.wake()) == ["x"]


def test_a_wake_is_coming_also_when_all_that_were_looked_at_were_sent(driver):
    (attempt,) = occupy(driver, "a")
    for number in range(2 * LOOKED_AT + 1):
        hold(driver, f"x{number}")
    assert len(sent(driver.first_token(attempt))) == LOOKED_AT
    driver.wait(LOOK_S)
    effects = driver.wake()
    assert len(sent(effects)) == LOOKED_AT
    assert driver.dispatcher.held == {"model": 1}
    assert only(effects, WakeAt).at_s == driver.now + LOOK_S


@pytest.mark.parametrize("early_s", [1e-6, 0.0015])
def test_a_timer_that_goes_off_a_little_early_is_no_harm(driver, early_s):
    occupy(driver, "a")
    wake = only(driver.arrive(id="x"), WakeAt)
    driver.now = wake.at_s - early_s
    assert only(driver.wake(), WakeAt).at_s == driver.now + LOOK_S


def test_wakes_do_not_become_more_with_every_request_that_is_held(driver):
    coming, running = list[float](), list[int]()

    def take(effects: list[Effect]) -> None:
        coming.extend(each.at_s for each in effects if isinstance(each, WakeAt))
        running.extend(each.attempt for each in effects if isinstance(each, Dispatch))

    for number in range(50):
        take(driver.arrive(prompt_tokens=SECOND))
        take(driver.arrive(id=f"x{number}"))
        assert driver.dispatcher.held == {"model": 1}
        end_s = driver.now + 1.0
        while coming and min(coming) <= end_s:
            driver.now = min(coming)
            coming.remove(driver.now)
            take(driver.wake())
        driver.now = end_s
        assert driver.dispatcher.held == {}
        for attempt in running:
            driver.first_token(attempt)
            driver.complete(attempt)
        running.clear()
        assert len(coming) <= 3


# ---------------------------------------------------------------- refused


def test_what_would_take_too_long_is_shed():
    driver = fleet("a", tier=Tier(ttft_s=2.0, shed_after_factor=1.5))
    occupy(driver, "a")
    hold(driver, "x", prompt_tokens=2 * SECOND)
    reject = driver.rejected(id="y", prompt_tokens=4 * SECOND)
    assert (reject.status, reject.reason) == (429, RejectReason.OVERLOADED)
    assert "would take 7 s, over the 3 s that tier 'default' tolerates" in reject.message
    assert reject.retry_after_s == pytest.approx(4.0, rel=0.05)
    assert driver.dispatcher.held == {"model": 1}


def test_what_waits_counts_by_the_replicas_that_share_it():
    driver = fleet("a", "b", tier=Tier(ttft_s=2.0, shed_after_factor=1.5))
    occupy(driver, "a", "b")
    hold(driver, "x", prompt_tokens=2 * SECOND)
    hold(driver, "y", prompt_tokens=int(0.9 * SECOND))
    assert driver.rejected(prompt_tokens=SECOND).status == 429


def test_a_target_of_its_own_is_what_it_is_shed_by():
    driver = fleet("a", tier=Tier(ttft_s=0.5, shed_after_factor=1.0))
    occupy(driver, "a")
    assert driver.rejected(prompt_tokens=2 * SECOND).status == 429
    hold(driver, "x", prompt_tokens=2 * SECOND, ttft_target_s=4.0)


def test_a_prompt_that_is_long_by_itself_is_not_shed():
    driver = fleet("a", tier=Tier(ttft_s=2.0, shed_after_factor=1.0))
    # It would take as long at any time.
    assert driver.dispatched(prompt_tokens=50 * SECOND).replica == "a"


def test_policies_that_hold_nothing_shed_too():
    pool = replace(POOL, policy="least_requests")
    driver = fleet("a", pools=(pool,), tier=Tier(ttft_s=1.5, shed_after_factor=1.0))
    driver.dispatched(prompt_tokens=SECOND)
    driver.dispatched(prompt_tokens=SECOND)
    assert driver.rejected(prompt_tokens=SECOND).status == 429


def test_a_tier_may_say_that_nothing_is_shed():
    driver = fleet("a", tier=Tier(ttft_s=0.001, shed_after_factor=0.0))
    occupy(driver, "a")
    for number in range(5):
        hold(driver, f"x{number}", prompt_tokens=50 * SECOND)


def test_what_is_held_already_is_not_shed():
    tier = Tier(ttft_s=2.0, shed_after_factor=1.0)
    driver = fleet("a", tier=tier)
    (attempt,) = occupy(driver, "a")
    hold(driver, "x", prompt_tokens=SECOND - 100)
    driver.send(ConfigChanged((POOL,), (), DispatcherSettings(tiers=(Tier(ttft_s=0.01),))))
    assert waits(driver, "x")
    assert sent(driver.first_token(attempt)) == ["x"]


def test_only_so_many_may_wait():
    driver = fleet("a", admission=AdmissionSettings(max_held=2))
    (attempt,) = occupy(driver, "a")
    hold(driver, "x")
    hold(driver, "y")
    reject = driver.rejected()
    assert (reject.status, reject.reason) == (429, RejectReason.OVERLOADED)
    assert reject.retry_after_s == 2.0
    assert "admission.max_held" in reject.message
    driver.send(Left("y"))
    hold(driver, "z")
    assert sent(driver.first_token(attempt)) == ["x", "z"]


def test_nobody_is_sent_away_for_more_than_a_minute():
    patient = Tier(ttft_s=600.0)
    driver = fleet("a", tier=patient, admission=AdmissionSettings(max_held=0))
    occupy(driver, "a")
    assert driver.rejected().retry_after_s == 60.0


def test_nobody_is_refused_for_the_queue_of_a_fall_back_while_the_target_is_full_for_a_moment():
    alias = Alias("chat", (Target("model"),), ("other",))
    driver = fleet("a", pools=(POOL, OTHER), tier=Tier(shed_after_factor=2.0), aliases=(alias,))
    driver.add("b", pool="other-pool")
    driver.dispatched("other", prompt_tokens=10 * SECOND)
    driver.fail(driver.dispatched("chat").attempt, status=503)
    hold(driver, "it", "chat")
    assert driver.rejected("other", prompt_tokens=100).status == 429
    driver.wait(1.0)
    dispatch = only(driver.wake(), Dispatch)
    assert (dispatch.request_id, dispatch.model) == ("it", "model")


def urgent_and_bulk(**admission: Any) -> Driver:
    """One replica that is occupied for a second, and tiers above and below the usual one."""
    driver = fleet("a")
    tiers = (Tier("urgent", priority=9, shed_after_factor=2.0), Tier("bulk", priority=-9))
    settings = AdmissionSettings(hold_above_missed=0.0, **admission)
    driver.send(ConfigChanged((POOL,), (), DispatcherSettings(tiers=tiers, admission=settings)))
    return driver


def test_what_waits_with_a_lower_priority_sheds_nobody():
    driver = urgent_and_bulk()
    (attempt,) = occupy(driver, "a")
    for number in range(5):
        hold(driver, f"b{number}", tier="bulk", prompt_tokens=SECOND)
    hold(driver, "u0", tier="urgent", prompt_tokens=2 * SECOND)
    assert driver.rejected(tier="urgent", prompt_tokens=2 * SECOND).status == 429
    assert sent(driver.first_token(attempt)) == ["u0"]


def test_who_is_of_a_lower_priority_makes_room_where_too_many_wait():
    driver = urgent_and_bulk(max_held=2)
    occupy(driver, "a")
    hold(driver, "b0", tier="bulk")
    hold(driver, "b1", tier="bulk")
    effects = driver.arrive(id="u0", tier="urgent", prompt_tokens=100)
    (reject,) = [each for each in effects if isinstance(each, Reject)]
    assert (reject.request_id, reject.status) == ("b1", 429)
    assert waits(driver, "u0")
    assert waits(driver, "b0")
    assert driver.dispatcher.held == {"model": 2}
    assert driver.rejected(tier="bulk").status == 429
    driver.arrive(id="u1", tier="urgent", prompt_tokens=100)
    assert driver.rejected(tier="urgent").status == 429


def test_who_makes_room_may_wait_for_another_model():
    tiers = (Tier("urgent", priority=9), Tier("bulk", priority=-9))
    settings = AdmissionSettings(hold_above_missed=0.0, max_held=2)
    driver = Driver(POOL, OTHER, settings=DispatcherSettings(tiers=tiers, admission=settings))
    driver.add("a")
    driver.add("b", pool="other-pool")
    driver.dispatched(prompt_tokens=SECOND)
    driver.dispatched("other", prompt_tokens=SECOND)
    hold(driver, "plain")
    hold(driver, "bulk", "other", tier="bulk")
    effects = driver.arrive(id="urgent", tier="urgent", prompt_tokens=100)
    assert [each.request_id for each in effects if isinstance(each, Reject)] == ["bulk"]
    assert driver.dispatcher.held == {"model": 2}


def test_who_was_held_for_its_time_to_live_gets_503():
    driver = fleet("a", tier=Tier(ttl_s=3.0))
    (attempt,) = occupy(driver, "a", prompt_tokens=9 * SECOND)
    hold(driver, "x")
    driver.wait(2.9)
    assert [each for each in driver.wake() if isinstance(each, Reject)] == []
    driver.wait(0.1)
    reject = only(driver.wake(), Reject)
    assert (reject.request_id, reject.status) == ("x", 503)
    assert reject.reason == RejectReason.HELD_TOO_LONG
    assert driver.dispatcher.held == {}
    assert sent(driver.first_token(attempt)) == []


@pytest.mark.parametrize(("ttft_s", "told_s"), [(0.5, 1.0), (7.0, 7.0), (600.0, 60.0)])
def test_who_was_held_too_long_comes_again_as_who_is_refused_for_a_full_queue(ttft_s, told_s):
    driver = fleet("a", tier=Tier(ttft_s=ttft_s, ttl_s=3.0), admission=AdmissionSettings(1))
    occupy(driver, "a", prompt_tokens=9 * SECOND)
    hold(driver, "x")
    assert driver.rejected().retry_after_s == told_s
    driver.wait(3.0)
    assert only(driver.wake(), Reject).retry_after_s == told_s


def test_who_left_is_forgotten(driver):
    (attempt,) = occupy(driver, "a")
    hold(driver, "x")
    driver.wait(0.5)
    assert driver.send(Left("x")) == []
    assert driver.dispatcher.held == {}
    assert driver.send(Left("x")) == []
    assert driver.send(Left("unknown")) == []
    assert sent(driver.first_token(attempt)) == []
    told = driver.dispatcher.decisions.explain("x")
    assert told is not None
    assert told.held_s == 0.5


# ---------------------------------------------------------------- sent again, pinned


def test_who_is_tried_again_is_neither_held_nor_shed():
    driver = fleet("a", "b")
    occupy(driver, "b", prompt_tokens=3 * SECOND)
    first = driver.dispatched(id="x", prompt_tokens=SECOND)
    assert first.replica == "a"
    hold(driver, "y", replica="b")
    tier = Tier(ttft_s=0.01, shed_after_factor=1.0)
    driver.send(ConfigChanged((POOL,), (), DispatcherSettings(tiers=(tier,))))
    assert only(driver.fail(first.attempt), Dispatch).replica == "b"
    assert driver.dispatcher.held == {"model": 1}


def test_one_that_a_single_replica_can_answer_waits_for_that_one():
    driver = fleet("a", "b")
    (attempt,) = occupy(driver, "a")
    hold(driver, "x", replica="a")
    assert sent(driver.wake()) == []
    assert only(driver.first_token(attempt), Dispatch).replica == "a"


def test_and_is_refused_when_that_one_goes():
    driver = fleet("a", "b")
    occupy(driver, "a")
    hold(driver, "x", replica="a")
    reject = only(driver.gone("a"), Reject)
    assert (reject.request_id, reject.status) == ("x", 503)
    assert "replica 'a', the only one that can answer this, is not ready" in reject.message
    assert driver.dispatcher.held == {}


# ---------------------------------------------------------------- while they wait


def test_when_all_replicas_are_gone_nobody_waits_any_more():
    driver = fleet("a", "b")
    occupy(driver, "a", "b")
    hold(driver, "x")
    hold(driver, "y")
    assert driver.gone("a") == []
    rejects = [each for each in driver.gone("b") if isinstance(each, Reject)]
    assert [(each.request_id, each.status, each.reason) for each in rejects] == [
        ("x", 503, RejectReason.NO_REPLICA),
        ("y", 503, RejectReason.NO_REPLICA),
    ]
    assert driver.dispatcher.held == {}


def test_when_the_last_replica_is_not_ready_any_more_neither(driver):
    occupy(driver, "a")
    hold(driver, "x")
    assert only(driver.add("a", ready=False), Reject).reason == RejectReason.NO_REPLICA


def test_when_the_last_replica_is_ejected_it_is_tried_all_the_same(driver):
    (attempt,) = occupy(driver, "a")
    hold(driver, "x")
    assert only(driver.fail(attempt, Outcome.BROKEN), Dispatch).request_id == "x"
    assert driver.dispatcher.held == {}


def test_when_its_pool_is_dissolved_it_is_refused(driver):
    occupy(driver, "a")
    hold(driver, "x")
    reject = only(driver.send(ConfigChanged((OTHER,), ())), Reject)
    assert (reject.request_id, reject.reason) == ("x", RejectReason.NO_REPLICA)
    assert driver.dispatcher.held == {}


def test_when_its_route_changes_it_waits_there_and_is_sent_once():
    alias = Alias("chat", (Target("model"),), fallbacks=("other",))
    admission = AdmissionSettings(max_held=1)
    driver = fleet("a", pools=(POOL, OTHER), aliases=(alias,), admission=admission)
    driver.add("o", pool="other-pool")
    on_a, on_o = occupy(driver, "a", "o")
    hold(driver, "x", "chat")
    assert driver.dispatcher.held == {"model": 1}
    assert sent(driver.gone("a")) == []
    assert driver.dispatcher.held == {"other": 1}
    assert sent(driver.first_token(on_o)) == ["x"]
    assert sent(driver.fail(on_a, Outcome.ABORTED)) == []
    assert driver.dispatcher.held == {}


def aliased(*targets: str) -> Alias:
    return Alias("chat", tuple(Target(target) for target in targets))


def test_a_reload_to_another_target_sends_what_is_held_there():
    driver = fleet("a", pools=(POOL, OTHER), aliases=(aliased("model"),))
    driver.add("o", pool="other-pool")
    occupy(driver, "a")
    hold(driver, "x", "chat")
    hold(driver, "y")  # which named its model
    effects = driver.send(ConfigChanged((POOL, OTHER), (aliased("other"),)))
    assert [each.model for each in effects if isinstance(each, Dispatch)] == ["other"]
    assert sent(effects) == ["x"]
    assert driver.dispatcher.held == {"model": 1}


def test_a_reload_that_leaves_an_alias_as_it_is_or_takes_it_away_leaves_what_is_held_its_way():
    driver = fleet("a", pools=(POOL, OTHER), aliases=(aliased("model", "other"),))
    driver.add("o", pool="other-pool")
    on_a, _ = occupy(driver, "a", "o")
    for request in "wxyz":
        hold(driver, request, "chat")
    held = dict(driver.dispatcher.held)
    assert len(held) == 2  # each by its own draw
    new = Alias("new", (Target("model"),))
    for aliases in ((aliased("model", "other"), new), (new,)):
        assert sent(driver.send(ConfigChanged((POOL, OTHER), aliases))) == []
        assert driver.dispatcher.held == held
    assert len(sent(driver.complete(on_a))) == held["model"]


def test_a_reload_may_take_its_tier_away():
    driver = fleet("a", tier=Tier("gold", ttft_s=1.0, ttl_s=5.0))
    (attempt,) = occupy(driver, "a", prompt_tokens=9 * SECOND)
    hold(driver, "x", tier="gold")
    hold(driver, "y", tier="gold")
    driver.send(ConfigChanged((POOL,), (), DispatcherSettings()))
    assert driver.dispatcher.held == {"model": 2}
    driver.send(Left("y"))
    driver.wait(5.0)
    # It was promised to wait no longer than that.
    assert only(driver.wake(), Reject).reason == RejectReason.HELD_TOO_LONG
    driver.first_token(attempt)
    assert sent(driver.arrive(id="z", tier="gold")) == ["z"]


def test_a_reload_that_allows_more_at_the_engines_takes_effect_at_once(driver):
    occupy(driver, "a")
    hold(driver, "x")
    settings = DispatcherSettings(admission=AdmissionSettings(hold_above_s=1.5))
    assert sent(driver.send(ConfigChanged((POOL,), (), settings))) == ["x"]


def test_a_reload_to_a_policy_that_holds_nothing_lets_all_go(driver):
    occupy(driver, "a")
    hold(driver, "x")
    hold(driver, "y")
    pool = replace(POOL, policy="round_robin")
    assert sent(driver.send(ConfigChanged((pool,), ()))) == ["x", "y"]
    assert driver.dispatcher.held == {}
