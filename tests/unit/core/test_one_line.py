"""What others say, before a terminal or a report has it."""

import pytest

from headrace.core.one_line import error_said, in_a_line


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


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'{"error": {"message": "the first token\\nwould take 69 s", "code": "o"}}',
            "the first token would take 69 s",
        ),
        (b'{"object": "error", "message": "not here", "code": 404}', "not here"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": "busy"}', "busy"),
        (b'{"error": {"message": " "}}', '{"error": {"message": " "}}'),
        (b'{"detail": [1]}', '{"detail": [1]}'),
        (b"[1]", "[1]"),
        (b"<html>\n<h1>502</h1>", "<html> <h1>502</h1>"),
        (b'{"error": {"message": "\xff"}}', '{"error": {"message": "�"}}'),
        (b"[" * 5000, "[" * 200),
        (b'{"message": "' + b"a" * 20_000 + b'"}', '{"message": "' + "a" * 187),
        (b"", ""),
    ],
)
def test_what_an_error_says_is_its_message(body: bytes, said: str):
    assert error_said(body) == said
