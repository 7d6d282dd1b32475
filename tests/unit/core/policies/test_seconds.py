"""What the policy `seconds` counts as harm to others, and the wait for room in a KV cache."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.candidates import RANK, Candidate
from headrace.core.crowding import LATE_HARMLESS
from headrace.core.events import Dispatch
from headrace.core.latency import LatencyProfile
from headrace.core.model import Replica
from headrace.core.policies.seconds import AGAIN
from headrace.core.prefix_index import PrefixIndex
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import PROFILE, Driver, chain
from tests.unit.core.policies.bench import Bench, State, scraped

LONG_PROMPT = 8192


def harm(
    decoding: int, *, mean: float, prompt_tokens: int = LONG_PROMPT, backlog: int = 0
) -> float:
    """What others pay, in seconds, where so many answers run and are `mean` tokens long."""
    bench = Bench("seconds", PROFILE, r00=State(backlog=backlog))
    replica: Replica = bench.replicas[0]
    replica.pool.output_tokens_mean = mean
    replica.decoding = decoding
    replica.in_flight = decoding + replica.prefilling
    return bench.price(prompt_tokens)[0].others_s


def test_a_prefill_is_worse_for_short_answers_than_for_long_ones():
    idle = harm(0, mean=15)
    assert harm(4, mean=15) - idle > 10 * (harm(4, mean=500) - idle)


def test_a_short_prompt_hardly_interrupts():
    harmed = harm(4, mean=15) - harm(0, mean=15)
    assert harm(4, mean=15, prompt_tokens=500) - harm(0, mean=15, prompt_tokens=500) < harmed / 20


def test_answers_that_have_not_begun_are_harmed_as_well():
    alone = harm(0, mean=15)
    assert harm(0, mean=15, backlog=100) > alone + 0.1


def missed(*, late_decoding: int = 0, late_prefilling: int = 0) -> float:
    """Targets that a long prompt has missed where 20 answers run and one prompt waits."""
    bench = Bench("seconds", PROFILE, r00=State(backlog=1000))
    replica = bench.replicas[0]
    replica.decoding, replica.in_flight = 20, 21
    replica.late_decoding, replica.late_prefilling = late_decoding, late_prefilling
    return bench.price(LONG_PROMPT)[0].others_missed


def test_who_has_missed_his_ttft_target_has_less_to_lose():
    assert missed() > missed(late_decoding=10) > missed(late_decoding=20) > 0.0
    least = (1.0 - LATE_HARMLESS) * missed()
    assert missed(late_decoding=20, late_prefilling=1) == pytest.approx(least)


@pytest.mark.parametrize(
    ("first_token_after_s", "late"), [(1.9, (0, 0)), (2.1, (0, 1))], ids=["in time", "late"]
)
def test_whether_a_first_token_is_late_is_seen_when_it_comes(first_token_after_s, late):
    driver = Driver(PoolSpec("pool", "model", profile=PROFILE, policy="seconds"))
    driver.add("r00")
    replica = driver.replica("r00")
    sent = driver.dispatched(prompt_tokens=1000)
    assert replica.late_prefilling == 0
    driver.wait(first_token_after_s)
    driver.first_token(sent.attempt)
    assert (replica.late_prefilling, replica.late_decoding) == late
    driver.complete(sent.attempt)
    assert (replica.late_prefilling, replica.late_decoding) == (0, 0)


def test_a_prompt_that_takes_longer_than_its_target_is_late_from_the_start():
    driver = Driver(PoolSpec("pool", "model", profile=PROFILE, policy="seconds"))
    driver.add("r00")
    sent = driver.dispatched(prompt_tokens=200_000)
    assert driver.replica("r00").late_prefilling == 1
    driver.wait(1.5)  # faster than predicted
    driver.first_token(sent.attempt)
    assert (driver.replica("r00").late_prefilling, driver.replica("r00").late_decoding) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    decoding=st.integers(0, 200),
    mean=st.floats(0.0, 5000.0),
    tokens=st.integers(1, 100_000),
    backlog=st.integers(0, 100_000),
)
def test_no_company_makes_a_request_welcome(decoding, mean, tokens, backlog):
    """Harm is never negative, and one answer more never lessens it."""
    less = harm(decoding, mean=mean, prompt_tokens=tokens, backlog=backlog)
    more = harm(decoding + 1, mean=mean, prompt_tokens=tokens, backlog=backlog)
    assert 0.0 <= less <= more + 1e-9


def test_a_long_prefill_harms_those_who_come_meanwhile_more_than_short_ones_of_the_same_sum():
    """Who comes is known by how many answers run: with long ones fewer come in a second."""

    def meanwhile(prompt_tokens: int) -> float:
        return harm(4, mean=1e3, prompt_tokens=prompt_tokens) - harm(
            4, mean=1e6, prompt_tokens=prompt_tokens
        )

    assert meanwhile(16_000) > 10 * meanwhile(1600)


def test_steps_that_cost_nothing_are_no_division_by_zero():
    free = LatencyProfile("free", "a test", 0.0, 1e-4)
    assert harm(0, mean=15) >= 0.0
    bench = Bench("seconds", free, r00=State(in_flight=3))
    assert bench.price(1000)[0].others_s >= 0.0


def kv_wait(context: int, *, in_flight: int = 4, prompt_tokens: int = 30_000) -> float:
    """Seconds that a prompt waits for room in a KV cache of 100,000 tokens."""
    state = State(in_flight, context=context, report=scraped(kv_capacity_tokens=100_000.0))
    waits_s = Bench("seconds", PROFILE, r00=state).price(prompt_tokens)[0].slot_wait_s
    assert waits_s is not None
    return waits_s


def test_a_prompt_waits_for_room_in_the_kv_cache_and_longer_the_more_is_missing():
    assert kv_wait(70_000) == 0.0
    assert 0.0 < kv_wait(80_000) < kv_wait(95_000)


def test_what_does_not_fit_beside_nothing_waits_for_nobody():
    assert kv_wait(0, in_flight=0, prompt_tokens=200_000) == 0.0


def test_the_wait_is_the_time_until_enough_answers_have_ended():
    """A tenth of what is in use is too much: a tenth of the answers must end."""
    state = State(4, context=100_000, report=scraped(kv_capacity_tokens=100_000.0))
    bench = Bench("seconds", PROFILE, r00=state)
    row = bench.price(10_000)[0]
    assert row.tpot_s is not None
    answer_s = bench.replicas[0].pool.output_tokens_mean * row.tpot_s
    assert row.slot_wait_s == pytest.approx(answer_s / 10)


def test_a_context_that_many_share_takes_its_room_once():
    """Three requests with the same 49,000 tokens are in a cache that holds two such contexts."""
    pool = PoolSpec("pool", "model", profile=PROFILE, policy="seconds")
    driver = Driver(pool, settings=DispatcherSettings())
    driver.add("r00")
    driver.scrape("r00", kv_capacity_tokens=100_000.0)

    def sent(context: int) -> bool:
        blocks = tuple(range(context, context + 100))
        effects = driver.arrive(prompt_tokens=49_000, blocks=blocks)
        started = [effect for effect in effects if isinstance(effect, Dispatch)]
        for effect in started:
            driver.wait(3.0)
            driver.first_token(effect.attempt)
        return bool(started)

    assert sent(1000)
    assert sent(1000)
    assert sent(1000)
    assert sent(2000)
    assert not sent(3000)


def full_of(**prompts: str) -> tuple[Bench, PrefixIndex]:
    """Replicas that are idle and have cached one prompt of 64,000 tokens each."""
    bench = Bench("seconds", PROFILE, **{name: State() for name in prompts})
    index = PrefixIndex()
    for replica in bench.replicas:
        index.add_replica(replica.index, 1000)
        lease = index.lease(replica.index, chain(prompts[replica.name], blocks_each=1000))
        index.arrived(lease, 0.0)
        index.release(lease)
    return bench, index


def priced(bench: Bench, index: PrefixIndex, prompt_tokens: int) -> dict[str, Candidate]:
    """The candidates for a prompt that nobody has cached, the pick first."""
    ask = bench.ask(prompt_tokens)
    ask.index = index
    rows = sorted(bench.policy.price(ask, bench.replicas, 0.0), key=RANK)
    return {row.replica: row for row in rows}


def test_a_long_prompt_goes_where_the_fleet_loses_no_last_copy():
    bench, index = full_of(r00="alone", r01="twice", r02="twice")
    found = priced(bench, index, 20_000)
    assert list(found) == ["r01", "r02", "r00"]
    prefill_s = found["r00"].prefill_s
    assert prefill_s is not None
    lost_s = AGAIN * prefill_s
    # Whole blocks of four leave.
    assert found["r00"].cost - found["r01"].cost == pytest.approx(lost_s, rel=0.01)
    assert found["r00"].others_s - found["r01"].others_s == pytest.approx(lost_s, rel=0.01)
    # A short prompt is not worth the look.
    assert next(iter(priced(bench, index, 8000))) == "r00"


def test_where_last_copies_would_go_everywhere_the_rest_decides():
    bench, index = full_of(r00="one", r01="two")
    busy = bench.replicas[0]
    busy.backlog_tokens, busy.prefilling, busy.in_flight, busy.sequences = 5000, 1, 1, 1
    assert list(priced(bench, index, 20_000)) == ["r01", "r00"]


FAST_ENGINE = LatencyProfile("fast", "a test", 0.007, 2e-5, 0.0, 3e-5, 6e-8)
"""An empty batch takes 7 ms a step, and 100,000 tokens of context make it 6 ms longer."""


def pick(context: int, *, tpot_target_s: float, prompt_tokens: int = 2048) -> str:
    """Who gets a prompt half of which is cached at `r00`, where four answers attend to `context`
    tokens; `r01` is idle.
    """
    busy = State(4, context=context, hit=prompt_tokens // 128)
    bench = Bench("seconds", FAST_ENGINE, r00=busy, r01=State())
    ask = bench.ask(prompt_tokens)
    ask.tpot_target_s = tpot_target_s
    return min(bench.policy.price(ask, bench.replicas, 0.0), key=RANK).replica


def test_a_prefix_is_not_left_for_steps_that_are_fast_anyway():
    """10 ms in place of 7 of a target of 50: to prefill anew is 20 ms for who comes and others."""
    assert pick(50_000, tpot_target_s=0.05) == "r00"
    assert pick(150_000, tpot_target_s=0.05) == "r01"


def test_what_is_fast_goes_by_the_target():
    assert pick(50_000, tpot_target_s=0.02) == "r01"


def test_a_lax_target_does_not_keep_all_on_one_replica():
    assert pick(50_000, tpot_target_s=1.0, prompt_tokens=4096) == "r00"
    assert pick(250_000, tpot_target_s=1.0, prompt_tokens=4096) == "r01"
