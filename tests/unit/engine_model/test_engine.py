"""What the engine model does, one behaviour at a time, on times that can be worked out by hand."""

from math import inf

import pytest

from headrace.core.latency import LatencyProfile
from headrace.engine_model import (
    BlocksRemoved,
    BlocksStored,
    EngineModel,
    EngineSpec,
    Finished,
    FirstToken,
    Job,
)

LATENCY = LatencyProfile("p", "made up", 0.01, 1e-4, 1e-8, 1e-3, 1e-6)


def engine(*, kv: int = 16_000, sequences: int = 8, budget: int = 1000, records: bool = False):
    spec = EngineSpec(LATENCY, kv, max_sequences=sequences, max_batched_tokens=budget)
    return EngineModel(spec, records_kv=records)


def first_tokens(model: EngineModel, until_s: float = inf) -> dict[int, FirstToken]:
    told = model.advance(until_s)
    return {each.job.id: each for each in told if isinstance(each, FirstToken)}


def ends(model: EngineModel, until_s: float = inf) -> dict[int, float]:
    told = model.advance(until_s)
    return {each.job.id: each.at_s for each in told if isinstance(each, Finished)}


def test_one_job_takes_its_prefill_and_a_step_per_token():
    model = engine()
    model.submit(Job(1, 600, 4), 5.0)
    first, last = model.advance(inf)
    assert isinstance(first, FirstToken)
    assert isinstance(last, Finished)
    prefill_s = LATENCY.prefill_s(600)
    assert first.at_s == pytest.approx(5 + prefill_s)
    decode_s = sum(LATENCY.step_s(1, 600 + number) for number in range(3))
    assert last.at_s == pytest.approx(first.at_s + decode_s)


def test_a_job_of_one_token_ends_with_its_first():
    model = engine()
    model.submit(Job(1, 10, 1), 0.0)
    first, last = model.advance(inf)
    assert first.at_s == last.at_s == pytest.approx(LATENCY.prefill_s(10))
    assert isinstance(last, Finished)


def test_a_long_prompt_is_prefilled_in_chunks_of_the_budget():
    model = engine(budget=1000)
    model.submit(Job(1, 2500, 1), 0.0)
    assert model.next_event_s() == pytest.approx(LATENCY.prefill_s(1000))
    assert model.advance(model.next_event_s()) == []
    chunks_s = (
        LATENCY.prefill_s(1000) + LATENCY.prefill_s(1000, 1000) + LATENCY.prefill_s(500, 2000)
    )
    assert first_tokens(model)[1].at_s == pytest.approx(chunks_s)


def test_decoding_goes_on_beside_prefill_and_takes_its_budget_first():
    model = engine(budget=1000)
    first = Job(1, 100, 50)
    model.submit(first, 0.0)
    began = model.next_event_s()
    model.submit(Job(2, 1500, 1), began)
    chunk = LATENCY.prefill_s(999) + LATENCY.step_s(1, 100) - LATENCY.per_step_s
    assert model.next_event_s() == pytest.approx(began + chunk)
    model.advance(model.next_event_s())
    assert model.decoded_tokens(first, model.next_event_s()) == 2


def test_jobs_of_the_same_moment_share_a_step_whatever_is_asked_in_between():
    quiet, nosy = engine(), engine()
    for number in (1, 2, 3):
        job = Job(number, 300, 2)
        quiet.submit(job, 1.0)
        nosy.submit(job, 1.0)
        nosy.next_event_s()
        nosy.advance(1.0)
        assert nosy.running == number
    assert quiet.advance(inf) == nosy.advance(inf)


def test_who_comes_in_the_middle_of_a_step_joins_the_next():
    model = engine()
    early = Job(1, 100, 100)
    model.submit(early, 0.0)
    began = first_tokens(model, 0.03)[1].at_s
    third_s = began + LATENCY.step_s(1, 100) + LATENCY.step_s(1, 101) + LATENCY.step_s(1, 102)
    model.submit(Job(2, 10, 1), third_s - 1e-4)
    assert model.next_event_s() == pytest.approx(third_s)
    assert model.running == 1
    assert model.decoded_tokens(early, third_s - 1e-4) == 3
    model.advance(third_s + 1e-9)
    assert model.running == 2


