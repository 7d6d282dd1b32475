"""The engine model does, in jumps, what an engine does step by step; and it loses no KV block."""

from __future__ import annotations

from math import inf, isclose

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.latency import LatencyProfile
from headrace.engine_model import (
    BlocksRemoved,
    BlocksStored,
    EngineModel,
    EngineSpec,
    Finished,
    FirstToken,
    Happening,
    Job,
)
from tests.unit.engine_model.step_by_step import Action, Fact, StepByStep

LATENCY = LatencyProfile("p", "made up", 7.1e-3, 2.3e-4, 1.7e-6, 3.3e-4, 1.1e-5)
KV_BLOCK = 4
PREFIX_BLOCK = 8
OFFSET_S = 1.37e-4
"""Added to when one looks and cancels, so that it is never the very end of a step: what is true
then depends on which comes first."""


@st.composite
def prompts(draw: st.DrawFn) -> tuple[int, tuple[int, ...]]:
    """(tokens, ids of full blocks) of a prompt out of a tree: families that fork at some depth."""
    family = draw(st.integers(0, 1))
    shared = draw(st.integers(0, 6))
    branch = draw(st.integers(0, 2))
    own = draw(st.integers(0, 3))
    tail = draw(st.integers(0, PREFIX_BLOCK - 1))
    blocks = tuple(family * 1000 + number for number in range(shared)) + tuple(
        family * 1000 + 100 + shared * 30 + branch * 10 + number for number in range(own)
    )
    return max(1, len(blocks) * PREFIX_BLOCK + tail), blocks


@st.composite
def workloads(draw: st.DrawFn) -> tuple[EngineSpec, list[Action]]:
    capacity = draw(st.integers(6, 40)) * KV_BLOCK + draw(st.integers(0, KV_BLOCK - 1))
    sequences = draw(st.integers(1, 5))
    spec = EngineSpec(
        LATENCY, capacity, KV_BLOCK, sequences, draw(st.integers(sequences, sequences + 40))
    )
    actions: list[Action] = []
    at_s = 0.0
    for number in range(draw(st.integers(1, 12))):
        at_s += draw(st.sampled_from([0.0, 0.0, 0.003, 0.021, 0.17, 1.9]))
        tokens, blocks = draw(prompts())
        room = spec.kv_capacity_tokens // KV_BLOCK * KV_BLOCK - tokens
        if room < 1:
            continue
        job = Job(number, tokens, draw(st.integers(1, min(room, 60))), blocks, PREFIX_BLOCK)
        actions.append(Action(at_s, "submit", job))
        if draw(st.booleans()) and draw(st.booleans()):
            after_s = draw(st.floats(0.0, 0.6)) + OFFSET_S
            actions.append(Action(at_s + after_s, "cancel", job))
        if draw(st.booleans()):
            actions.append(Action(at_s + draw(st.floats(0.0, 0.6)) + OFFSET_S, "look"))
    return spec, sorted(actions, key=lambda action: action.at_s)


def facts(happenings: list[Happening]) -> list[Fact]:
    told: list[Fact] = []
    for happening in happenings:
        match happening:
            case FirstToken(job, at_s, cached):
                told.append(Fact("first", at_s, (job.id, cached)))
            case Finished(job, at_s):
                told.append(Fact("end", at_s, (job.id,)))
            case BlocksStored():
                told.extend(Fact("stored", happening.at_s, (block,)) for block in happening.blocks)
            case BlocksRemoved(blocks, at_s):
                told.extend(Fact("removed", at_s, (block,)) for block in blocks)
    return told


def run(model: EngineModel, actions: list[Action], *, nosy: bool) -> list[Fact]:
    """What the model says; asked all the time, or only when there is something to do."""
    told: list[Fact] = []
    jobs = [action.job for action in actions if action.job is not None]
    for action in actions:
        while nosy and model.next_event_s() < action.at_s:
            told += facts(model.advance(model.next_event_s()))
        if action.kind == "submit":
            assert action.job is not None
            model.submit(action.job, action.at_s)
        elif action.kind == "cancel":
            assert action.job is not None
            model.cancel(action.job, action.at_s)
        else:
            told += facts(model.advance(action.at_s))
            told.append(Fact("look", action.at_s, look(model, jobs, action.at_s)))
        if nosy:
            assert model.next_step_s(action.at_s) <= model.next_event_s()
            assert_conserved(model)
    while model.next_event_s() < inf:
        told += facts(model.advance(model.next_event_s()))
    return told + facts(model.advance(model._now))


