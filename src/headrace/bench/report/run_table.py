"""A run in the terminal: the answer, then latencies, groups, errors, and the generator itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from headrace.bench.figures.scores import Scores, Summary
from headrace.bench.record import ERROR_KINDS
from headrace.bench.report.definitions import DEFINITIONS, DUE, GOODPUT, PERCENTILES, SHORT
from headrace.core.durations import in_words

NOT_SERVED = "(not served)"
"""The name of no replica."""
NOTE_COLUMNS = 100
"""Sentences are no wider than this, however wide the tables are."""


def run_table(summary: Summary, width: int) -> RenderableType:
    """Everything of a run, in `width` characters."""
    return Group(*_parts(summary, width))


def _parts(summary: Summary, width: int) -> Iterator[RenderableType]:
    yield headline(summary)
    yield from (Padding(Text(line), (0, 0, 0, 2)) for line in summary.verdict.lines)
    yield _latencies(summary.all, width)
    yield definitions()
    for title, groups in (
        ("length class", summary.length_classes),
        ("tier", summary.tiers),
        ("replica", summary.replicas),
    ):
        if groups:
            yield _groups(title, groups, width)
            yield note(f"{SHORT}.")
    yield Text()
    yield _amounts(summary)
    if summary.all.errors:
        yield _errors(summary.all)


def headline(summary: Summary) -> Text:
    """The verdict in a line."""
    verdict = summary.verdict
    good = verdict.met and verdict.valid
    return Text(verdict.headline, "bold green" if good else "bold red")


def definitions() -> RenderableType:
    """In small print, under a table of latencies."""
    said = [f"{name}: {meaning}." for name, meaning in DEFINITIONS]
    return note(f"{' '.join(said)} {PERCENTILES.capitalize()}.")


def note(text: str) -> RenderableType:
    """What stands in small print under a table."""
    return Constrain(Padding(Text(text, "dim"), (0, 0, 0, 2)), NOTE_COLUMNS)


def _table(*heads: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(heads[0], overflow="fold", min_width=min(len(heads[0]), 12))
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def columns_that_fit(
    heads: Sequence[str], rows: Sequence[Sequence[str]], dispensable: Sequence[int], width: int
) -> list[int]:
    """The columns that there is room for; of the others `dispensable` names the first to go."""
    wide = [max(map(len, column)) + 2 for column in zip(heads, *rows, strict=True)]
    shown = list(range(len(wide)))
    for place in dispensable:
        if sum(wide[each] for each in shown) <= width:
            break
        shown.remove(place)
    return shown


def _latencies(scores: Scores, width: int) -> Table:
    return _fitted(LATENCY_HEADS, list(latency_rows(scores)), _LATENCY_DISPENSABLE, width)


def _fitted(
    heads: Sequence[str], rows: Sequence[Sequence[str]], dispensable: Sequence[int], width: int
) -> Table:
    shown = columns_that_fit(heads, rows, dispensable, width)
    table = _table(*(heads[place] for place in shown))
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    return table


LATENCY_HEADS = ("", "mean", "p50", "p90", "p95", "p99", "max", "of")
_LATENCY_DISPENSABLE = (4, 3, 7, 1)
"""As `_DISPENSABLE`."""


def latency_rows(scores: Scores) -> Iterator[tuple[str, ...]]:
    """The four times of a group, as `LATENCY_HEADS` names their figures."""
    for name, times in (
        ("TTFT", scores.ttft_s),
        ("TPOT", scores.tpot_s),
        ("ITL", scores.itl_s),
        ("E2E", scores.e2e_s),
    ):
        figures = (times.mean, times.p50, times.p90, times.p95, times.p99, times.max)
        shown = map(in_words, figures) if times.count else ["–"] * len(figures)
        yield name, *shown, f"{times.count:,}"


GROUP_HEADS = (
    "requests",
    "goodput",
    "failed",
    "TTFT p50",
    "TTFT p99",
    "TPOT p50",
    "TPOT p99",
    "in tok/s",
    "out tok/s",
    "cached",
)
_DISPENSABLE = (8, 10, 9, 6, 4, 3, 1, 7)
"""Columns that a narrow terminal leaves out, this first; the name is column 0."""


def group_cells(scores: Scores) -> tuple[str, ...]:
    """A group's figures, as `GROUP_HEADS` names them."""
    ttft, tpot = scores.ttft_s, scores.tpot_s
    return (
        f"{scores.requests:,}",
        percent(scores.goodput_share) if scores.judged else "–",
        f"{scores.failed:,}",
        *(in_words(each) if ttft.count else "–" for each in (ttft.p50, ttft.p99)),
        *(in_words(each) if tpot.count else "–" for each in (tpot.p50, tpot.p99)),
        f"{scores.input_tokens_per_s:,.0f}",
        f"{scores.output_tokens_per_s:,.0f}",
        "–" if scores.hit_share is None else percent(scores.hit_share),
    )


