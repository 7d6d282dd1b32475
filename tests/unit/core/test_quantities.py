"""Durations, sizes, shares: what people write, and that what is printed reads back as the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    percent,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("1.5 s", 1.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
        ("0", 0.0),
        ("0.25", 0.25),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5 minutes", "5M", "1m30s", "nan", "inf", "ms5"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="500ms, 2s or 5m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("1.5GB", 1_500_000_000), ("512B", 512), ("0.5KiB", 512), ("77", 77)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["64mb", "64M", "0.3B", "1.5", "-", "64 MiBs"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="64KiB or 16MiB"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_every_size_reads_back(size):
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**9).map(lambda n: n / 1000))
def test_every_millisecond_reads_back(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(300.0, "5m"), (75.0, "75s"), (0.5, "500ms"), (0.0, "0s"), (1e-5, None)]
)
def test_the_shortest_way_to_write_it(seconds, text):
    written = format_duration(seconds)
    assert text is None or written == text
    assert parse_duration(written) == pytest.approx(seconds)


def test_the_patterns_of_the_schema_are_the_parsers():
    assert not DURATION_PATTERN.startswith("(")
    for pattern, parse, units in (
        (DURATION_PATTERN, parse_duration, ("ms", "s", "m", "h", "d")),
        (SIZE_PATTERN, parse_size, ("B", "KB", "MB", "GB", "KiB", "MiB", "GiB")),
    ):
        assert pattern.endswith(f"({'|'.join(units)})$")
        for unit in units:
            parse(f"3{unit}")


def test_a_share_is_written_as_the_docs_write_it():
    assert [percent(0.09), percent(0.9925, 1), percent(0.025, 1, signed=True)] == [
        "9 %",
        "99.2 %",
        "+2.5 %",
    ]
    assert percent(-0.0001, 1, signed=True) == "+0.0 %"
