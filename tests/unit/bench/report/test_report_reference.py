"""Every field of the JSON is in the reference."""

import re
from pathlib import Path

import pytest

from headrace.bench.figures.scores import summarise
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.report.run_plots import MOST_DOTS
from headrace.bench.sweep.search import SweepSettings, requests_per_run, sweep
from tests.unit.bench.virtual_engine import VirtualEngine

PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "bench-report.md").read_text()
NAMES_IN_IT = set(re.findall(r"`(\w+)`", PAGE))
BY_NAME = {"length_classes", "tiers", "replicas", "errors", "error_examples"}
SLOS = Slos(Slo(ttft_s=1.0, share=0.9))
ENGINE = VirtualEngine(requests=120, classes={"short": (64, 8)}, failing=0.02)


def fields(value: object, name: str = "") -> set[str]:
    """All names in a document, except those that users give."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, each in value.items():
            found |= {key} if name not in BY_NAME else set()
            found |= fields(each, key)
    elif isinstance(value, list):
        for each in value:
            found |= fields(each, name)
    return found


@pytest.mark.parametrize("what", ["run", "sweep"])
def test_every_field_is_explained(what):
    run = ENGINE.run(4.0)
    document = (
        summarise(run.records, run.info, SLOS).document()
        if what == "run"
        else sweep(ENGINE.run, SweepSettings(most_runs=3), SLOS).document()
    )
    assert fields(document) - NAMES_IN_IT == set()
    assert f"`{document['schema']}`" in PAGE


def test_the_numbers_in_it_are_those_of_the_code():
    assert f"a run has {requests_per_run(Slos(Slo(share=0.99)))}; " in PAGE
    assert f"for 95 % it has {requests_per_run(Slos(Slo(share=0.95)))}." in PAGE
    assert f"more than {MOST_DOTS:,} requests" in PAGE
    assert f"{SweepSettings().most_runs} runs are the most" in PAGE
