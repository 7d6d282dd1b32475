"""How many processes a benchmark takes by default."""

from __future__ import annotations

import os

import pytest

from benchmarks import routing_grid, scaling_compare


@pytest.mark.parametrize(
    "options", [routing_grid._options, scaling_compare._arguments], ids=["grid", "scaling"]
)
@pytest.mark.parametrize("allowed", [{0}, {1, 5, 6}])
def test_as_many_as_this_process_may_run_on(monkeypatch, options, allowed: set[int]):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: allowed, raising=False)
    assert options([]).jobs == len(allowed)
    assert options(["--jobs", "7"]).jobs == 7


def test_scaling_is_compared_where_nobody_tells_what_is_allowed(monkeypatch):
    """macOS has no affinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert scaling_compare._arguments([]).jobs == 8
