"""What `headrace calibrate` shows: coefficients with intervals and experiments; and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from headrace.calibration.comparison import Compared, Comparison
from headrace.core.durations import in_words, small_in_words
from headrace.core.profile_fit import TERMS
from headrace.core.quantities import percent
from headrace.engine_model.calibration import Fit
from headrace.engine_model.measured import Interval, MeasuredProfile

_DIGITS = 4
_USUAL_BATCH = 32
_MOST_SHOWN = 3
"""Of the experiments that fit worst."""


def fit_page(found: Fit, profile: MeasuredProfile) -> RenderableType:
    """The terms, how well they fit, and what follows from them."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("term")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("")
    for term in (*TERMS, "request_overhead_s"):
        interval = found.intervals[term]
        value = small_in_words(getattr(profile, term), _DIGITS)
        table.add_row(term, value, _interval(interval), interval.note)
    return Group(table, *_sentences(found, profile))


def _interval(interval: Interval) -> str:
    ends = (small_in_words(end, _DIGITS) for end in (interval.low_s, interval.high_s))
    return " – ".join(ends)


def _sentences(found: Fit, profile: MeasuredProfile) -> Iterable[str]:
    residuals = found.residuals
    median, p90 = percent(residuals.median_error, 1), percent(residuals.p90_error, 1)
    yield (
        f"residuals of {residuals.experiments} experiments: median {median}, "
        f"nine of ten within {p90}"
    )
    for title, seen_s, fitted_s in _worst(found):
        off = percent(fitted_s / seen_s - 1, 1, signed=True)
        yield f"  {title}: measured {in_words(seen_s)}, fitted {in_words(fitted_s)} ({off})"
    if profile.measured is not None and profile.measured.warnings:
        yield "the truth may lie outside the intervals: see the warnings"
    if found.prefill_step_tokens is not None:
        yield f"prompts go in steps of {found.prefill_step_tokens:,} tokens"
    if found.doubts:  # what the data do not support predicts nothing
        return
    prompt = min(4096, profile.max_context_tokens or 4096)
    batch = profile.max_sequences or _USUAL_BATCH
    latency = profile.latency
    yield (
        f"so: {prompt:,} prompt tokens take {in_words(profile.ttft_s(prompt))}, an output token "
        f"{in_words(latency.step_s(1, 512))} ({in_words(latency.step_s(batch, 512 * batch))} "
        f"among {batch})"
    )


def _worst(found: Fit) -> Sequence[tuple[str, float, float]]:
    by_error = sorted(found.errors, key=lambda row: -abs(row[2] / row[1] - 1))
    return by_error[:_MOST_SHOWN]


def comparison_page(comparison: Comparison) -> RenderableType:
    """Each experiment, predicted and measured, and the two medians."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("experiment")
    for head in ("predicted", "measured", "off"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in (*comparison.prefills, *comparison.decodes):
        table.add_row(row.title, in_words(row.predicted_s), in_words(row.measured_s), _off(row))
    return Group(
        table,
        f"median error: prefill {percent(comparison.prefill_error, 1)}, decode "
        f"{percent(comparison.decode_error, 1)}; {percent(comparison.tolerance)} is tolerated",
    )


def change_in_words(comparison: Comparison) -> str:
    """What the engine of today takes, beside what the profile says."""
    prefill, decode = _longer(comparison.prefill_change), _longer(comparison.decode_change)
    return f"prefill takes {prefill}, decode {decode}"


def _longer(change: float) -> str:
    """`20 % longer than it says`."""
    if round(abs(change), 2) == 0.0:
        return "as long as it says"
    return f"{percent(abs(change))} {'longer' if change > 0 else 'less'} than it says"


def _off(row: Compared) -> str:
    return percent(row.error, 1, signed=True)


def document_of_fit(found: Fit, profile: MeasuredProfile, notes: Sequence[str]) -> dict[str, Any]:
    """Everything, for programs."""
    experiments = [
        {"experiment": title, "measured_s": seen, "fitted_s": fitted}
        for title, seen, fitted in found.errors
    ]
    return {
        "written": not found.doubts,
        "profile": asdict(profile),
        "experiments": experiments,
        "doubts": [str(doubt) for doubt in found.doubts],
        "notes": list(notes),
        "warnings": list(profile.measured.warnings if profile.measured is not None else ()),
    }


def document_of_comparison(comparison: Comparison, warnings: Sequence[str]) -> dict[str, Any]:
    """Everything, for programs."""
    rows = (*comparison.prefills, *comparison.decodes)
    return {
        "holds": comparison.holds,
        "tolerance": comparison.tolerance,
        "prefill_error": comparison.prefill_error,
        "decode_error": comparison.decode_error,
        "prefill_change": comparison.prefill_change,
        "decode_change": comparison.decode_change,
        "experiments": [{**asdict(row), "error": row.error} for row in rows],
        "warnings": list(warnings),
    }
