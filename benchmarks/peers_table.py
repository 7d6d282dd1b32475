"""The figures of load generators side by side; ratios are to Headrace in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One tool; what was not measured is None."""

    name: str
    version: str
    size_gb: float | None
    first_request_s: float | None
    cpu_ms: float | None
    cpu_rate: float
    highest_right: float | None
    ttft_p99_there_s: float | None
    warned: str
    ttft_p50_s: float | None
    tpot_p50_s: float | None
    rate: float | None
    ttft_ratio: float | None = None
    """To Headrace's, the median of each round's own; of the others below as well."""
    tpot_ratio: float | None = None
    rate_ratio: float | None = None

    def document(self) -> dict[str, object]:
        """As JSON wants it."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


_DEFINITIONS = (
    "TTFT p50 and TPOT p50: medians of the rounds, in Headrace's definitions; ratios are medians "
    "of each round's own. TTFT of Headrace counts from when a request was due, that of the others "
    "from when they sent it. TPOT = (last − first token) / (tokens − 1); aiperf and guidellm call "
    "that inter token latency, and the TPOT of guidellm includes TTFT. ITL, every gap between "
    "tokens, is not compared: aiperf and guidellm have none by that name. vllm bench takes the "
    "empty role chunk for the first token."
)


def as_tables(rows: Sequence[Row], *, cpu_rate: float, truth: bool) -> str:
    """Markdown: what a tool costs and holds (where the truth is known), and whether they agree."""
    ours = next((row for row in rows if row.name == "headrace"), None)
    parts = [_costs(rows, ours, cpu_rate)] if truth else []
    parts += [_agreement(rows), _DEFINITIONS]
    return "\n\n".join(parts)


def _costs(rows: Sequence[Row], ours: Row | None, cpu_rate: float) -> str:
    heads = [
        "",
        f"CPU ms/request at {cpu_rate:g}/s",
        "highest rate held right",
        "TTFT p99 there, ms",
        "first request after s",
        "install GB",
        "says when it was late",
    ]
    lines = [
        [
            f"{row.name} ({row.version})",
            _with_ratio(row.cpu_ms, ours.cpu_ms if ours else None, "{:.2f}"),
            _shown(row.highest_right, "{:g}"),
            _shown(row.ttft_p99_there_s, "{:.1f}", 1e3),
            _shown(row.first_request_s, "{:.1f}"),
            _shown(row.size_gb, "{:.1f}"),
            "yes" if row.warned else "no",
        ]
        for row in rows
    ]
    return _markdown(heads, lines)


def _agreement(rows: Sequence[Row]) -> str:
    lines = [
        [
            row.name,
            _shown(row.ttft_p50_s, "{:.2f}", 1e3) + _in_brackets(row.ttft_ratio),
            _shown(row.tpot_p50_s, "{:.3f}", 1e3) + _in_brackets(row.tpot_ratio),
            _shown(row.rate, "{:.2f}") + _in_brackets(row.rate_ratio),
        ]
        for row in rows
    ]
    return _markdown(["", "TTFT p50 ms", "TPOT p50 ms", "requests/s"], lines)


def _shown(value: float | None, form: str, factor: float = 1.0) -> str:
    return "–" if value is None else form.format(value * factor)


def _in_brackets(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.3f}×)"


def _with_ratio(value: float | None, base: float | None, form: str) -> str:
    shown = _shown(value, form)
    return f"{shown} ({value / base:.2f}×)" if value is not None and base else shown


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(heads)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *lines))
