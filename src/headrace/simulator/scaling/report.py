"""The report of a comparison of scalers: one page that stands alone, with plots as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

from headrace.plotting import page as html
from headrace.simulator.scaling import plots
from headrace.simulator.scaling.runs import ScalingWorkload
from headrace.simulator.scaling.scalers import ORACLE, OWN
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.scaling.sweep import gap_closed, is_reference

OWN_STYLE = """
:root { --baseline: #8a6d1f; --lack: #d12f2f; --spare: #dfe9f8; --edge: #1f6feb; }
@media (prefers-color-scheme: dark) {
  :root { --baseline: #d9b75a; --lack: #ff6b6b; --spare: #1d3350; --edge: #58a6ff; }
}
.plots { grid-template-columns: repeat(auto-fit, minmax(min(560px, 100%), 1fr)); }
.scatter { max-width: 740px; margin: 0 0 16px; }
.leader { stroke: var(--soft); stroke-width: 1; }
.capacity { fill: var(--spare); stroke: none; }
.ready { fill: none; stroke: var(--edge); stroke-width: 1.4; }
.ordered { fill: none; stroke: var(--edge); stroke-width: 1; stroke-dasharray: 2 3; opacity: .8; }
.demand { fill: none; stroke: var(--ink); stroke-width: 1.1; stroke-linejoin: round; }
.forecast { fill: none; stroke: var(--c1); stroke-width: 1; opacity: .85; }
.missed { fill: none; stroke: var(--lack); }
.baseline { --p: var(--baseline); }
.keys { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 18px 0 12px; font-size: 13px; }
.keys svg { display: inline-block; width: 26px; height: 12px; margin-right: 7px;
  vertical-align: middle; }
figcaption .figures { color: var(--ink); font-variant-numeric: tabular-nums; }
figcaption .figures b { font-weight: 650; } figcaption .reached { color: var(--good); }
"""
HEADS = (
    "scaler",
    "attainment %",
    "of tokens %",
    "replica-hours",
    "mean replicas",
    "peak",
    "changes",
)
NOTE = (
    "A replica is paid for from the order until its last stream has ended. All scalers see the "
    "same demand, and start with 1.25 times the replicas that its first minute takes, except those "
    "that know more. In panels, each column of pixels shows the highest demand, the least that was "
    "ready and all misses in its time. The axis of replicas is the same in all of them, and what "
    "is above it is not drawn: the peak stands over each. That of misses is each panel's own."
)
KEYS = (
    ('<path class="capacity" d="M0,1H26V12H0z"/><path class="ready" d="M0,1H26"/>', "ready"),
    ('<path class="ordered" d="M0,6H26"/>', "ordered"),
    ('<path class="demand" d="M0,9L8,3L16,8L26,2"/>', "demand, in replicas at their TPOT target"),
    ('<path class="forecast" d="M0,8L26,4"/>', "forecast that is provided for"),
    ('<path class="missed" stroke-width="2" d="M4,12V5M9,12V2M14,12V8M20,12V6"/>', "misses"),
)


def scaling_report(
    runs: Sequence[ScalingRun],
    settings: ScalingSimulation,
    workload: ScalingWorkload,
    parameters: Sequence[tuple[str, str]],
    swept: Sequence[ScalingScores] = (),
) -> str:
    """The page as HTML.

    Args:
        runs: at least one; each gets a panel.
        settings: what they had in common.
        workload: what arrived.
        parameters: what to show of the input, as names and values.
        swept: more scores for the scatter, of runs without a panel.
    """
    scores = [run.scores for run in runs]
    known = {each.scaler for each in scores}
    every = [*scores, *(each for each in swept if each.scaler not in known)]
    top, end_s = plots.replicas_axis(runs), workload.demand.end_s
    panels = [_panel(run, settings, top, end_s) for run in runs]
    body = (
        f"{_heading(workload, settings)}{_facts(every, settings)}{_scatter(every, settings)}"
        f"{_keys()}{html.figures(panels)}{_table(scores, settings, end_s)}"
        f"{html.wide('What was simulated', html.parameters(parameters) + html.note(NOTE))}"
    )
    return html.page("headrace simulate scaling", body, style=OWN_STYLE)


def _heading(workload: ScalingWorkload, settings: ScalingSimulation) -> str:
    demand = workload.demand
    slo = settings.slo
    said = (
        f"{demand.arrived:,.0f} requests in {demand.end_s / 3600:,.1f} h of {workload.name}, "
        f"played as {workload.mode}; TTFT {slo.ttft_s:g} s and TPOT {slo.tpot_s * 1e3:g} ms; "
        f"{settings.cold_start_s:g} s from ordered to ready"
    )
    if demand.too_long:
        said += (
            f"; {demand.too_long:,.0f} of them do not fit in a replica's {settings.engine.room}: "
            "refused, and missed"
        )
    return html.heading("Scaling policies side by side", said)


def _facts(scores: Sequence[ScalingScores], settings: ScalingSimulation) -> str:
    goal = settings.goal
    facts: list[tuple[str, str]] = []
    own = next((each for each in scores if each.scaler == OWN), None)
    if own is not None:
        facts.append((_percent(own.attainment, 2), f"met both targets with {OWN}"))
        facts.append((f"{own.replica_hours:,.1f} h", f"of replicas with {OWN}"))
    reached = [e for e in scores if e.attainment >= goal and not is_reference(e.scaler)]
    if reached:
        best = min(reached, key=lambda each: each.replica_hours)
        said = f"with {best.scaler}, the cheapest that reaches {_percent(goal)}"
        facts.append((f"{best.replica_hours:,.1f} h", said))
    oracle = next((each for each in scores if each.scaler == ORACLE), None)
    if oracle is not None:
        facts.append((f"{oracle.replica_hours:,.1f} h", "if the future were known"))
    closed = gap_closed(scores, goal)
    if closed is not None:
        facts.append((_percent(closed), f"of the gap between these closed by {OWN}"))
    return html.facts(facts)


def _percent(share: float, digits: int = 0) -> str:
    return f"{share * 100:.{digits}f} %"


def _scatter(scores: Sequence[ScalingScores], settings: ScalingSimulation) -> str:
    return (
        '<figure class="scatter"><figcaption><h2>Misses against cost</h2>'
        "<p>up and to the left is better; small dots: other parameters of the same rule; "
        f"dotted: {_percent(1 - settings.goal)} missed</p></figcaption>"
        f"{html.on_each_screen(partial(plots.scatter, scores, settings.goal))}</figure>"
    )


def _keys() -> str:
    keys = "".join(
        f'<span><svg viewBox="0 0 26 12">{drawing}</svg>{escape(said)}</span>'
        for drawing, said in KEYS
    )
    return f'<div class="keys">{keys}</div>'


def _panel(run: ScalingRun, settings: ScalingSimulation, top: float, end_s: float) -> str:
    scores = run.scores
    reached = "reached" if scores.attainment >= settings.goal else ""
    figures = (
        f'<b class="{reached}">{_percent(scores.attainment, 2)}</b> in time, '
        f"<b>{scores.replica_hours:,.1f}</b> replica-hours "
        f"({scores.replica_hours * 3600 / end_s:.2f} on average), peak {scores.peak:,}, "
        f"{scores.changes:,} changes"
    )
    return (
        f'<figure><figcaption><h2>{escape(scores.scaler)}</h2><p class="figures">{figures}</p>'
        f"</figcaption>{html.on_each_screen(partial(plots.panel, run, top, end_s))}</figure>"
    )


def _table(scores: Sequence[ScalingScores], settings: ScalingSimulation, end_s: float) -> str:
    rows: list[str] = []
    for each in scores:
        kind = "best" if each.attainment >= settings.goal else ""
        rows.append(
            f'<tr class="policy {plots.kind_of(each.scaler)}"><td>{escape(each.scaler)}</td>'
            f'<td class="{kind}">{each.attainment * 100:.2f}</td>'
            f"<td>{each.token_attainment * 100:.2f}</td><td>{each.replica_hours:,.1f}</td>"
            f"<td>{each.replica_hours * 3600 / end_s:.2f}</td><td>{each.peak:,}</td>"
            f"<td>{each.changes:,}</td></tr>"
        )
    table = (
        f"<table><thead><tr>{html.cells('th', HEADS)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return html.wide("All figures", table)
