"""Seconds in words."""

import pytest

from headrace.core.durations import in_words


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
