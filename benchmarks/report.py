"""Figures by contender, and the table they are shown in."""

from __future__ import annotations

import statistics
from collections.abc import Callable

Adder = Callable[[str, float], None]

_COLUMNS = (
    ("µs/request 1 KB", "request_1k_cpu_us"),
    ("µs/request 32 KB", "request_32k_cpu_us"),
    ("µs/event", "event_cpu_us"),
    ("µs/event, begun at once", "event_at_once_cpu_us"),
    ("KB/idle stream", "idle_stream_kb"),
    ("added p50 ms", "added_p50_ms"),
    ("added p99 ms", "added_p99_ms"),
)
_WITH_RATIO = (
    "request_1k_cpu_us",
    "request_32k_cpu_us",
    "event_cpu_us",
    "event_at_once_cpu_us",
    "idle_stream_kb",
)


class Results:
    """Every value of every round; a figure is their median."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = {}
        self.left_out: dict[str, str] = {}
        """Why a contender has no figures, by its name."""

    def add(self, name: str, figure: str, value: float) -> None:
        """Note one value."""
        self._values.setdefault(name, {}).setdefault(figure, []).append(value)

    def adder(self, name: str) -> Adder:
        """Return `add` for one contender."""
        return lambda figure, value: self.add(name, figure, value)

    def figures(self, direct: str) -> dict[str, dict[str, float]]:
        """All figures, by contender. Added latency is what lies above that of `direct`."""
        shown = {
            name: {figure: round(statistics.median(values), 3) for figure, values in by.items()}
            for name, by in self._values.items()
        }
        base = shown.get(direct, {})
        for name, by in shown.items():
            for percentile in ("p50_ms", "p99_ms"):
                if name != direct and percentile in by and percentile in base:
                    by[f"added_{percentile}"] = round(by[percentile] - base[percentile], 3)
        return shown


def as_table(
    figures: dict[str, dict[str, float]], left_out: dict[str, str], *, floor: str, direct: str
) -> str:
    """Lay the figures out; in brackets how many times the floor's. Behind them, who has none."""
    base = figures.get(floor, {})
    rows = [["", *(title for title, _ in _COLUMNS)]]
    for name, by in figures.items():
        if name != direct:
            rows.append([name, *(_cell(figure, by, base) for _, figure in _COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines += [f"{name.rjust(widths[0])}  {reason}" for name, reason in left_out.items()]
    return "\n".join(lines)


def _cell(figure: str, by: dict[str, float], base: dict[str, float]) -> str:
    value = by.get(figure)
    if value is None:
        return "–"
    shown = f"{value:.2f}" if figure.startswith("added") else f"{value:.1f}"
    if figure in _WITH_RATIO and base.get(figure):
        return f"{shown} ({value / base[figure]:.2f}×)"
    return shown
