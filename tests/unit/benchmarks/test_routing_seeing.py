"""Policies that see everything: what they are told is true, and looking changes nothing."""

import random

import pytest

from benchmarks.routing_foresight import _Sketch, _total_s
from benchmarks.routing_seeing import SEEING, run_seeing
from benchmarks.routing_truth import Truth, copied
from headrace.engine_model import EngineModel, Finished, FirstToken, Job
from headrace.engine_model.profiles import profile
from headrace.simulator.runs import run_policy
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.generated import taken
from headrace.traffic.multi_turn import MultiTurn, multi_turn
from headrace.traffic.trace import TraceRequest

ENGINE = profile("h100-llama-3.1-8b")
BLOCK_TOKENS = 64


def requests(count: int) -> list[TraceRequest]:
    """Prompts that share beginnings, and more of them than a cache holds."""
    rng, found = random.Random(5), []
    for number in range(count):
        family, length = rng.randrange(12), rng.randrange(100, 900)
        blocks = tuple(family * 1000 + depth for depth in range(length - 20))
        blocks += tuple(10**6 + number * 100 + depth for depth in range(20))
        found.append(
            TraceRequest(number * 0.4, length * BLOCK_TOKENS, rng.randrange(2, 300), blocks)
        )
    return found


def played(engine: EngineModel, to_s: float) -> list[tuple[str, float, int]]:
    return [
        (type(each).__name__, each.at_s, each.job.id)
        for each in engine.advance(to_s)
        if isinstance(each, FirstToken | Finished)
    ]


def filled(trace: list[TraceRequest]) -> EngineModel:
    engine = EngineModel(ENGINE)
    for number, each in enumerate(trace):
        job = Job(number, each.input_tokens, each.output_tokens, each.blocks, BLOCK_TOKENS)
        engine.submit(job, each.arrival_s)
    return engine


def test_a_copy_goes_on_as_the_engine_does_and_leaves_it_alone():
    trace = requests(40)
    engine, alone = filled(trace), filled(trace)
    first = copied(engine)
    told = played(first, 1e4)
    again = played(copied(engine), 1e4)
    assert told == again == played(engine, 1e4) == played(alone, 1e4)
    assert sum(name == "Finished" for name, *_ in told) == 40
    assert first.cached_blocks == engine.cached_blocks


def test_the_first_token_comes_when_it_was_told():
    trace = requests(40)
    engine, last = filled(trace[:-1]), trace[-1]
    truth = Truth(lambda _: engine, trace, BLOCK_TOKENS)
    truth.row = 39
    ttft_s, cached_tokens = truth.first_token("any", last.arrival_s)
    job = Job(39, last.input_tokens, last.output_tokens, last.blocks, BLOCK_TOKENS)
    engine.submit(job, last.arrival_s)
    found = [
        (each.at_s - last.arrival_s, each.cached_tokens)
        for each in engine.advance(1e4)
        if isinstance(each, FirstToken) and each.job is job
    ]
    assert found == [(pytest.approx(ttft_s), cached_tokens)]


@pytest.mark.parametrize("policy", list(SEEING))
def test_a_run_serves_all_and_is_not_far_from_what_a_gateway_does(policy):
    shape = MultiTurn()
    workload = taken("turns", shape.block_tokens, multi_turn(shape, requests_per_s=4, seed=3), 200)
    settings = SimulationSettings(engine=ENGINE, replicas=2, seed=3)
    seen = run_seeing(settings, workload, policy).scores
    assert seen.completed == seen.requests == 200
    blind = run_policy(settings, workload, "seconds").scores
    assert seen.ttft_s.mean < 1.2 * blind.ttft_s.mean


def test_who_knows_who_comes_leaves_the_replica_free_that_they_need():
    shared, private = tuple(range(600)), tuple(range(10**6, 10**6 + 300))
    engines = [EngineModel(ENGINE), EngineModel(ENGINE)]
    engines[0].submit(Job(0, 600 * BLOCK_TOKENS, 2, shared, BLOCK_TOKENS), 0.0)
    for engine in engines:
        engine.advance(20.0)
    sketches = [_Sketch(engine, BLOCK_TOKENS, 20.0) for engine in engines]
    request = TraceRequest(20.0, 300 * BLOCK_TOKENS, 2, private)
    after = [TraceRequest(20.01, 600 * BLOCK_TOKENS + 9, 2, shared)] * 5
    alone = [_total_s(sketches, at, request, [], 20.0) for at in (0, 1)]
    assert alone[0] == pytest.approx(alone[1])
    assert _total_s(sketches, 1, request, after, 20.0) < _total_s(sketches, 0, request, after, 20.0)
