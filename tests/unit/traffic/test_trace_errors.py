"""What a bad trace is told: file, line, what was expected, what was found."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.compose.process.text_file import opened
from headrace.traffic.reader import read_trace
from headrace.traffic.trace import TraceError

GOOD: dict[str, object] = {
    "timestamp": 1000,
    "input_length": 1000,
    "output_length": 9,
    "hash_ids": [0, 1],
}
SIMPLE: dict[str, object] = {"timestamp": 1.0, "input_length": 1000, "output_length": 9}
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROW = "2023-11-16 18:17:03.9799600,4808,10"


def problem(*lines: str) -> str:
    with pytest.raises(TraceError) as caught:
        read_trace("day.jsonl", lines, seed=1)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_length": -5}, "expected input_length from 1 to 16777216, found -5"),
        ({"input_length": 0}, "expected input_length from 1 to 16777216, found 0"),
        ({"input_length": 10**9}, "expected input_length from 1 to 16777216, found 1000000000"),
        ({"output_length": -1}, "expected output_length from 0 to 16777216, found -1"),
        ({"output_length": 1.5}, "expected output_length to be a whole number of tokens"),
        ({"output_length": 1e300}, "expected output_length from 0 to 16777216, found 1000"),
        ({"input_length": 100.0, "output_length": "9"}, "expected output_length to be a whole"),
        ({"input_length": 100.0, "hash_ids": 7}, "expected hash_ids to be a list"),
        ({"input_length": "many"}, "a whole number of tokens, found '\"many\"'"),
        ({"input_length": True}, "a whole number of tokens, found 'true'"),
        ({"input_length": None}, "a whole number of tokens, found 'null'"),
        ({"timestamp": "noon"}, "expected timestamp to be a finite number, found '\"noon\"'"),
        ({"timestamp": False}, "expected timestamp to be a finite number, found 'false'"),
        ({"timestamp": 999}, "not before the previous request's, found one 0.001 s earlier"),
        ({"timestamp": 1e15}, "within 400 days of the first"),
        ({"timestamp": 1e300}, "found one after 1.16e+292 days; is the unit right"),
        ({"hash_ids": []}, "expected 1 or 2 hash_ids"),
        ({"hash_ids": [0, 1, 2]}, "expected 1 or 2 hash_ids"),
        ({"hash_ids": [0, 1, 2], "input_length": 1024}, "expected 2 hash_ids"),
        ({"hash_ids": [-1, 1]}, "expected hash_ids from 0 to 2^64 - 1"),
        ({"hash_ids": [1 << 64, 1]}, "expected hash_ids from 0 to 2^64 - 1"),
        ({"hash_ids": ["a", 1]}, "expected hash_ids to be a list of whole numbers"),
        ({"hash_ids": None}, "expected hash_ids and no block_tokens on every line"),
        ({"block_tokens": 16}, "expected hash_ids and no block_tokens on every line"),
        ({"session": ["a"]}, "expected session to be text or a whole number"),
    ],
)
def test_a_bad_value_is_named_with_its_line(changes: dict[str, object], message: str):
    bad = {**GOOD, **changes}
    told = problem(json.dumps(GOOD), json.dumps(bad))
    assert told.startswith("day.jsonl:2: ")
    assert message in told
    assert "found" in told or "every line" in told


@pytest.mark.parametrize("field", ["timestamp", "input_length", "output_length"])
def test_a_missing_field_is_named_with_those_that_stand_there(field: str):
    bad = {key: value for key, value in GOOD.items() if key != field}
    told = problem(json.dumps(GOOD), json.dumps(bad))
    assert told.startswith(f"day.jsonl:2: expected the field {field}, found ")
    assert "hash_ids" in told


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nonsense", "expected a JSON object, found '{nonsense'"),
        ("[1, 2]", "expected a JSON object, found '[1, 2]'"),
        ("7", "expected a JSON object, found '7'"),
        (json.dumps(GOOD)[:-9], "expected a JSON object"),
        ('{"timestamp": null, "input_length": Infinity}', "expected a JSON object"),
        (json.dumps(GOOD) * 2, "trailing characters"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "expected a JSON object"),
        ('{"timestamp": 1e999, "input_length": 1, "output_length": 1}', "a finite number"),
        ("\ud800", "expected a JSON object"),
    ],
)
def test_a_line_that_is_no_record(line: str, message: str):
    told = problem(json.dumps(GOOD), line)
    assert told.startswith("day.jsonl:2: ")
    assert message in told
    assert len(told) < 250


@pytest.mark.parametrize("lines", [(), ("", "\n", "  \n")])
def test_an_empty_file(lines: tuple[str, ...]):
    assert problem(*lines).startswith("day.jsonl: expected a JSON object with timestamp")
    assert "empty" in problem(*lines)


def test_a_file_of_another_kind():
    assert problem("hello world").startswith("day.jsonl:1: expected a JSON object with timestamp")


def test_bytes_that_are_no_text():
    def lines() -> Iterator[str]:
        yield json.dumps(GOOD)
        yield b"\xff\xfe".decode()

    with pytest.raises(TraceError, match=r"^day:2: expected UTF-8 text, found b'\\xff'$"):
        read_trace("day", lines(), seed=1)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_line_of_bytes_that_are_no_text(tmp_path: Path, end: str):
    """A file is decoded in pieces of many lines."""
    lines = [json.dumps(SIMPLE).encode()] * 500
    lines[299] += "é".encode("latin-1")
    path = tmp_path / "day.jsonl"
    path.write_bytes(end.encode().join(lines))
    with (
        opened(path) as text,
        pytest.raises(TraceError, match=r"^day:300: expected UTF-8 text, found b'\\xe9'$"),
    ):
        read_trace("day", text, seed=1)


@pytest.mark.parametrize("field", ["timestamp", "input_length", "else"])
def test_brackets_that_are_nested_too_deeply(field: str):
    line = json.dumps(SIMPLE | {field: 0}).replace(": 0", ": " + "[" * 100_000)
    assert problem(line).startswith("day.jsonl:1: expected a JSON object, found")


def test_the_line_number_counts_empty_lines():
    assert problem("", json.dumps(GOOD), "", "{").startswith("day.jsonl:4: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hash_ids": [0, 1]}, "expected block_tokens beside hash_ids"),
        ({"hash_ids": [0], "block_tokens": 0}, "expected block_tokens from 1 to 65536, found 0"),
        ({"hash_ids": [0], "block_tokens": 16}, "expected 62 or 63 hash_ids"),
        ({"hash_ids": [0], "block_tokens": 900}, "expected block_tokens 512 as before, found 900"),
        ({"timestamp": 0.5}, "found one 0.5 s earlier"),
    ],
)
def test_the_simple_format(changes: dict[str, object], message: str):
    first = {**SIMPLE, "hash_ids": [0, 1], "block_tokens": 512} if "before" in message else SIMPLE
    told = problem(json.dumps(first), json.dumps({**SIMPLE, **changes}))
    assert told.startswith("day.jsonl:2: ")
    assert message in told


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            "start_s,requests_per_s",
            "'start_s,requests_per_s'; a file of demand is for `headrace simulate scaling --rates`",
        ),
        ("TIMESTAMP,ContextTokens", "'TIMESTAMP,ContextTokens'"),
        (HEADER + ",TIMESTAMP", f"'{HEADER},TIMESTAMP'"),
        (ROW, f"'{ROW}'"),
    ],
)
def test_a_table_with_other_columns(header: str, found: str):
    assert problem(header, ROW) == f"day.jsonl:1: expected the columns {HEADER}, found {found}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2023-11-16 18:17:04.0,1", "expected 3 values, found 2"),
        ("2023-11-16 18:17:04.0,1,1,1", "expected 3 values, found 4"),
        (f'2023-11-16 18:17:04.0,"{"9" * 140_000}",1', "expected 3 values, found 1"),
        ("yesterday,1,1", "expected TIMESTAMP like 2023-11-16 18:17:03.9799600, found 'yesterday'"),
        ("2023-11-16 18:17:02.0,1,1", "found one 1.97996 s earlier; sort the file"),
        ("2023-11-16 18:17:04.0+00:00,1,1", "with a time zone on all lines or on none"),
        ("2023-11-16 18:17:04.0,1.5,1", "ContextTokens to be a whole number of tokens"),
        ("2023-11-16 18:17:04.0,1_0,1", "ContextTokens to be a whole number of tokens"),
        ("2023-11-16 18:17:04.0,,1", "ContextTokens to be a whole number of tokens, found ''"),
        ("2023-11-16 18:17:04.0,-3,1", "expected ContextTokens from 1 to 16777216, found -3"),
        ("2023-11-16 18:17:04.0,3,-1", "expected GeneratedTokens from 0 to 16777216, found -1"),
        (f"2023-11-16 18:17:04.0,{'9' * 5000},1", "ContextTokens to be a whole number"),
    ],
)
def test_a_bad_row_of_a_table(row: str, message: str):
    told = problem(HEADER, ROW, row)
    assert told.startswith("day.jsonl:3: ")
    assert message in told
    assert len(told) < 250


def test_a_table_without_rows():
    assert problem(HEADER) == "day.jsonl: expected at least one request, found none"
