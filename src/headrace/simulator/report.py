"""The report of a simulation: one page that stands alone, with plots as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

from headrace.plotting import page as html
from headrace.simulator import plots
from headrace.simulator.columns import COLUMNS, best_of
from headrace.simulator.plots import Cast, ranked_runs
from headrace.simulator.runs import POOLED_REFERENCE, PolicyRun
from headrace.simulator.settings import SimulationSettings


def report_page(
    runs: Sequence[PolicyRun],
    settings: SimulationSettings,
    parameters: Sequence[tuple[str, str]],
) -> str:
    """The page as HTML.

    Args:
        runs: at least one.
        settings: what they had in common.
        parameters: what to show of it, as names and values.
    """
    cast, slo = Cast(runs), settings.slo
    ttft_target = f"dotted: the target of {slo.ttft_s:g} s"
    figures = (
        html.figure(
            "Goodput share",
            f"met TTFT of {slo.ttft_s:g} s and TPOT of {slo.tpot_s * 1e3:g} ms, of all that "
            "arrived; longer is better",
            partial(
                plots.share_bars, runs, cast, "Goodput share", lambda scores: scores.goodput_share
            ),
        ),
        html.figure(
            "Prefix hits",
            "input tokens that were cached, of all, as the engines counted",
            partial(plots.share_bars, runs, cast, "Hit ratio", lambda scores: scores.hit_ratio),
        ),
        html.figure(
            "Time to first token",
            f"share of requests that had it by then; further left is better; {ttft_target}",
            partial(plots.ttft_cdf, runs, cast, slo.ttft_s),
        ),
        html.figure(
            "Time to first token over the run",
            f"p90 of the requests that arrived in each window; lower is better; {ttft_target}",
            partial(plots.ttft_over_time, runs, cast, slo.ttft_s),
        ),
        html.figure(
            "Time to first token, by policy",
            f"further left is better; {ttft_target}",
            partial(plots.ranges, runs, cast, lambda scores: scores.ttft_s, slo.ttft_s, "s"),
        ),
        html.figure(
            "Time per output token",
            f"further left is better; dotted: the target of {slo.tpot_s * 1e3:g} ms",
            partial(plots.ranges, runs, cast, lambda scores: scores.tpot_s, slo.tpot_s, "ms"),
        ),
    )
    return html.page(
        "headrace simulate",
        f"{_heading(runs, parameters)}{_facts(runs)}{_legend(runs, cast)}"
        f"{html.figures(figures)}{_table(runs, cast)}{_parameters(parameters)}",
    )


def _heading(runs: Sequence[PolicyRun], parameters: Sequence[tuple[str, str]]) -> str:
    shown = dict(parameters)
    count = runs[0].scores.requests
    where = f"{shown.get('replicas', '?')} × {shown.get('profile', 'engine')}"
    trace = shown.get("trace", "a trace")
    return html.heading(
        "Routing policies side by side", f"{count:,} requests of {trace} over {where}"
    )


def _facts(runs: Sequence[PolicyRun]) -> str:
    """The answer first: who is best, by how much, and how far from no routing loss."""
    rivals = [run for run in ranked_runs(runs) if run.policy != POOLED_REFERENCE]
    facts: list[tuple[str, str]] = []
    if rivals:
        best = rivals[0].scores
        equals = len(best_of(COLUMNS[0], [run.scores for run in rivals]))
        if equals > 1:
            said = f"share the highest goodput share; the figures beside are of {best.policy}"
            facts.append((f"{equals} policies", said))
        else:
            facts.append((best.policy, "has the highest goodput share"))
        facts.append((f"{best.goodput_share * 100:.1f} %", "of all requests met both targets"))
        facts.append((_time(best.ttft_s.mean), f"mean TTFT, p99 {_time(best.ttft_s.p99)}"))
        facts.append((f"{best.hit_ratio * 100:.1f} %", "of the input came from prefix caches"))
    pooled = next((run.scores for run in runs if run.policy == POOLED_REFERENCE), None)
    if pooled is not None:
        facts.append((f"{pooled.goodput_share * 100:.1f} %", "goodput if all were one engine"))
    return html.facts(facts)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1.0 else f"{seconds * 1e3:.0f} ms"


def _legend(runs: Sequence[PolicyRun], cast: Cast) -> str:
    """Of the lines in colour; all others are named where they are pointed at."""
    entries = [
        f'<span class="series {cast.kind(run.policy)}" data-series="{escape(run.policy)}">'
        f"<i></i>{escape(run.policy)}</span>"
        for run in ranked_runs(runs)
        if cast.kind(run.policy) != plots.MUTED
    ]
    others = len(runs) - len(entries)
    if others:
        said = "1 other" if others == 1 else f"{others} others; point at one"
        entries.append(f'<span class="muted soft"><i></i>{said}</span>')
    return f'<div class="cast">{"".join(entries)}</div>'


def _table(runs: Sequence[PolicyRun], cast: Cast) -> str:
    scores = [run.scores for run in ranked_runs(runs)]
    best = [best_of(column, scores) for column in COLUMNS]
    heads = html.cells("th", ["policy", *(column.title for column in COLUMNS), "not served"])
    rows: list[str] = []
    for each in scores:
        cells = [
            f'<td class="{"best" if each.policy in winners else ""}">'
            f"{escape(column.text(column.value(each)))}</td>"
            for column, winners in zip(COLUMNS, best, strict=True)
        ]
        rows.append(
            f'<tr class="series {cast.kind(each.policy)}" data-series="{escape(each.policy)}">'
            f'<td class="long">{html.breakable(each.policy)}</td>{"".join(cells)}'
            f"<td>{each.requests - each.completed:,}</td></tr>"
        )
    return html.wide(
        "All figures",
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>",
    )


def _parameters(parameters: Sequence[tuple[str, str]]) -> str:
    note = (
        "Each policy saw what a gateway sees: its own dispatches, relayed tokens, and metrics "
        "scraped with the lag. Requests that were shed, failed or unfinished are misses, and count "
        "into TTFT with the time until the end of the run."
    )
    return html.wide("What was simulated", html.parameters(parameters) + html.note(note))
