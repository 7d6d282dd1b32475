"""The page of a sweep: the answer, its curves, every rate, and the run at the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from headrace.bench.figures.percentiles import Distribution
from headrace.bench.figures.scores import Scores, summarise
from headrace.bench.report import sweep_plots as plots
from headrace.bench.report.definitions import DEFINITIONS, DUE, GOODPUT, PERCENTILES
from headrace.bench.report.run_page import run_figures, shown_times, tables, targets_s
from headrace.bench.report.sweep_table import INTERVAL, SHOWN, STEP_HEADS, lines_of, step_cells
from headrace.bench.sweep.search import SweepResult
from headrace.core.durations import in_words
from headrace.plotting import page as html


def sweep_page(result: SweepResult, traffic: str, url: str) -> str:
    """The page as HTML; `traffic` says in words what was sent at each rate."""
    body = [
        html.heading("headrace bench --sweep", f"{traffic} → {url}"),
        _verdict(result),
        html.facts(_facts(result)),
        html.figures(_figures(result)),
        _steps(result),
    ]
    if result.best is not None:
        summary = summarise(result.best.records, result.best.info, result.slos)
        body += [
            f'<h1 class="part">A run at {result.highest_met_rps:.4g} requests/s</h1>',
            html.figures(run_figures(result.best.records, summary)),
            tables(summary),
        ]
    return html.page("headrace bench --sweep", "".join(body))


def _verdict(result: SweepResult) -> str:
    kind = "good" if result.exit_code == 0 else "bad"
    return html.verdict(kind, result.headline, lines_of(result))


def _facts(result: SweepResult) -> Iterator[html.Fact]:
    best = next((s for s in result.steps if s.rate_rps == result.highest_met_rps), None)
    if best is not None:
        scores = best.scores
        found = "shown" if best.is_shown else "found"
        yield f"{best.rate_rps:.4g}/s", f"highest rate {found} to meet the targets"
        yield f"{scores.output_tokens_per_s:,.0f}", "output tokens/s there"
        for name, times in shown_times(scores):
            if times.count:
                yield in_words(times.p50), f"{name} p50 there, p99 {in_words(times.p99)}"
    if result.lowest_not_met_rps is not None:
        shown = result.bounds is not None and result.bounds.high_rps is not None
        found = "shown" if shown else "found"
        yield f"{result.lowest_not_met_rps:.4g}/s", f"lowest rate {found} not to meet them"


def _figures(result: SweepResult) -> Iterator[str]:
    steps, slos = result.steps, result.slos
    lines = html.legend([("p50", "c0"), ("p95", "c1"), ("p99", "c3")])
    states = html.legend(list(plots.KINDS.items()))
    yield html.figure(
        "Goodput",
        "requests/s that met every target; dashes: where all of them would; the line: long runs",
        partial(plots.goodput_curve, steps, result.highest_met_rps),
        legend=states,
    )
    yield html.figure(
        "Goodput share",
        "with its interval; dotted: the share that is wanted, and the answer",
        partial(plots.share_curve, steps, result.highest_met_rps, slos.highest_share()),
        legend=states,
    )
    for title, name, times in _TIMES:
        if any(times(step.scores).count for step in steps):
            yield html.figure(
                f"{title} against throughput",
                "a dot for each rate, a line through long runs; dotted: the target",
                partial(plots.throughput_latency, steps, times, targets_s(slos, name)),
                legend=lines,
            )


_TIMES: tuple[tuple[str, str, Callable[[Scores], Distribution]], ...] = (
    ("Time to first token", "ttft_s", lambda scores: scores.ttft_s),
    ("Time per output token", "tpot_s", lambda scores: scores.tpot_s),
    ("End of the answer", "e2e_s", lambda scores: scores.e2e_s),
)
"""What is drawn of them, the name of the target, and where it stands."""


def _steps(result: SweepResult) -> str:
    rows = [step_cells(step) for step in result.steps]
    wanted = [
        f"{f'{tier}: ' if tier else ''}{slo.in_words()}, by {slo.share * 100:g} %"
        for tier, slo in (("", result.slos.default), *result.slos.tiers.items())
    ]
    said = " ".join(f"{name}: {meaning}." for name, meaning in DEFINITIONS)
    note = (
        f"Targets: {'; '.join(wanted)}. {GOODPUT.capitalize()}. {DUE.capitalize()}. "
        f"{INTERVAL.capitalize()}. {SHOWN.capitalize()}. {said} "
        f"{PERCENTILES.capitalize()}. Latencies are those of the run with the middle goodput."
    )
    return html.wide("Every rate", html.table(STEP_HEADS, rows) + html.note(note))