def test_no_more_sequences_run_than_allowed_and_the_first_come_first():
    model = engine(sequences=2)
    for number in (1, 2, 3):
        model.submit(Job(number, 100, 10 * number), 0.0)
    assert (model.running, model.waiting) == (2, 1)
    told = ends(model)
    assert list(told) == [1, 2, 3]


def test_cached_blocks_are_not_prefilled_again():
    model = engine()
    model.submit(Job(1, 700, 1, (1, 2), 320), 0.0)
    model.submit(Job(2, 700, 1, (1, 2), 320), 1.0)
    model.submit(Job(3, 700, 1, (1, 9), 320), 2.0)
    told = first_tokens(model)
    assert [told[number].cached_tokens for number in (1, 2, 3)] == [0, 640, 320]
    assert told[2].at_s == pytest.approx(1 + LATENCY.prefill_s(60, 640))
    assert (model.query_tokens, model.hit_tokens, model.prefilled_tokens) == (2100, 960, 1140)


def test_a_prompt_that_is_all_cached_still_prefills_its_last_kv_block():
    model = engine()
    model.submit(Job(1, 640, 1, (1, 2), 320), 0.0)
    model.submit(Job(2, 640, 1, (1, 2), 320), 1.0)
    assert first_tokens(model)[2].cached_tokens == 640 - 16


def test_prompts_in_the_same_step_share_what_it_computes():
    """As in vLLM, which registers blocks when it schedules them."""
    model = engine()
    model.submit(Job(1, 330, 1, (1,), 320), 0.0)
    model.submit(Job(2, 330, 1, (1,), 320), 0.0)
    assert first_tokens(model)[2].cached_tokens == 320


def test_the_least_recently_used_prefix_leaves_first_and_its_deepest_block_before_others():
    model = engine(kv=1600, records=True)
    model.submit(Job(1, 650, 1, (1, 2), 320), 0.0)
    model.submit(Job(2, 650, 1, (3, 4), 320), 1.0)
    model.submit(Job(3, 650, 1, (1, 5), 320), 2.0)
    told = model.advance(inf)
    removed = [each for each in told if isinstance(each, BlocksRemoved)]
    assert [each.blocks for each in removed] == [(2,)]
    assert removed[0].at_s == 2.0
    stored = [(each.blocks, each.job.id) for each in told if isinstance(each, BlocksStored)]
    assert stored == [((1, 2), 1), ((3, 4), 2), ((5,), 3)]
    assert sorted(model.cached_blocks) == [1, 3, 4, 5]


def test_a_prompt_waits_until_there_is_room_for_all_of_it():
    model = engine(kv=1600)
    model.submit(Job(1, 900, 20), 0.0)
    model.submit(Job(2, 800, 1), 0.0)
    model.submit(Job(3, 100, 1), 0.0)
    model.advance(0.5 * model.next_event_s())
    assert (model.running, model.waiting) == (1, 2)  # the third would fit, but comes after
    assert model.kv_usage_ratio == pytest.approx(57 / 100)
    assert list(ends(model)) == [1, 2, 3]


def test_the_latest_is_preempted_when_decoding_runs_out_of_kv_and_prefilled_again():
    model = engine(kv=320)
    model.submit(Job(1, 150, 100), 0.0)
    model.submit(Job(2, 150, 100), 0.0)
    told = model.advance(inf)
    assert model.preemptions == 1
    assert [type(each) for each in told].count(FirstToken) == 2
    end = {each.job.id: each.at_s for each in told if isinstance(each, Finished)}
    assert end[1] < end[2]
    again = model.prefilled_tokens - 300  # its prompt and what it had decoded: 160 tokens of KV
    assert again == 150 + 11
    assert model.query_tokens == 300


def test_what_it_had_is_still_cached_when_a_preempted_one_comes_back():
    model = engine(kv=640)
    model.submit(Job(1, 310, 100), 0.0)
    model.submit(Job(2, 310, 100, (7, 8), 144), 0.0)
    model.advance(inf)
    assert model.preemptions == 1
    assert 620 < model.prefilled_tokens < 620 + 310 + 50


