"""Seconds in words."""

import pytest

from headrace.core.durations import in_words, small_in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 ms"),
        (0.00001, "0 ms"),
        (0.0006, "0.6 ms"),
        (0.0629, "62.9 ms"),
        (0.09996, "100 ms"),
        (0.3099, "310 ms"),
        (0.9996, "1.00 s"),
        (1.638, "1.64 s"),
        (9.996, "10.0 s"),
        (12.34, "12.3 s"),
        (99.96, "100 s"),
        (300.0, "300 s"),
    ],
)
def test_three_digits_that_count(seconds, words):
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0069742, "6.97 ms"),
        (2.2756e-5, "22.8 µs"),
        (1.06e-9, "1.06 ns"),
        (2e-12, "0.002 ns"),
        (1.5, "1.5 s"),
        (0.0, "0"),
    ],
)
def test_a_coefficient_has_the_unit_that_suits_it(seconds: float, words: str):
    assert small_in_words(seconds) == words
    assert small_in_words(0.0069742, 4) == "6.974 ms"
