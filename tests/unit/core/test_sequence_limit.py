"""What scrapes teach of how many sequences an engine runs side by side, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.core.events import ConfigChanged
from headrace.core.sequence_limit import SCRAPES
from tests.unit.core.driver import POOL, Driver

LIMIT, WAITING = 8, 3


class BusyEngine:
    """Replica "a" with so many streams that decode, and more requests that wait there."""

    def __init__(
        self, running: int = LIMIT, waiting: int = WAITING, *, streamed: bool = True
    ) -> None:
        self.driver = Driver()
        self.driver.add("a")
        self.decoding = list[int]()
        self.behind = list[int]()
        self.streamed = streamed
        for _ in range(running + waiting):
            self.come()
        for _ in range(running):
            self.begin()
        self.told = {
            "running": float(running),
            "queue_depth": float(waiting),
            "waiting_for_room": float(waiting),
            "kv_usage_ratio": 0.3,
            "kv_capacity_tokens": 400_000.0,
        }

    def come(self) -> None:
        self.behind.append(self.driver.dispatched(streamed=self.streamed).attempt)

    def begin(self) -> None:
        self.decoding.append(self.behind.pop(0))
        self.driver.first_token(self.decoding[-1])

    def end(self) -> None:
        self.driver.complete(self.decoding.pop(0))

    def turn(self) -> None:
        """One ends, the next begins, another one comes."""
        self.driver.wait(1.0)
        self.end()
        self.begin()
        self.come()

    def scraped(self, **otherwise: float | None) -> float | None:
        """A turn, and what is known of the limit after a scrape."""
        self.turn()
        told = {name: value for name, value in (self.told | otherwise).items() if value is not None}
        self.driver.scrape("a", **told)
        return self.known

    def learn(self, **otherwise: float | None) -> float | None:
        for _ in range(4 * SCRAPES):
            self.scraped(**otherwise)
        return self.known

    def why(self) -> str:
        """What is said of the latest decision."""
        explained = self.driver.dispatcher.decisions.explain_last()
        assert explained is not None
        return explained.reason

    @property
    def known(self) -> float | None:
        return self.driver.replica("a").max_sequences


def test_the_number_that_stays_while_requests_wait_is_the_limit():
    engine = BusyEngine()
    heard = [engine.scraped() for _ in range(SCRAPES)]
    assert heard == [None] * (SCRAPES - 1) + [LIMIT]


def test_whoever_comes_waits_for_a_place_from_then_on():
    engine = BusyEngine()
    engine.driver.dispatched()
    assert "slot" not in engine.why()
    engine.learn()
    engine.driver.dispatched()
    assert "wait for a slot" in engine.why()


def test_what_the_engine_tells_counts_more():
    engine = BusyEngine()
    assert engine.learn(max_sequences=64.0) == 64.0
    assert engine.scraped() == LIMIT


def test_nobody_waits_nothing_is_learned():
    assert BusyEngine().learn(queue_depth=0.0, waiting_for_room=0.0) is None


def test_who_waits_for_something_else_teaches_nothing():
    """A LoRA adapter, say; or the engine does not tell what they wait for."""
    assert BusyEngine().learn(waiting_for_room=0.0) is None
    assert BusyEngine().learn(waiting_for_room=None) is None


@pytest.mark.parametrize(
    "told",
    [
        {"kv_usage_ratio": 0.95},
        {"kv_usage_ratio": None},
        {"kv_capacity_tokens": None},
        # A tenth is free, which is less than two requests hold.
        {"kv_usage_ratio": 0.9, "kv_capacity_tokens": 15_000.0},
    ],
)
def test_a_cache_that_may_be_what_they_wait_for_teaches_nothing(told: dict[str, float | None]):
    assert BusyEngine().learn(**told) is None


def test_a_prompt_in_work_may_take_what_the_step_had_to_give():
    """As many run, but one of them is always prefilled: its chunks are why others wait."""
    engine = BusyEngine(running=LIMIT - 1, waiting=WAITING + 1)
    assert engine.learn(running=float(LIMIT), waiting_for_room=float(WAITING)) is None
    # With one more among those that decode it is another matter.
    engine.begin()
    engine.come()
    assert engine.learn(running=float(LIMIT), waiting_for_room=float(WAITING)) == LIMIT


def test_answers_in_one_piece_hide_whether_a_prompt_is_in_work():
    assert BusyEngine(streamed=False).learn() is None


def test_who_came_during_the_step_in_work_waits_for_nothing_but_its_end():
    """Answers of two tokens: of eight sequences four end with each step, and one who waits is
    admitted by the next.
    """
    engine = BusyEngine()
    pool = engine.driver.replica("a").pool
    for _ in range(4 * SCRAPES):
        pool.output_tokens_mean = 2.0
        assert engine.scraped(waiting_for_room=1.0) is None


def test_the_same_scrape_once_more_is_no_further_evidence():
    engine = BusyEngine()
    engine.scraped()
    for _ in range(4 * SCRAPES):
        engine.driver.scrape("a", **engine.told)
    assert engine.known is None


def test_fewer_that_run_while_others_wait_void_what_was_gathered():
    """A limit would have let them in."""
    engine = BusyEngine()
    for _ in range(4):
        for _ in range(SCRAPES - 1):
            assert engine.scraped() is None
        engine.scraped(running=LIMIT / 2)
    assert engine.known is None


def test_a_place_that_is_free_for_a_moment_says_nothing():
    """vLLM counts when a step has ended: who ended with it has left, nobody has come yet."""
    engine = BusyEngine()
    for _ in range(SCRAPES + 1):
        engine.scraped()
        engine.scraped(running=LIMIT - 1.0)
    assert engine.known == LIMIT


def test_places_of_many_that_ended_at_once_say_nothing():
    """Answers that are all alike end together, and a prefill of as many takes its time."""
    engine = BusyEngine()
    for _ in range(SCRAPES):
        engine.scraped()
        for _ in range(LIMIT - 2):
            engine.turn()
        engine.scraped(running=2.0)
    assert engine.known == LIMIT


def test_fewer_that_run_later_do_not_lower_it():
    engine = BusyEngine()
    engine.learn()
    assert engine.learn(running=LIMIT - 1.0) == LIMIT
    assert engine.learn(running=2.0) == LIMIT


def test_more_that_run_disprove_it_at_once():
    engine = BusyEngine()
    engine.learn()
    assert engine.scraped(running=LIMIT + 1.0) is None
    assert engine.learn() is None  # eight are not the most any more


def test_an_engine_whose_counters_start_anew_is_another_one():
    engine = BusyEngine()
    assert engine.learn(output_tokens_total=9000.0) == LIMIT
    assert engine.scraped(output_tokens_total=100.0, running=1.0) is None
    # What the one before ran says nothing of this one, which may run fewer.
    engine.end()
    engine.driver.complete(engine.behind.pop())
    assert engine.learn(running=LIMIT - 1.0, output_tokens_total=200.0) == LIMIT - 1


@pytest.mark.parametrize("url", ["http://a", "http://elsewhere"])
def test_a_replica_that_restarts_has_to_show_it_again(url: str):
    engine = BusyEngine()
    engine.learn()
    if url == "http://a":
        engine.driver.add("a", ready=False)
    engine.driver.add("a", url=url)
    assert engine.known is None
    assert engine.scraped() is None
    assert engine.learn() == LIMIT


def test_a_replica_that_is_gone_is_forgotten():
    engine = BusyEngine()
    engine.learn()
    engine.driver.gone("a")
    engine.driver.add("a")
    assert engine.known is None
    engine.driver.scrape("a", **engine.told)
    assert engine.known is None


class TestOthersOfThePool:
    def test_are_believed_to_be_alike(self):
        engine = BusyEngine()
        engine.driver.add("b")
        engine.learn()
        engine.driver.scrape("b", running=2.0)
        assert engine.driver.replica("b").max_sequences == LIMIT

    def test_are_sent_one_more_until_they_have_shown_it_too(self):
        engine = BusyEngine()
        engine.driver.add("b")
        engine.learn()
        engine.driver.scrape("b", running=2.0)
        a, b = engine.driver.replica("a"), engine.driver.replica("b")
        assert (a.max_sequences, a.places) == (LIMIT, LIMIT)
        assert (b.max_sequences, b.places) == (LIMIT, LIMIT + 1)

    def test_are_believed_to_be_alike_from_the_moment_they_come(self):
        """Or all who wait would be sent there before the first scrape."""
        engine = BusyEngine()
        engine.learn()
        engine.driver.add("b")
        assert engine.driver.replica("b").max_sequences == LIMIT
        engine.driver.add("b", url="http://elsewhere")
        assert engine.driver.replica("b").max_sequences == LIMIT

    def test_are_not_where_more_run(self):
        engine = BusyEngine()
        engine.driver.add("b")
        engine.learn()
        for running in (LIMIT + 1.0, 2.0):
            engine.driver.scrape("b", running=running)
            assert engine.driver.replica("b").max_sequences is None
        assert engine.known == LIMIT

    def test_count_for_nothing_where_two_have_shown_different_limits(self):
        engine = BusyEngine()
        engine.learn()
        roster = engine.driver.dispatcher._roster
        engine.driver.add("b", "c")
        roster._limits["b"].learned = 2.0 * LIMIT
        roster._agree(engine.driver.replica("a").pool)
        engine.driver.scrape("c", running=1.0)
        assert engine.driver.replica("c").max_sequences is None
        # With the one that was different its limit is gone, too.
        engine.driver.gone("b")
        engine.driver.scrape("c", running=1.0)
        assert engine.driver.replica("c").max_sequences == LIMIT

    def test_forget_it_with_the_one_that_has_shown_it(self):
        engine = BusyEngine()
        engine.driver.add("b")
        engine.learn()
        engine.driver.add("a", ready=False)
        engine.driver.add("a")
        engine.driver.scrape("b", running=2.0)
        assert engine.driver.replica("b").max_sequences is None

    def test_of_another_pool_have_a_limit_of_their_own(self):
        engine = BusyEngine()
        engine.driver.send(ConfigChanged((POOL, replace(POOL, name="other")), ()))
        engine.driver.add("b", pool="other")
        engine.learn()
        engine.driver.scrape("b", running=2.0)
        assert engine.driver.replica("b").max_sequences is None
