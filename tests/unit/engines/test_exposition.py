from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from headrace.engines.exposition import Sample, parse
from tests.conformance.captures import metrics


def test_labels_with_every_escape():
    text = rb'm{a="x,}\"{",b="back\\slash",c="new\nline",d=""} 1' + b"\n"
    (sample,) = parse(text, {"m"}).samples["m"]
    assert sample.labels == {"a": 'x,}"{', "b": "back\\slash", "c": "new\nline", "d": ""}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"m 3", 3.0),
        (b"m\t3", 3.0),
        (b"m 3\r", 3.0),
        (b"m 1e-3 1700000000000", 0.001),
        (b'm{a="b"} 3 # {trace="x"} 1', 3.0),
        (b'm 3 # {trace="x"} 1 1700000000.5', 3.0),
        (b'm{ a = "b" , } 3', 3.0),
        (b'm {a="b"} 3', 3.0),
        (b'm\t{a="b"} 3', 3.0),
        (b"m{} +Inf", math.inf),
        (b"m -Inf", -math.inf),
    ],
)
def test_a_line(line: bytes, value: float):
    assert [s.value for s in parse(line, {"m"}).samples["m"]] == [value]


@pytest.mark.parametrize(
    "line",
    [b"m", b"m ", b"m x", b"m 1_000", b'm{a="b" 1', b"m{a=b} 1", b'm{a="b"}', b'm{a="\xff"} 1'],
)
def test_a_bad_line_is_skipped_and_counted(line: bytes):
    read = parse(b"m 1\n" + line + b"\nm 2\n", {"m"})
    assert read.total(["m"]) == 3
    assert read.skipped_lines == 1


def test_lines_about_other_metrics_are_not_even_looked_at():
    read = parse(b"# HELP m text\nmm 1\nother{broken\n\n \nm 1\n# EOF\n", {"m"})
    assert read.samples == {"m": [Sample("m", {}, 1.0)]}
    assert read.skipped_lines == 0


def test_not_a_number_is_no_number():
    read = parse(b'm{a="1"} NaN\nm{a="2"} 4\nn NaN\n', {"m", "n"})
    assert read.total(["m"]) == 4
    assert read.total(["n"]) is None


def test_the_first_name_that_is_there_counts_alone():
    read = parse(b"old 1\nnew 2\n", {"old", "new"})
    assert read.total(["new", "old"]) == 2
    assert read.total(["newest", "old"]) == 1
    assert read.total(["newest"]) is None


def test_limits():
    text = b"m 1\n" * 100
    assert parse(text, {"m"}, max_samples=10).total(["m"]) == 10
    assert parse(text, {"m"}, max_samples=10).truncated
    assert parse(text, {"m"}, max_bytes=41).total(["m"]) == 10
    assert parse(text, {"m"}, max_bytes=41).truncated
    assert not parse(text, {"m"}, max_samples=100).truncated


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("vllm", "metrics-under-load-14conc-8seqs"),
        ("llamacpp", "metrics-under-load-8conc-4slots"),
    ],
)
def test_every_sample_of_a_capture_is_read_as_the_reference_parser_reads_it(engine, name):
    text = metrics(engine, name)
    expected: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            # The reference gives a counter that is not called `_total` that name.
            if sample.name.encode() in text:
                read = Sample(sample.name, dict(sample.labels), sample.value)
                expected.setdefault(sample.name, []).append(read)
    assert len(expected) > 10
    read = parse(text, set(expected))
    assert read.samples == expected
    assert read.skipped_lines == 0


@given(value=st.text(st.characters(codec="utf-8"), max_size=20), number=st.floats(allow_nan=False))
def test_any_label_value_survives(value: str, number: float):
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    text = f'm{{a="{escaped}",b="c"}} {number!r}\n'.encode()
    assert parse(text, {"m"}).samples["m"] == [Sample("m", {"a": value, "b": "c"}, number)]


@given(st.binary(max_size=200))
def test_never_raises(garbage: bytes):
    parse(b"m" + garbage, {"m"})
