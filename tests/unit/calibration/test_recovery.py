"""A whole calibration of engines that were drawn, in virtual time: within 3 %, or it says so."""

import pytest

from benchmarks.calibration_recovery import WITHIN, one
from headrace.calibration.session import Settings
from headrace.core.profile_fit import TERMS

DRAWN = (21, 28, 32, 39, 44, 51, 63, 82, 100, 112, 1051, 1063)
"""Steps of 2 to 190 ms, 4 to 1,024 sequences, budgets of a step of 256 to 16,384 tokens, with and
without a prefix cache."""
UNSHOWN = (31, 36, 64)
"""Of these, a term brings less than what anyone could see: a pair 0.2 ms of the longest prompt, a
token of KV cache what no 90 s can fill."""


@pytest.mark.parametrize("seed", DRAWN)
def test_hidden_coefficients_of_a_drawn_engine(seed: int):
    found = one(seed, "quiet", Settings().budget_s)
    assert found.refused == "", found.title
    for term in TERMS:
        assert abs(found.errors[term]) <= WITHIN, (term, found)


@pytest.mark.parametrize("seed", UNSHOWN)
def test_a_term_that_nobody_can_see_is_marked_or_refused(seed: int):
    found = one(seed, "busy", Settings().budget_s)
    off = {term for term, error in found.errors.items() if abs(error) > WITHIN}
    assert found.refused or off <= set(found.marked), found
    assert found.refused or found.marked
