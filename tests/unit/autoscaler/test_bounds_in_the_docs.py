"""The bounds that docs/reference/scaler.md names are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.autoscaler import history, minutes, names, orders, pool
from headrace.autoscaler.settings import GatheringSettings, HistorySettings
from headrace.compose.serving import scaler
from headrace.core.scaling import cold_starts, misses
from headrace.core.scaling.settings import ScalingSettings
from headrace.edges.keda import server
from headrace.edges.keda.settings import KedaSettings
from headrace.gateway import control_server

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "scaler.md"
KEDA, GATHERING, SCALING = KedaSettings(), GatheringSettings(), ScalingSettings()
BOUNDS = {
    "calls of KEDA at a time": f"`keda.max_calls` ({KEDA.max_calls:,})",
    "streams of `external-push`, among them": f"`keda.max_streams` ({KEDA.max_streams:,})",
    "a message of KEDA, and its metadata": (
        f"`keda.max_message` ({KEDA.max_message_bytes // 1024} KiB)"
    ),
    "a KEDA connection without a call": f"{server.IDLE_S:,.0f} s",
    "HTTP connections": f"{control_server.MOST_CONNECTIONS:,}",
    "an HTTP request, until it is read": f"{control_server.REQUEST_S:.0f} s",
    "a gateway's answer": (
        f"`gathering.max_answer` ({GATHERING.max_answer_bytes // 2**20} MiB), "
        f"`gathering.timeout` ({GATHERING.timeout_s:g} s)"
    ),
    "addresses of one name in `gateways`": f"{names.MAX_GATEWAYS}",
    "age of a report": f"`stale` ({SCALING.stale_s:g} s)",
    "no decision though one was due": f"`stale` ({SCALING.stale_s:g} s)",
    "an order that brings no replica": f"{orders.GIVEN_UP_S:,.0f} s",
    "decisions remembered for `why --scaling`": f"{pool.MOST_KEPT} of a pool",
    "cold starts remembered": f"{cold_starts.KEPT} of a pool, of {cold_starts.LONGEST_S:,.0f} s",
    "misses remembered": f"{misses.LONGEST_S:,.0f} s",
    "the history file with its older part": f"{history.MAX_FILE_BYTES // 2**20} MiB",
    "age of a report at the end of a minute": (
        f"{minutes.FRESH_S:g} s, or twice `gathering.interval`"
    ),
    "history that is read": (
        f"`history.days` ({HistorySettings().days:g}), {scaler.HISTORY_S:.0f} s for reading"
    ),
    "a Prometheus asked at the start what was wanted": f"{scaler.WANTED_S:g} s",
    "one answer of Prometheus": f"{history.MOST_POINTS:,} points, {history.TIMEOUT_S:.0f} s",
    "replicas of a pool": f"`max_replicas` ({SCALING.max_replicas})",
}


def told() -> dict[str, str]:
    rows = PAGE.read_text().partition("## Bounds")[2].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows if row.startswith("|")]
    return {of: most for of, most, *_ in cells[2:]}


@pytest.mark.parametrize("of", BOUNDS)
def test_a_bound_is_told_as_it_is(of: str):
    assert told()[of] == BOUNDS[of]


def test_none_is_told_that_is_not_looked_up_here():
    assert set(told()) == set(BOUNDS)
