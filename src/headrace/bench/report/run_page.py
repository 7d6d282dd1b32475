"""The page of one run: the verdict, its figures, and plots, in a file that stands alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import inf

from headrace.bench.figures import timelines
from headrace.bench.figures.percentiles import Distribution, GapCounts
from headrace.bench.figures.scores import Scores, Summary
from headrace.bench.figures.slo import Slos
from headrace.bench.record import Record
from headrace.bench.report import run_plots as plots
from headrace.bench.report.definitions import DEFINITIONS, DUE, GOODPUT, PERCENTILES, SHORT
from headrace.bench.report.run_plots import Line
from headrace.bench.report.run_table import (
    GROUP_HEADS,
    LATENCY_HEADS,
    NOT_SERVED,
    amounts,
    error_in_words,
    group_cells,
    latency_rows,
    percent,
)
from headrace.core.durations import in_words
from headrace.plotting import page as html

_DUE_AND_GOODPUT = f"{GOODPUT.capitalize()}. {DUE.capitalize()}."
MOST_CLASSES = 5
"""Length classes in colour; more could not be told apart."""


def report_page(records: Sequence[Record], summary: Summary) -> str:
    """The page as HTML.

    Args:
        records: all of the run, in any order.
        summary: of the same run.
    """
    body = (
        html.heading("headrace bench", f"{summary.run.traffic} → {summary.run.url}"),
        verdict(summary),
        html.facts(_facts(summary.all)),
        html.figures(run_figures(records, summary)),
        tables(summary),
        html.wide("The run", html.parameters(_parameters(summary)) + html.note(_DUE_AND_GOODPUT)),
    )
    return html.page("headrace bench", "".join(body))


def verdict(summary: Summary) -> str:
    """The answer first, with what it rests on."""
    found = summary.verdict
    kind = "good" if found.met and found.valid else "bad"
    return html.verdict(kind, found.headline, found.lines)


def _facts(scores: Scores) -> Iterator[html.Fact]:
    if scores.judged:
        yield percent(scores.goodput_share), f"goodput, {scores.goodput_rps:.4g} requests/s"
    for name, times in shown_times(scores):
        if times.count:
            yield in_words(times.p50), f"{name} p50, p99 {in_words(times.p99)}"
    yield f"{scores.output_tokens_per_s:,.0f}", "output tokens/s"
    yield f"{scores.input_tokens_per_s:,.0f}", "input tokens/s"
    if scores.hit_share is not None:
        yield percent(scores.hit_share), "of the input was cached"
    if scores.failed:
        yield f"{scores.failed:,}", "requests failed"


def shown_times(scores: Scores) -> tuple[tuple[str, Distribution], ...]:
    """The times that matter most; whole answers have their end alone."""
    if scores.ttft_s.count:
        return (("TTFT", scores.ttft_s), ("TPOT", scores.tpot_s))
    return (("E2E", scores.e2e_s),)


def run_figures(records: Sequence[Record], summary: Summary) -> Iterator[str]:
    """The plots of a run, each with its title."""
    last_s = max((record.ended_s for record in records), default=0.0)
    span_s = max(summary.run.duration_s, last_s, 1e-3)
    targets = targets_s(summary.slos, "ttft_s")
    dotted = _dotted(targets)
    failed = "; red strokes: failed" if summary.all.failed else ""
    if summary.all.ttft_s.count:
        yield html.figure(
            "Time to first token over the run",
            f"each request when it was due{dotted}{failed}",
            partial(plots.over_time, records, span_s, _ttft_s, targets, "TTFT over time"),
            legend=html.legend([("p50", "c0"), ("p95", "c1")]),
        )
    if summary.all.tpot_s.count:
        at_s = targets_s(summary.slos, "tpot_s")
        yield html.figure(
            "Time per output token over the run",
            f"each whole answer when it was due{_dotted(at_s)}{failed}",
            partial(plots.over_time, records, span_s, _tpot_s, at_s, "TPOT over time"),
            legend=html.legend([("p50", "c0"), ("p95", "c1")]),
        )
    yield from _ends(records, summary, span_s, failed)
    yield from _distributions(records, summary)
    if len({record.input_tokens for record in records if record.ttft_s is not None}) > 1:
        kinds = _kinds(summary.length_classes)
        yield html.figure(
            "Time to first token against prompt length",
            f"line of dashes: the median by length{dotted}",
            partial(plots.against_prompt, records, kinds, targets),
            legend=_class_legend(kinds),
        )
    yield from _flows(records, summary, span_s)


def _dotted(at_s: Sequence[float]) -> str:
    """Which targets there are; those far above all values are not in the picture."""
    if not at_s:
        return ""
    return f"; dotted, if it is near: the target of {' or '.join(map(in_words, at_s))}"


def _ends(records: Sequence[Record], summary: Summary, span_s: float, failed: str) -> Iterator[str]:
    """When answers ended: all that is known of whole ones, and of streams where it is a target."""
    targets = targets_s(summary.slos, "e2e_s")
    if summary.run.streamed and not targets:
        return
    if not summary.run.streamed:  # a target for TTFT is held against the end
        targets = sorted({*targets, *targets_s(summary.slos, "ttft_s")})
    found = sorted(end_s for record in records if (end_s := _e2e_s(record)) is not None)
    if not found:
        return
    dotted = _dotted(targets)
    yield html.figure(
        "End of the answer over the run",
        f"each whole answer when it was due{dotted}{failed}",
        partial(plots.over_time, records, span_s, _e2e_s, targets, "E2E over time"),
        legend=html.legend([("p50", "c0"), ("p95", "c1")]),
    )
    yield html.figure(
        "Distribution of E2E",
        "share of whole answers that had ended by then; further left is better",
        partial(
            plots.cdf, [Line("E2E", "c0", found)], targets, "from due to the end", "CDF of E2E"
        ),
    )


def _distributions(records: Sequence[Record], summary: Summary) -> Iterator[str]:
    kinds = _kinds(summary.length_classes)
    ttft = [
        Line(name or "all requests", kind, sorted(_of_class(records, name)))
        for name, kind in kinds.items()
    ]
    if any(line.values for line in ttft):
        yield html.figure(
            "Distribution of TTFT",
            "share of requests that had their first token by then; further left is better",
            partial(
                plots.cdf,
                ttft,
                targets_s(summary.slos, "ttft_s"),
                "from due to first token",
                "CDF of TTFT",
            ),
            legend=_class_legend(kinds),
        )
    whole = [record for record in records if record.ok and not record.left]
    tpot = sorted(tpot_s for record in whole if (tpot_s := record.tpot_s) is not None)
    if tpot:
        yield html.figure(
            "Distribution of TPOT and ITL",
            "TPOT: one figure per answer; ITL: every gap between tokens; further left is better",
            partial(
                plots.cdf,
                [Line("ITL", "c1", _gaps(whole)), Line("TPOT", "c0", tpot)],
                targets_s(summary.slos, "tpot_s"),
                "per token",
                "CDF of TPOT and ITL",
            ),
            legend=html.legend([("TPOT", "c0"), ("ITL", "c1")]),
        )


def _flows(records: Sequence[Record], summary: Summary, span_s: float) -> Iterator[str]:
    tokens = timelines.output_tokens_per_s(records, span_s)
    yield html.figure(
        "Output tokens per second",
        "all streams together; a stream's tokens are spread evenly over its time",
        partial(
            plots.amounts_over_time, [("output tokens/s", "c2", tokens)], span_s, "Output tokens/s"
        ),
    )
    lines = [
        ("open", "c0", timelines.open_requests(records, span_s)),
        ("without a first token", "c1", timelines.waiting(records, span_s)),
    ]
    yield html.figure(
        "Requests in the system",
        "open: sent and not ended; without a first token: due, and waiting for it",
        partial(plots.amounts_over_time, lines, span_s, "Requests open and waiting"),
        legend=html.legend([(name, kind) for name, kind, _ in lines]),
    )
    lag = [(record.intended_s, record.sent_s - record.intended_s) for record in records]
    yield html.figure(
        "The generator's own lag",
        "the longest of each window: a request sent late is no fault of the engine; dotted: the "
        "limit",
        partial(
            plots.lag_over_time,
            timelines.longest_by_window(lag, span_s),
            span_s,
            summary.run.lag.late_after_s,
        ),
    )


def tables(summary: Summary) -> str:
    """All figures, each table with what they mean under it."""
    parts = [_latency_table(summary.all)]
    for title, groups in (
        ("By length class", summary.length_classes),
        ("By tier", summary.tiers),
        ("By replica", summary.replicas),
    ):
        if groups:
            rows = [(name or NOT_SERVED, *group_cells(scores)) for name, scores in groups.items()]
            content = html.table(["", *GROUP_HEADS], rows) + html.note(
                f"{SHORT}. {GOODPUT.capitalize()}."
            )
            parts.append(html.wide(title, content))
    if summary.all.errors:
        rows = [
            (kind, f"{count:,}", error_in_words(kind, summary.all.error_examples[kind]))
            for kind, count in summary.all.errors.items()
        ]
        parts.append(
            html.wide("Failed", html.table(["kind", "requests", "which is"], rows, said_last=True))
        )
    return "".join(parts)


def _latency_table(scores: Scores) -> str:
    said = " ".join(f"{name}: {meaning}." for name, meaning in DEFINITIONS)
    note = html.note(f"{said} {PERCENTILES.capitalize()}.")
    return html.wide("Latency", html.table(LATENCY_HEADS, latency_rows(scores)) + note)


def _parameters(summary: Summary) -> list[tuple[str, str]]:
    run, slos = summary.run, summary.slos
    started = datetime.fromtimestamp(run.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    wanted = [
        (f"SLO of {tier}" if tier else "SLO", f"{slo.in_words()}; {slo.share * 100:g} %")
        for tier, slo in (("", slos.default), *slos.tiers.items())
    ]
    return [
        *amounts(summary),
        *wanted,
        ("model", run.model),
        ("loop", "open" if run.open_loop else "closed"),
        ("seed", str(run.seed)),
        ("started", started),
        ("Headrace", f"{run.headrace}, Python {run.python}"),
    ]


def targets_s(slos: Slos, name: str) -> list[float]:
    """All different targets of this name, such as `ttft_s`, that ask for something."""
    found = {getattr(slo, name) for slo in (slos.default, *slos.tiers.values())}
    return sorted(at_s for at_s in found if at_s < inf)


def _kinds(classes: Mapping[str, Scores]) -> dict[str, str]:
    """Each length class with the class of its colour; where there is none, all as one."""
    names = list(classes) or [""]
    return {
        name: f"c{place}" if place < MOST_CLASSES else "muted" for place, name in enumerate(names)
    }


def _class_legend(kinds: Mapping[str, str]) -> str:
    return html.legend(kinds.items()) if len(kinds) > 1 else ""


def _of_class(records: Sequence[Record], name: str) -> Iterator[float]:
    for record in records:
        if record.length_class == name and (ttft_s := record.ttft_s) is not None:
            yield ttft_s


def _gaps(whole: Sequence[Record]) -> list[float]:
    """Of all gaps as many as a curve needs, ranked."""
    counts = GapCounts()
    for record in whole:
        counts.add(record.itl_s)
    return counts.spread(plots.CURVE_POINTS * 4)


def _ttft_s(record: Record) -> float | None:
    return record.ttft_s


def _tpot_s(record: Record) -> float | None:
    return record.tpot_s if record.ok else None


def _e2e_s(record: Record) -> float | None:
    return record.e2e_s if record.ok and not record.left else None