def look(model: EngineModel, jobs: list[Job], at_s: float) -> tuple[object, ...]:
    here = sorted({job.id: job for job in jobs if job.id in model._sequences}.items())
    used = round(model.kv_usage_ratio * (model.spec.kv_capacity_tokens // KV_BLOCK))
    decoded = tuple((number, model.decoded_tokens(job, at_s)) for number, job in here)
    return model.waiting, model.running, used, decoded


def assert_conserved(model: EngineModel) -> None:
    kv, batch = model._kv, model._batch
    size = PREFIX_BLOCK // KV_BLOCK
    pinned = size * sum(count > 0 for count in kv._pins.values())
    private = 0
    for sequence in model._running.values():
        held = batch.kv_tokens(sequence) if sequence.decoding else sequence.held_tokens
        if sequence.decoding and model._allocated_step == batch.step and held % KV_BLOCK == 0:
            held += 1  # the step in work has its block already
        private += -(-held // KV_BLOCK) - sequence.pinned * sequence.block_size
    assert kv.free_blocks >= 0
    assert kv.evictable_blocks == size * len(kv._unpinned)
    assert kv.available_blocks + pinned + private == kv.capacity_blocks


@given(workloads())
@settings(max_examples=150, deadline=None)
def test_as_step_by_step(workload: tuple[EngineSpec, list[Action]]):
    spec, actions = workload
    reference = StepByStep(spec, list(actions))
    expected = reference.run()
    model = EngineModel(spec, records_kv=True)
    told = run(model, actions, nosy=True)
    assert [(fact.kind, fact.what) for fact in told] == [
        (fact.kind, fact.what) for fact in expected
    ]
    for fact, other in zip(told, expected, strict=True):
        assert isclose(fact.at_s, other.at_s, rel_tol=1e-9, abs_tol=1e-12), (fact, other)
    assert model.preemptions == reference.preemptions


@given(workloads())
@settings(max_examples=100, deadline=None)
def test_whoever_asks_and_records_changes_nothing(workload: tuple[EngineSpec, list[Action]]):
    spec, actions = workload
    actions = [action for action in actions if action.kind != "look"]
    nosy = run(EngineModel(spec, records_kv=True), actions, nosy=True)
    nosy = [fact for fact in nosy if fact.kind in ("first", "end")]
    quiet = run(EngineModel(spec), actions, nosy=False)
    assert [(fact.kind, fact.what) for fact in nosy] == [(fact.kind, fact.what) for fact in quiet]
    for fact, other in zip(nosy, quiet, strict=True):
        assert isclose(fact.at_s, other.at_s, rel_tol=1e-12)


@given(workloads())
@settings(max_examples=100, deadline=None)
def test_all_finish_and_give_everything_back(workload: tuple[EngineSpec, list[Action]]):
    spec, actions = workload
    model = EngineModel(spec)
    told = run(model, actions, nosy=True)
    cancelled = {action.job.id for action in actions if action.kind == "cancel" and action.job}
    submitted = {action.job.id: action.job for action in actions if action.job}
    ended = {fact.what[0] for fact in told if fact.kind == "end"}
    assert set(submitted) - cancelled <= ended
    for fact in told:
        if fact.kind == "first":
            number, cached = fact.what
            assert isinstance(number, int)
            assert isinstance(cached, int)
            assert 0 <= cached < submitted[number].prompt_tokens
    assert model.running == model.waiting == 0
    assert model.kv_usage_ratio == 0.0
    assert model._kv.available_blocks == model._kv.capacity_blocks
    assert not model._sequences


@given(workloads(), st.data())
@settings(max_examples=60, deadline=None)
def test_ids_that_are_no_prefixes_lose_no_blocks(
    workload: tuple[EngineSpec, list[Action]], data: st.DataObject
):
    """A broken trace may repeat an id in other places: wrong hits, but never wrong sums."""
    spec, actions = workload
    ids = st.integers(0, 5)
    for action in actions:
        if action.job is not None:
            action.job.blocks = tuple(data.draw(ids) for _ in action.job.blocks)
    model = EngineModel(spec)
    run(model, actions, nosy=False)
    assert model.running == model.waiting == 0
    assert model._kv.available_blocks == model._kv.capacity_blocks
