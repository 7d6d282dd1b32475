"""What a terminal shows, at any width."""

from dataclasses import replace

import pytest
from rich.console import Console

from headrace.bench.figures.scores import summarise
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.report.run_table import NOTE_COLUMNS, run_table
from headrace.bench.report.sweep_table import sweep_table
from headrace.bench.sweep.search import SweepSettings, sweep
from tests.unit.bench.virtual_engine import VirtualEngine

SLOS = Slos(Slo(ttft_s=1.0, tpot_s=0.05, share=0.95))
ENGINE = VirtualEngine(requests=200, classes={"short": (64, 16), "long": (512, 64)}, failing=0.02)


def lines(content, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(content)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_run_fits(width):
    run = ENGINE.run(4.0)
    shown = lines(run_table(summarise(run.records, run.info, SLOS), width), width)
    text = "\n".join(shown)
    assert max(map(len, shown)) <= width
    assert shown[0].startswith("MET: ")
    for wanted in ("TTFT", "TPOT", "ITL", "E2E", "http_503", "short", "goodput", "generator"):
        assert wanted in text
    assert "…" not in text  # nothing is cut off
    assert "length class" in text


@pytest.mark.parametrize("width", [80, 160])
def test_a_sweep_fits(width):
    engine = replace(ENGINE, failing=0.0)
    shown = lines(sweep_table(sweep(engine.run, SweepSettings(), SLOS), width), width)
    assert max(map(len, shown)) <= width
    assert "is the highest rate found to meet the targets" in " ".join(shown[:2])


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_leaves_figures_out_and_no_name(width):
    run = ENGINE.run(4.0)
    shown = lines(run_table(summarise(run.records, run.info, SLOS), width), width)
    assert max(map(len, shown)) <= width
    for name in ("TTFT", "TPOT", "ITL", "E2E"):
        (row,) = [line for line in shown if line.startswith(f" {name} ")]
        assert len(row.split()) >= 7  # its name; p50, p99 and max, each with its unit
        assert "…" not in row
    for name in ("short", "long"):
        assert any(line.startswith(f" {name} ") for line in shown)


def test_a_line_of_the_verdict_stays_indented_where_it_is_wrapped():
    engine = replace(ENGINE, failing=0.0, tiers=("gold", "batch"))
    run = engine.run(4.0)
    summary = summarise(run.records, run.info, SLOS)
    (other, *_) = summary.verdict.lines
    shown = lines(run_table(summary, 60), 60)
    first = next(place for place, line in enumerate(shown) if line.strip().startswith(other[:12]))
    wrapped = shown[first : first + 2]
    assert [line[:2] for line in wrapped] == ["  ", "  "]
    assert other.startswith(" ".join(line.strip() for line in wrapped))


def test_an_error_is_shown_with_what_was_said_of_it():
    run = ENGINE.run(4.0)
    refused = [record for record in run.records if record.error]
    refused[0].error_detail = "no such argument: ignore_eos"
    summary = summarise(run.records, run.info, SLOS)
    text = " ".join(" ".join(lines(run_table(summary, 100), 100)).split())
    assert (
        "http_503 6 the answer had status 503, as: no such argument: ignore_eos "
        "(--natural-ends leaves it out)"
    ) in text
    assert summary.all.error_examples == {"http_503": refused[0].error_detail}


def test_a_long_error_is_wrapped_however_wide_the_table_may_be():
    run = ENGINE.run(4.0)
    next(record for record in run.records if record.error).error_detail = "too much " * 30
    shown = lines(run_table(summarise(run.records, run.info, SLOS), 200), 200)
    said = [line for line in shown if "too much" in line]
    assert len(said) > 2
    assert max(map(len, said)) <= NOTE_COLUMNS


def test_nothing_at_all_is_shown_as_nothing():
    run = ENGINE.run(4.0)
    text = "\n".join(lines(run_table(summarise([], run.info, SLOS), 100), 100))
    assert "no request to judge" in text
    assert "–" in text
