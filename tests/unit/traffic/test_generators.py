"""Generated traffic: rates, reuse, prefixes that extend each other, the same under every seed."""

from collections import Counter, defaultdict
from itertools import islice, pairwise, takewhile
from statistics import mean, pvariance

import pytest

from headrace.traffic.agentic import Agentic, agentic
from headrace.traffic.code_completion import CodeCompletion, code_completion
from headrace.traffic.generated import KINDS, taken
from headrace.traffic.lengths import FixedTokens, GeometricCounts
from headrace.traffic.multi_turn import MultiTurn, multi_turn
from headrace.traffic.shape import summarise
from headrace.traffic.shared_system_prompts import SharedSystemPrompts, shared_system_prompts
from headrace.traffic.single_shots import SingleShots, single_shots
from headrace.traffic.trace import Trace, TraceRequest
from tests.generated_traffic import generate
from tests.hash_seeds import printed

EVERY = sorted(KINDS)


def by_session(trace: Trace) -> dict[str, list[TraceRequest]]:
    sessions: dict[str, list[TraceRequest]] = defaultdict(list)
    for request in trace.requests:
        sessions[request.session].append(request)
    return sessions


def shared_blocks(first: TraceRequest, second: TraceRequest) -> int:
    pairs = zip(first.blocks, second.blocks, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_is_a_trace(kind: str):
    trace = generate(kind, requests=3000, requests_per_s=20.0, seed=5)
    assert len(trace.requests) == 3000
    assert trace.requests[0].arrival_s >= 0
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(trace.requests))
    for request in trace.requests:
        assert request.input_tokens >= 1
        assert request.output_tokens >= 1
        assert len(request.blocks) == request.input_tokens // trace.block_tokens
        assert all(0 <= block < 1 << 63 for block in request.blocks)


@pytest.mark.parametrize("kind", EVERY)
def test_the_rate_is_as_asked_from_the_start(kind: str):
    traces = [generate(kind, requests=3000, requests_per_s=25.0, seed=seed) for seed in range(4)]
    # Bursts of completions make their rate vary from seed to seed.
    within = 0.25 if kind == "code_completion" else 0.1
    rates = [3000 / trace.requests[-1].arrival_s for trace in traces]
    assert mean(rates) == pytest.approx(25.0, rel=within)
    early = sum(request.arrival_s < 50 for trace in traces for request in trace.requests)
    assert early == pytest.approx(4 * 50 * 25, rel=within)


