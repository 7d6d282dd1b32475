"""What is kept of misses, and of whose."""

from __future__ import annotations

import json

import pytest

from headrace.core.scaling.misses import LONGEST_S, MissLog
from headrace.core.scaling.observation import GatewayReport


def told(name: str, judged: float) -> GatewayReport:
    return GatewayReport(name, 0.0, judged=judged, ttft_misses=judged / 10)


def restored(log: MissLog, *without: str) -> MissLog:
    state = json.loads(json.dumps(log.state()))
    for each in without:
        del state[each]
    other = MissLog()
    other.restore(state)
    return other


@pytest.mark.parametrize("without", [(), ("seen_s",)], ids=["kept", "a file of before"])
def test_a_gateway_that_has_gone_is_forgotten_also_in_what_is_kept(without: tuple[str, ...]):
    log = MissLog()
    log.observe((told("gone", 10.0), told("stays", 10.0)), 600.0)
    log = restored(log, *without)
    log.observe((told("stays", 20.0),), LONGEST_S)
    assert sorted(log.state()["last"]) == ["gone", "stays"]  # it may come back
    log = restored(log)
    log.observe((told("stays", 30.0),), LONGEST_S + 720.0)
    assert list(log.state()["last"]) == ["stays"]
    assert list(log.state()["seen_s"]) == ["stays"]


def test_one_that_is_back_soon_counts_what_came_meanwhile():
    log = MissLog()
    log.observe((told("back", 100.0),), 600.0)
    log.observe((), 900.0)
    log.observe((told("back", 200.0),), 1200.0)
    assert log.missed_share(1200.0) == pytest.approx(0.1)
