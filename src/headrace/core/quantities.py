"""Durations, sizes, shares and numbers as people write them: `500ms`, `5m`, `64MiB`, `9 %`."""

from __future__ import annotations

import math
import re

_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?\s*(B|KB|MB|GB|KiB|MiB|GiB)$"


def parse_duration(text: str) -> float:
    """Seconds in `500ms`, `2s`, `5m`, `1h`, `2d` or a bare number of seconds.

    Raises ValueError with what is expected.
    """
    expected = "a duration such as 500ms, 2s or 5m, or a number of seconds"
    return _parse(text, _SECONDS, expected)


def parse_size(text: str) -> int:
    """Bytes in `64MiB`, `1.5GB`, `512B` or a bare number of bytes.

    Raises ValueError with what is expected.
    """
    expected = "a size such as 64KiB or 16MiB, or a whole number of bytes"
    size = _parse(text, _BYTES, expected)
    if size != int(size):
        raise ValueError(expected)
    return int(size)


def _parse(text: str, units: dict[str, float] | dict[str, int], expected: str) -> float:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None:
        return _bare_number(text, expected)
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"{expected}; units are {', '.join(units)}")
    return float(number) * units[unit]


def parse_number(text: str) -> float:
    """A number as people write it, in digits, with a point or an exponent; may be nan or inf.

    Raises ValueError for all else. Python alone would read `2_0` as 20, and other scripts' digits.
    """
    return float(_plain(text))


def parse_whole(text: str) -> int:
    """A whole number; as `parse_number`."""
    return int(_plain(text))


def _plain(text: str) -> str:
    if "_" in text or not text.isascii():
        raise ValueError(f"{text!r} is not a number")
    return text


def _bare_number(text: str, expected: str) -> float:
    try:
        number = parse_number(text)
    except ValueError:
        raise ValueError(expected) from None
    if not math.isfinite(number):
        raise ValueError(expected)
    return number


def format_duration(seconds: float) -> str:
    """The shortest way to write `seconds` exactly: `90s`, `5m`, `250ms`."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def format_size(size: int) -> str:
    """The shortest way to write `size` bytes exactly: `64MiB`, `1000B`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _BYTES[unit] and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def percent(share: float, digits: int = 0, *, signed: bool = False) -> str:
    """A share for people to read: `9 %`, `+2.5 %`. What rounds to nothing has no minus."""
    return f"{share * 100:{'+' if signed else ''}z.{digits}f} %"