def _groups(title: str, groups: Mapping[str, Scores], width: int) -> Table:
    """In as many columns as there is room for; --json and the report have them all."""
    rows = [(name or NOT_SERVED, *group_cells(scores)) for name, scores in groups.items()]
    return _fitted((title, *GROUP_HEADS), rows, _DISPENSABLE, width)


def amounts(summary: Summary) -> list[tuple[str, str]]:
    """What arrived, what came of it, and how the generator did: names and values."""
    scores, run = summary.all, summary.run
    left = f", {scores.left:,} left on purpose" if scores.left else ""
    left += f", {scores.interrupted:,} interrupted" if scores.interrupted else ""
    offered = f"{run.offered_rps:.4g} requests/s over {in_words(run.load_s)}"
    goodput = f"{percent(scores.goodput_share)}, {scores.goodput_rps:.4g} requests/s"
    tokens = f"{scores.input_tokens_per_s:,.0f} in, {scores.output_tokens_per_s:,.0f} out"
    found = [
        ("sent", f"{scores.requests:,} requests, {offered}"),
        ("answered", f"{scores.completed:,} whole, {scores.failed:,} failed{left}"),
        ("goodput", goodput if scores.judged else "–"),
        ("missed", missed(scores)),
        ("tokens/s", tokens),
    ]
    if scores.hit_share is not None:
        found.append(("cached input", percent(scores.hit_share)))
    return [*found, *generator_facts(summary)]


def generator_facts(summary: Summary) -> list[tuple[str, str]]:
    """How late it was, what it used, how it counted."""
    run, requests = summary.run, summary.all.requests
    lag = run.lag
    late = f"sent late by p50 {in_words(lag.p50_s)}, p99 {in_words(lag.p99_s)}"
    each = f", {run.cpu_s / requests * 1e3:.3f} ms of CPU per request" if requests else ""
    workers = "1 process" if run.workers == 1 else f"{run.workers} processes"
    facts = [("generator", f"{late}, max {in_words(lag.max_s)}; {workers}{each}")]
    if run.arrival_tick_s:
        tick = in_words(run.arrival_tick_s)
        facts.append(
            ("arrivals", f"so many that they were read every {tick} or less: late by that at most")
        )
    return [*facts, ("prompts sized by", run.tokens_by)]


def missed(scores: Scores) -> str:
    """Which target the requests missed that are no goodput."""
    kinds = (
        ("failed", scores.failed),
        ("TTFT", scores.missed_ttft),
        ("TPOT", scores.missed_tpot),
        ("E2E", scores.missed_e2e),
    )
    return ", ".join(f"{name} {count:,}" for name, count in kinds if count) or "none"


def _amounts(summary: Summary) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for name, value in amounts(summary):
        table.add_row(name, value)
    said = note(f"{GOODPUT.capitalize()}. {DUE.capitalize()}.")
    return Group(Padding(table, (0, 0, 0, 2)), said)


def _errors(scores: Scores) -> RenderableType:
    table = _table("error", "requests")
    table.add_column("which is")
    for kind, count in scores.errors.items():
        table.add_row(kind, f"{count:,}", error_in_words(kind, scores.error_examples[kind]))
    return Constrain(table, NOTE_COLUMNS)


def error_in_words(kind: str, example: str) -> str:
    """What a kind of error means, with what was said of one of them, and what helps."""
    if kind.startswith("http_"):
        meaning = f"the answer had status {kind.removeprefix('http_')}"
    else:
        meaning = ERROR_KINDS.get(kind, "")
    said = f"{meaning}, as: {example}" if example else meaning
    return f"{said} (--natural-ends leaves it out)" if "ignore_eos" in example else said


def percent(share: float) -> str:
    """With one decimal; with two near a whole, where a tenth of a per cent is many requests."""
    return f"{share * 100:.2f} %" if 0.99 <= share < 1.0 else f"{share * 100:.1f} %"
