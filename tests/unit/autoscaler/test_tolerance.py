"""What is published against what a real HPA makes of it."""

from __future__ import annotations

from math import ceil

from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.autoscaler.tolerance import hpa_value, rising_value

REPLICAS = st.integers(1, 400)


def hpa(current: int, value: float, tolerance: float) -> int:
    """Kubernetes 1.36 with an AverageValue of 1: in thousandths, both bounds inclusive."""
    thousandths = round(value * 1000)
    ratio = thousandths / (1000 * current)
    if 1.0 - tolerance <= ratio <= 1.0 + tolerance:
        return current
    return ceil(thousandths / 1000)


@settings(max_examples=200)
@given(REPLICAS, REPLICAS, st.sampled_from([0.0, 0.05, 0.1, 0.3]))
@example(11, 10, 0.1)  # what real KEDA was seen to swallow
@example(21, 20, 0.1)
@example(9, 10, 0.1)
@example(29, 30, 0.1)
def test_an_hpa_never_ends_below_what_is_wanted_and_goes_up_when_it_should(
    wanted: int, current: int, tolerance: float
):
    told = hpa_value(wanted, current, tolerance)
    becomes = hpa(current, told.value, tolerance)
    assert becomes >= wanted
    if wanted > current:
        assert becomes > current
        # No more than the tolerance forces upon it.
        assert becomes <= max(wanted, int(current * (1 + tolerance) + 1e-6) + 1)
    else:
        assert becomes <= current
    assert bool(told.note) == (told.value != wanted)


@settings(max_examples=200)
@given(REPLICAS, REPLICAS, REPLICAS, st.sampled_from([0.0, 0.05, 0.1, 0.3]))
@example(32, 20, 30, 0.1)
def test_an_hpa_goes_up_whether_it_has_begun_to_or_not(
    wanted: int, seen: int, before: int, tolerance: float
):
    told = rising_value(wanted, seen, before, tolerance)
    for current in (seen, before):
        if seen <= current < wanted:
            becomes = hpa(current, told.value, tolerance)
            assert becomes >= wanted
            # And then it stays there, as long as nobody sees more.
            assert hpa(becomes, told.value, tolerance) == becomes
    assert bool(told.note) == (told.value != wanted)


@given(REPLICAS, REPLICAS)
def test_without_a_tolerance_it_is_what_is_wanted(wanted: int, current: int):
    told = hpa_value(wanted, current, 0.0)
    assert hpa(current, told.value, 0.0) == wanted


def test_from_and_to_zero_it_is_kedas_step():
    assert hpa_value(1, 0, 0.1).value == 1.0
    assert hpa_value(0, 3, 0.1).value == 0.0


def test_the_note_says_why():
    told = hpa_value(11, 10, 0.1)
    assert told.value == 11.001
    assert told.note == (
        "11.001 is published, not 11: the HPA would take 11 instead of 10 for no change "
        "(tolerance 0.1)"
    )
    assert hpa_value(29, 30, 0.1).note.startswith("30 is published until fewer than 27 are wanted")
