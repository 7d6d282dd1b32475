"""Seconds as people read them: one way to write them, wherever they are shown."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """Three digits at most: `0.6 ms`, `62.9 ms`, `310 ms`, `1.64 s`, `12.3 s`, `300 s`."""
    if seconds < 0.9995:
        return f"{_three_digits(1000 * seconds, most_decimals=1)} ms"
    return f"{_three_digits(seconds, most_decimals=2)} s"


def small_in_words(seconds: float, digits: int = 3) -> str:
    """Digits of a coefficient in the unit it suits: `6.97 ms`, `22.8 µs`, `1.06 ns`, `0`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.{digits}g} {unit}"
    return f"{seconds / 1e-9:.{digits}g} ns" if seconds > 0.0 else "0"


def _three_digits(value: float, *, most_decimals: int) -> str:
    if value < 0.05:
        return "0"
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{min(decimals, most_decimals)}f}"