def test_a_cancelled_job_is_heard_of_no_more_and_gives_back_its_blocks():
    model = engine()
    running, waiting = Job(1, 100, 1000), Job(2, 100, 10)
    model.submit(running, 0.0)
    model.advance(0.5)
    model.cancel(running, 0.5001)
    assert model.decoded_tokens(running, 0.5001) == 0
    model.submit(waiting, 0.5002)
    assert (model.running, model.waiting) == (1, 1)  # until the step in work ends
    model.cancel(waiting, 0.5003)
    assert model.waiting == 0
    assert model.advance(inf) == []
    assert model.kv_usage_ratio == 0
    assert model.next_event_s() == inf
    model.cancel(running, inf)  # once more: nothing to do


def test_a_cancelled_head_of_the_queue_lets_the_next_one_in():
    model = engine(kv=1600)
    first, big, small = Job(1, 800, 600), Job(2, 1000, 1), Job(3, 100, 1)
    for job in (first, big, small):
        model.submit(job, 0.0)
    model.advance(1.0)
    model.cancel(big, 1.0)
    assert list(ends(model)) == [3, 1]


def test_decoded_tokens_and_the_ends_of_steps_agree():
    model = engine()
    job = Job(1, 100, 30)
    model.submit(job, 0.0)
    now = first_tokens(model, model.next_event_s())[1].at_s
    for number in range(1, 30):
        assert model.decoded_tokens(job, now) == number
        step_end_s = model.next_step_s(now)
        assert step_end_s - now == pytest.approx(LATENCY.step_s(1, 99 + number))
        assert model.decoded_tokens(job, step_end_s - 1e-6) == number
        now = step_end_s
    assert now == model.next_event_s()
    assert ends(model) == {1: now}
    assert model.next_step_s(now) == inf


def test_gauges_follow_a_jump_without_disturbing_it():
    model, other = engine(), engine()
    for each in (model, other):
        each.submit(Job(1, 160, 500), 0.0)
    usage = []
    for tick in range(1, 40):
        model.advance(tick * 0.1)
        usage.append(model.kv_usage_ratio)
    assert usage == sorted(usage)
    assert len(set(usage)) > 10
    assert ends(model) == ends(other)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Job(1, 15_000, 1001), "15000 prompt.*1001 output.*never fit.*16000 tokens"),
        (Job(0, 10, 1), "job 0 is here already"),
        (Job(1, 100, 1, (1,), 40), "block_tokens is 40.*multiple.*16"),
    ],
)
def test_what_cannot_be_served_is_refused_when_it_is_submitted(job: Job, said: str):
    model = engine()
    model.submit(Job(0, 10, 10), 0.0)
    with pytest.raises(ValueError, match=said):
        model.submit(job, 0.0)
    assert list(ends(model)) == [0]


@pytest.mark.parametrize("numbers", [(0, 1, ()), (1, 0, ()), (600, 1, (1, 2))])
def test_a_job_has_tokens_and_no_more_blocks_than_they_fill(
    numbers: tuple[int, int, tuple[int, ...]],
):
    prompt, output, blocks = numbers
    with pytest.raises(ValueError, match="job 7: "):
        Job(7, prompt, output, blocks)


def test_time_does_not_go_back():
    model = engine()
    model.advance(2.0)
    with pytest.raises(ValueError, match=r"back from 2\.0 to 1\.0"):
        model.submit(Job(1, 10, 1), 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kv_capacity_tokens": 15}, "kv_capacity_tokens is 15"),
        ({"max_sequences": 0}, "max_sequences is 0"),
        ({"max_batched_tokens": 100}, "max_batched_tokens is 100"),
        ({"latency": LatencyProfile("p", "x", 0.0, 1e-4)}, "would take no time"),
    ],
)
def test_a_spec_that_makes_no_engine_is_refused(change: dict[str, object], said: str):
    numbers: dict[str, object] = {"latency": LATENCY, "kv_capacity_tokens": 1000}
    with pytest.raises(ValueError, match=said):
        EngineSpec(**{**numbers, **change})  # pyright: ignore[reportArgumentType] - by name
