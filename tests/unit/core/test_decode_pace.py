"""How long a step is and how much it attends to, as streams show it."""

from __future__ import annotations

import pytest

from headrace.core.decode_pace import FEWEST_STEPS, MARK_EVERY_S, WINDOW_S, DecodePace
from tests.unit.core.driver import Driver

PROMPT_TOKENS = 1000
TICK_S = 0.25


class Stream:
    """One stream on a fleet of its own, told of four times a second."""

    def __init__(self, sequences: int = 1) -> None:
        self.driver = Driver()
        self.driver.add("r1")
        sent = self.driver.dispatched(prompt_tokens=PROMPT_TOKENS, sequences=sequences)
        self.attempt = sent.attempt
        self.replica = self.driver.replica("r1")
        self.tokens = sequences
        self.driver.wait(0.1)
        self.driver.first_token(self.attempt)
        self.pace = DecodePace()
        self.look()

    def look(self) -> None:
        self.pace.note(self.replica, self.driver.now)

    def decode(self, seconds: float, tokens_per_s: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.driver.wait(TICK_S)
            self.tokens += round(tokens_per_s * TICK_S)
            self.driver.progress(self.attempt, self.tokens)
            self.look()


def test_steps_are_counted_from_one_telling_to_the_next():
    stream = Stream()
    stream.decode(TICK_S, 100)
    assert (stream.replica.paced_s, stream.replica.paced_steps) == (0.0, 0.0)
    stream.decode(10.0, 40)
    assert stream.replica.paced_s == pytest.approx(10.0)
    assert stream.pace.step_s == pytest.approx(1 / 40)
    assert stream.pace.context_tokens == pytest.approx(PROMPT_TOKENS + 25 + 200, rel=0.02)


def test_of_sequences_side_by_side_each_has_its_share_of_the_tokens():
    stream = Stream(sequences=4)
    stream.decode(10.0, 160)
    assert stream.pace.step_s == pytest.approx(1 / 40)


def test_it_is_of_the_last_minute():
    stream = Stream()
    stream.decode(120.0, 100)
    stream.decode(WINDOW_S + 6.0, 40)
    assert stream.pace.step_s == pytest.approx(1 / 40)


def test_a_few_steps_tell_nothing_and_neither_does_silence():
    stream = Stream()
    assert stream.pace.step_s is None
    stream.decode(2 * TICK_S, FEWEST_STEPS / TICK_S / 2)
    assert stream.pace.step_s is None
    stream.decode(10.0, 40)
    assert stream.pace.step_s is not None
    for _ in range(2):
        stream.driver.wait(WINDOW_S)
        stream.look()
    assert stream.pace.step_s is None


def test_what_decodes_counts_for_as_long_as_it_does_though_nothing_is_told():
    stream = Stream()
    stream.driver.wait(30.0)
    stream.look()
    assert stream.pace.context_tokens == pytest.approx(PROMPT_TOKENS)


def test_nothing_is_told_before_time_has_passed():
    stream = Stream()
    assert stream.pace.context_tokens is None
    stream.look()
    assert stream.pace.context_tokens is None


def test_what_is_kept_does_not_grow_with_how_often_somebody_looks():
    stream = Stream()
    stream.decode(2 * WINDOW_S, 40)
    assert len(stream.pace._marks) <= WINDOW_S / MARK_EVERY_S + 2


def test_another_replica_of_the_name_begins_anew():
    stream = Stream()
    stream.decode(10.0, 40)
    other = Stream()
    stream.pace.note(other.replica, stream.driver.now)
    assert stream.pace.step_s is None


def test_another_one_of_which_no_step_was_told_either_begins_anew():
    """Answers may be too short for that; less than nothing would make all figures unbelievable."""
    stream = Stream()
    for _ in range(10):
        stream.driver.wait(10.0)
        stream.look()
    other = Driver()
    other.add("r1")
    for _ in range(2):
        stream.driver.wait(1.0)
        stream.pace.note(other.replica("r1"), stream.driver.now)
    assert stream.pace.context_tokens == 0.0
