"""Candidates are ordered as the tuples of their first four fields would be; tokens are rounded as
Python rounds. Both are written out for compiled code."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import routing
from headrace.core.candidates import RANK, Candidate, cheapest

FEW = st.integers(0, 2)


def candidate(cost: float, in_flight: int, last_attempt: int, replica: str) -> Candidate:
    met = (1, 2, 3, 4, None)
    return Candidate(
        cost, in_flight, last_attempt, replica, *met, True, 0.1, 0.2, 0.3, 0.4, 5.0, 0.6, 0.7
    )


@given(st.lists(st.tuples(FEW.map(float), FEW, FEW, st.sampled_from("abc")), min_size=1))
def test_the_pick_is_the_first_in_order(ranks: list[tuple[float, int, int, str]]):
    candidates = [candidate(*rank) for rank in ranks]
    assert [RANK(each) for each in candidates] == ranks
    first = candidates[0]
    assert [each.precedes(first) for each in candidates] == [rank < ranks[0] for rank in ranks]
    assert cheapest(candidates) is candidates[ranks.index(min(ranks))]


def test_harm_to_others_is_part_of_the_cost_and_nothing_else_changes():
    before = replace(candidate(1.0, 2, 3, "a"), others_missed=1.5, decoding_s=0.7)
    defaulted = [
        field for field in fields(Candidate) if getattr(before, field.name) == field.default
    ]
    assert not defaulted  # a field that is forgotten would be its default
    after = before.harming(0.25)
    assert after == replace(before, cost=1.25, others_s=before.others_s + 0.25)


def test_the_first_token_comes_after_queue_slot_and_prefill():
    assert candidate(1.0, 2, 3, "a").ttft_s == pytest.approx(0.1 + 0.2 + 0.3)


@given(st.one_of(st.floats(0.0, 1e15), st.integers(0, 1_000_000).map(lambda n: n + 0.5)))
def test_tokens_are_rounded_to_even(number: float):
    assert routing.rounded(number) == round(number)
