"""The load generator is on time and cheap, on a machine that it shares with a scripted engine.

Figures of a quiet machine with two cores: run this lane alone.
"""

from dataclasses import replace

import pytest

from benchmarks import peer_envs
from benchmarks.engines import MODEL, engines
from benchmarks.generator_accuracy import ITL_S, SCRIPT, TTFT_S, accuracy
from benchmarks.generator_runs import measure
from benchmarks.generators import GENERATORS, Workload
from benchmarks.peer_envs import PeerUnavailableError

pytestmark = pytest.mark.acceptance

ASKED_S, VLLM_BENCH_S = 0.6e-3, 2.5e-3
"""CPU of a request: what is asked of us, and what `vllm bench serve` took where that was asked. The
same code takes twice as long on one machine as on another, and a third more from one hour to the
next: in a slow hour the first is missed, and what that one takes beside us says how slow it is.
"""


def test_at_200_requests_a_second_it_is_poisson_cheap_and_there_at_once():
    found = accuracy(200.0, 20.0)
    print("\n".join(found.lines()))
    assert (found.is_valid, found.failed) == (True, 0)
    assert found.ks < found.ks_critical
    assert found.cpu_per_request_s <= ASKED_S
    assert found.first_request_s <= 1.5


def test_at_200_requests_a_second_it_takes_the_cpu_that_is_asked_at_any_speed():
    """Of all processes from start to end, above what a run of ten requests takes."""
    named = {each.name: each for each in GENERATORS}
    ours, theirs = named["headrace"], named["vllm bench"]
    try:
        theirs.prepare()
    except PeerUnavailableError as error:
        pytest.skip(str(error))
    with engines(SCRIPT, count=1) as fleet:
        few = Workload(fleet.urls[0], MODEL, 20.0, 10, 256, 32, peer_envs.vllm().model, seed=1)
        many = replace(few, rate=200.0, requests=2000, seed=2)
        begun = [measure(each, few) for each in (ours, theirs)]
        ended = [measure(each, many) for each in (ours, theirs)]
    ours_s, theirs_s = (
        (end.cpu_s - begin.cpu_s) / (many.requests - few.requests)
        for begin, end in zip(begun, ended, strict=True)
    )
    as_asked_s = ours_s * VLLM_BENCH_S / theirs_s
    print(
        f"CPU per request: {ours_s * 1e3:.2f} ms, vllm bench {theirs_s * 1e3:.2f} ms: "
        f"{as_asked_s * 1e3:.2f} ms where that takes {VLLM_BENCH_S * 1e3:.1f} ms"
    )
    assert [end.figures and end.figures.completed for end in ended] == [2000, 2000]
    assert as_asked_s <= ASKED_S


def test_at_600_requests_a_second_rate_and_ttft_are_right():
    found = accuracy(600.0, 20.0)
    print("\n".join(found.lines()))
    assert (found.is_valid, found.failed) == (True, 0)
    assert found.requests == pytest.approx(600 * 20, rel=0.05)
    assert found.ttft.p50 == pytest.approx(TTFT_S, abs=0.002)
    assert found.ttft.p99 == pytest.approx(TTFT_S, abs=0.010)
    assert found.tpot.p50 == pytest.approx(ITL_S, rel=0.02)
