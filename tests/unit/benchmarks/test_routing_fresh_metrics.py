"""The rules that read metrics are played with old and with fresh ones."""

from __future__ import annotations

from benchmarks import routing_fresh_metrics
from benchmarks.routing_fresh_metrics import COUNTING, READING, as_markdown, rows
from benchmarks.routing_runs import Runner


def test_fresh_metrics_change_what_reads_them(monkeypatch):
    monkeypatch.setattr(
        routing_fresh_metrics,
        "capacities",
        lambda _runner, fleets, _scale: dict.fromkeys(fleets, 8.0),
    )
    monkeypatch.setattr(routing_fresh_metrics, "SEEDS", 1)
    with Runner(1, None) as runner:
        found = rows(runner, ["single_shots"], 0.9, 0.1)
    by = {(row.policy, row.is_fresh): row for row in found}
    assert set(by) == {(each, False) for each in COUNTING} | {
        (each, fresh) for each in READING for fresh in (False, True)
    }
    old, fresh = by["llmd_default", False], by["llmd_default", True]
    assert fresh.ttft_s < old.ttft_s
    header, _, line = as_markdown(found).splitlines()
    assert header.count("|") == line.count("|")
    assert f"{fresh.ttft_s:.3f} s" in line
