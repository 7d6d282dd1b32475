"""Rows are ordered as the tuples of their first four fields would be; tokens are rounded as Python
rounds. Both are written out for compiled code."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.core import routing
from headrace.core.candidates import Candidate, Row, cheapest

FEW = st.integers(0, 2)


def row(cost: float, in_flight: int, last_attempt: int, replica: str, **known: bool) -> Row:
    in_seconds = known.get("in_seconds", True)
    met = (1, 2, 3, 4, None)
    return Row(
        cost, in_flight, last_attempt, replica, *met, in_seconds, 0.1, 0.2, 0.3, 0.4, 5.0, 0.6, 0.7
    )


@given(st.lists(st.tuples(FEW.map(float), FEW, FEW, st.sampled_from("abc")), min_size=1))
def test_the_pick_is_the_first_in_order(ranks: list[tuple[float, int, int, str]]):
    rows = [row(*rank) for rank in ranks]
    assert [Candidate.of(each)[:4] for each in sorted(rows)] == sorted(ranks)
    assert cheapest(rows) is rows[ranks.index(min(ranks))]


def test_a_candidate_says_what_its_row_says():
    told = Candidate.of(row(1.0, 2, 3, "a"))
    assert told == (1.0, 2, 3, "a", 1, 2, 3, 4, None, 0.1, 0.2, 0.3, 0.4, 5.0, 0.6, 0.7)
    assert told.ttft_s == row(1.0, 2, 3, "a").ttft_s
    untold = Candidate.of(row(1.0, 2, 3, "a", in_seconds=False))
    assert untold[9:13] == (None, None, None, None)
    assert untold.ttft_s is None


@given(st.one_of(st.floats(0.0, 1e15), st.integers(0, 1_000_000).map(lambda n: n + 0.5)))
def test_tokens_are_rounded_to_even(number: float):
    assert routing.rounded(number) == round(number)
