"""The sentence about a choice: the term that tipped it, and by how much."""

from __future__ import annotations

import pytest

from headrace.core.candidates import Candidate
from headrace.core.cost_term import CostTerm
from headrace.core.reasons import reason_for


def candidate(replica: str, cost: float) -> Candidate:
    return Candidate(cost, 1, 0, replica, 0, 1000, 0, 0, None, True, 0.1, 0.0, 0.2, 0.02, 100.0)


def said(unit: str, mine: dict[str, float], others: dict[str, float]) -> str:
    """`mine` and `others` are the terms of the chosen replica and of the next one."""
    of = {"a": mine, "b": others}
    candidates = [candidate(name, sum(terms.values())) for name, terms in of.items()]
    return reason_for(
        candidates,
        lambda each: tuple(CostTerm(name, value, unit) for name, value in of[each.replica].items()),
    )


@pytest.mark.parametrize(
    ("unit", "scale", "more"), [("s", 0.001, "300 ms"), ("tokens", 1.0, "300 tokens")]
)
def test_the_term_by_which_the_other_one_is_worst_is_told_with_the_difference(unit, scale, more):
    mine = {"gain": 400 * scale, "loss": 200 * scale}
    others = {"gain": 300 * scale, "loss": 500 * scale}
    assert said(unit, mine, others).endswith(f", where loss costs {more} more")


@pytest.mark.parametrize("unit", ["requests", "score", "ratio"])
def test_where_no_term_means_more_than_the_whole_only_the_whole_is_told(unit):
    assert "where" not in said(unit, {"gain": 1.0, "loss": 2.0}, {"gain": 1.0, "loss": 5.0})


def test_of_one_term_only_the_whole_is_told():
    assert said("s", {"wait": 0.2}, {"wait": 0.5}).endswith("300 ms less than b")