@pytest.mark.parametrize("kind", EVERY)
def test_a_seed_gives_one_trace(kind: str):
    first, again, other = (
        generate(kind, requests=300, requests_per_s=9.0, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.requests != other.requests
    ids = {block for request in first.requests for block in request.blocks}
    assert not ids & {block for request in other.requests for block in request.blocks}


def test_the_hash_seed_changes_nothing():
    code = (
        "from tests.generated_traffic import KINDS, generate\n"
        "print([generate(k, requests=50, requests_per_s=3.0, seed=4).requests for k in KINDS])"
    )
    outputs = {printed("-c", code, hash_seed=seed) for seed in ("0", "77")}
    assert len(outputs) == 1


def test_ids_of_different_kinds_and_seeds_never_meet():
    owners: dict[int, tuple[str, int]] = {}
    for kind in EVERY:
        for seed in (0, 1):
            trace = generate(kind, requests=200, requests_per_s=5.0, seed=seed)
            for request in trace.requests:
                for block in request.blocks:
                    assert owners.setdefault(block, (kind, seed)) == (kind, seed)


@pytest.mark.parametrize("kind", EVERY)
def test_an_id_stands_for_a_whole_prefix(kind: str):
    before: dict[int, int] = {}
    for request in generate(kind, requests=1500, requests_per_s=9.0, seed=3).requests:
        for previous, block in pairwise((-1, *request.blocks)):
            assert before.setdefault(block, previous) == previous


def test_a_turn_contains_all_turns_before():
    shape = MultiTurn(answer_tokens=FixedTokens(100), most_tokens=1 << 30)
    trace = taken("m", 512, multi_turn(shape, requests_per_s=30, seed=2), 4000)
    followed = 0
    for turns in by_session(trace).values():
        for earlier, later in pairwise(turns):
            assert later.input_tokens > earlier.input_tokens + 100
            assert later.blocks[: len(earlier.blocks)] == earlier.blocks
            followed += 1
    assert followed > 1000


@pytest.mark.parametrize("share", [0.5, 0.64, 0.8])
def test_the_reusable_share_is_as_asked(share: float):
    shape = MultiTurn(reusable_share=share)
    seen: set[int] = set()
    repeated = total = 0
    for seed in range(3):
        stream = multi_turn(shape, requests_per_s=10, seed=seed)
        for number, request in enumerate(islice(stream, 10_000)):
            if number > 5000:  # prompts before that go on from what came before the trace
                total += -(-request.input_tokens // 512)
                repeated += sum(block in seen for block in request.blocks)
            seen.update(request.blocks)
    assert repeated / total == pytest.approx(share, abs=0.02)


def test_a_share_out_of_reach_is_an_error():
    with pytest.raises(ValueError, match=r"reusable_share 0\.05 is not from 0\.\d+ to 0\.9"):
        next(multi_turn(MultiTurn(reusable_share=0.05), requests_per_s=1, seed=1))


def test_conversations_of_an_app_share_its_system_prompt_and_nothing_else():
    shape = MultiTurn(apps=3, system_tokens=FixedTokens(2000))
    trace = taken("m", 512, multi_turn(shape, requests_per_s=30, seed=2), 2000)
    firsts = [turns[0] for turns in by_session(trace).values() if len(turns[0].blocks) > 4]
    starts = Counter(request.blocks[:3] for request in firsts)
    assert len(starts) == 3
    assert all(shared_blocks(a, b) in {0, 3} for a, b in pairwise(firsts))


def test_a_full_context_drops_turns_and_keeps_the_system_prompt():
    shape = MultiTurn(
        apps=1, system_tokens=FixedTokens(1024), message_tokens=FixedTokens(900), most_tokens=4000
    )
    trace = taken("m", 512, multi_turn(shape, requests_per_s=30, seed=2), 3000)
    assert max(request.input_tokens for request in trace.requests) <= 4000
    dropped = [
        shared_blocks(earlier, later)
        for turns in by_session(trace).values()
        for earlier, later in pairwise(turns)
        if later.input_tokens < earlier.input_tokens
    ]
    assert dropped
    assert set(dropped) == {2}


def test_agents_share_very_long_starts():
    trace = generate("agentic", requests=4000, requests_per_s=4.0, seed=1)
    summary = summarise(trace)
    assert summary.mean_input_tokens > 100_000
    assert 150 < summary.mean_output_tokens < 300
    assert summary.repeat_share > 0.93
    heads = Counter(request.blocks[:170] for request in trace.requests)
    assert 20 <= len(heads) <= Agentic().projects  # 170 · 512 = 87k tokens
    sessions = by_session(trace).values()
    pauses = [b.arrival_s - a.arrival_s for turns in sessions for a, b in pairwise(turns)]
    assert sorted(pauses)[len(pauses) // 2] < 15
    kept = [b.blocks[: len(a.blocks)] == a.blocks for turns in sessions for a, b in pairwise(turns)]
    assert mean(kept) > 0.95  # the others were compacted


def test_a_full_agent_is_compacted_to_its_project():
    shape = Agentic(
        projects=1,
        context_tokens=FixedTokens(1024),
        most_tokens=6000,
        tool_tokens=FixedTokens(700),
        turns=GeometricCounts(40),
    )
    trace = taken("a", 512, agentic(shape, requests_per_s=5, seed=1), 2000)
    assert max(request.input_tokens for request in trace.requests) <= 6000
    back = [
        shared_blocks(a, b)
        for turns in by_session(trace).values()
        for a, b in pairwise(turns)
        if b.input_tokens < a.input_tokens
    ]
    assert back
    assert set(back) == {2}


def test_completions_are_short_and_repeat_but_for_their_end():
    trace = generate("code_completion", requests=6000, requests_per_s=10.0, seed=1)
    summary = summarise(trace)
    assert 2000 < summary.mean_input_tokens < 6000
    assert max(request.input_tokens for request in trace.requests) <= 8000
    assert summary.mean_output_tokens < 50
    assert summary.repeat_share > 0.75
    lost = [
        len(a.blocks) - shared_blocks(a, b)
        for turns in by_session(trace).values()
        for a, b in pairwise(turns)
    ]
    assert sorted(lost)[len(lost) // 2] in {0, 1, 2}
    assert mean(blocks == 0 for blocks in lost) < 0.7


def test_completions_come_in_bursts():
    counts = {
        kind: Counter(
            int(request.arrival_s / 10)
            for request in generate(kind, requests=12_000, requests_per_s=10.0, seed=1).requests
        )
        for kind in ("code_completion", "single_shots")
    }
    dispersion = {
        kind: pvariance([found[window] for window in range(100)])
        / mean(found[window] for window in range(100))
        for kind, found in counts.items()
    }
    assert dispersion["single_shots"] < 2  # a Poisson process has 1
    assert dispersion["code_completion"] > 10


def test_developers_work_on_their_projects():
    shape = CodeCompletion(developers=4, projects=2, shared_tokens=FixedTokens(1280))
    trace = taken("c", 128, code_completion(shape, requests_per_s=5, seed=1), 800)
    assert len({request.blocks[:10] for request in trace.requests}) == 2


def test_single_shots_share_nothing():
    trace = generate("single_shots", requests=3000, requests_per_s=10.0, seed=1)
    ids = [block for request in trace.requests for block in request.blocks]
    assert len(ids) == len(set(ids)) > 5000


def test_single_shots_in_bursts():
    trace = taken("s", 512, single_shots(SingleShots(cv=3.0), requests_per_s=10, seed=1), 20_000)
    gaps = [b.arrival_s - a.arrival_s for a, b in pairwise(trace.requests)]
    assert pvariance(gaps) ** 0.5 / mean(gaps) == pytest.approx(3.0, abs=0.3)


def test_questions_stand_behind_a_few_prompts():
    shape = SharedSystemPrompts(
        prompts=4, system_tokens=FixedTokens(5120), question_tokens=FixedTokens(600)
    )
    stream = shared_system_prompts(shape, requests_per_s=10, seed=1)
    trace = taken("q", 512, stream, 2000)
    popular = Counter(request.blocks[:10] for request in trace.requests).most_common()
    assert len(popular) == 4
    assert popular[0][1] == pytest.approx(2000 * 12 / 25, rel=0.1)  # Zipf: 1, 1/2, 1/3, 1/4
    assert len({request.blocks[10:] for request in trace.requests}) == 2000


def test_streams_are_endless_and_hold_only_what_is_open():
    stream = multi_turn(MultiTurn(), requests_per_s=50, seed=1)
    assert len(list(islice(stream, 20_000))) == 20_000
    assert next(stream).arrival_s > 300


def test_what_is_not_known_is_told_what_is():
    with pytest.raises(ValueError, match="unknown traffic 'chat'; known are agentic, code_compl"):
        generate("chat", requests=1, requests_per_s=1.0, seed=1)
    with pytest.raises(ValueError, match="requests 0 is not above 0"):
        generate("agentic", requests=0, requests_per_s=1.0, seed=1)
    for kind in EVERY:
        with pytest.raises(ValueError, match="is not above 0"):
            generate(kind, requests=1, requests_per_s=-1.0, seed=1)
