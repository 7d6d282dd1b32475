"""What others say, before a terminal or a report has it."""

import pytest

from headrace.core.one_line import in_a_line


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("\x1b[2J\x1b[31mred\x07", "�[2J�[31mred�"),
        ("one\r\ntwo\n\n three\t", "one two three"),
        ("\x9b31mC1 \u202eright to left", "�31mC1 �right to left"),
        ("a" * 300, "a" * 200),
        ("Größe 模型", "Größe 模型"),
        ("", ""),
    ],
)
def test_it_is_one_short_line_that_does_nothing(said: str, shown: str):
    assert in_a_line(said) == shown
