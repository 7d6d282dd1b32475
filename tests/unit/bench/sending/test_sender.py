"""What is sent, when, and what is kept of the answers; against an emulated engine."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice, pairwise

import pytest

from headrace.bench.record import UNFINISHED, Record, from_json_line, to_json_line
from headrace.bench.sending import sender as sender_module
from headrace.bench.sending.exchange import Exchange
from headrace.bench.sending.sender import Sender
from headrace.edges.http.ports import AnswerHead
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Load, PlannedRequest, SharedPrefix
from tests.scripted import Peer, Received, ScriptedEngine, chat_chunk, stream_words, usage_chunk
from tests.unit.bench.runs import load_of, play, target_at
from tests.waiting import until

TTFT_S, ITL_S = 0.02, 0.005


@pytest.fixture
async def engine() -> AsyncIterator[EmulatedEngine]:
    settings = EngineSettings(model="m")
    timing = ScriptedTiming(Script(TTFT_S, ITL_S), kv_capacity_tokens=1_000_000)
    emulated = EmulatedEngine(settings, timing)
    await emulated.start("127.0.0.1", 0)
    yield emulated
    await emulated.close()


def url_of(engine: EmulatedEngine) -> str:
    return f"http://127.0.0.1:{engine.port}"


async def test_a_stream_is_measured_by_the_token(engine: EmulatedEngine):
    records = await play(url_of(engine), load_of(20, lengths="64/8"))
    assert [record.index for record in records] == list(range(20))
    for record in records:
        assert (record.error, record.status, record.tokens_exact) == ("", 200, True)
        # 16 bytes of a role and two quotes are four tokens, in the emulated engine.
        assert (record.input_tokens, record.output_tokens, record.chunks) == (68, 8, 8)
        assert record.intended_s == pytest.approx((record.index + 1) / 200)
        assert record.intended_s <= record.sent_s < record.ended_s
        ttft_s, tpot_s = record.ttft_s, record.tpot_s
        assert ttft_s is not None
        assert tpot_s is not None
        assert ttft_s >= TTFT_S
        assert sum(record.itl_s) == pytest.approx(7 * tpot_s, rel=1e-3)
        assert len(record.itl_s) == 7
        assert from_json_line(to_json_line(record)).index == record.index


async def test_an_open_loop_does_not_wait():
    arrived = 0
    all_there = asyncio.Event()

    async def script(_: Received, peer: Peer) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 40:
            all_there.set()
        await all_there.wait()  # who waits for an answer before the next request, waits for ever
        await stream_words(peer, 2)

    async with ScriptedEngine(script) as scripted:
        records = await play(scripted.url, load_of(40))
    assert [record.error for record in records] == [""] * 40


async def test_users_wait_for_their_answers(engine: EmulatedEngine):
    load = Load.closed(4, parse_lengths("16/4"), seed=1, requests=24)
    records = await play(url_of(engine), load)
    assert len(records) == 24
    marks = sorted(
        [(record.intended_s, 1) for record in records]
        + [(record.ended_s, -1) for record in records]
    )
    running = peak = 0
    for _, change in marks:
        running += change
        peak = max(peak, running)
    assert peak == 4
    # Who ended sends the next one at that very moment.
    ends = {record.ended_s for record in records}
    assert all(record.intended_s in ends for record in records[4:])


async def test_users_who_converse_say_more_when_they_have_their_answer(engine: EmulatedEngine):
    load = Load.closed(3, parse_lengths("40/4"), seed=1, requests=24, turns=4)
    records = await play(url_of(engine), load)
    assert [record.index for record in records] == list(range(24))
    assert {record.error for record in records} == {""}
    for user in range(3):
        own = [record for record in records if record.index % 3 == user]
        for before, after in pairwise(own):
            assert after.intended_s == before.ended_s
        # The emulated engine counts 4 tokens more: what it takes for a template.
        assert [record.input_tokens for record in own] == 2 * [44, 88, 132, 176]


async def test_more_users_than_are_written_ahead_all_come(engine: EmulatedEngine):
    load = Load.closed(700, parse_lengths("16/2"), seed=1, requests=1400, think_s=0.3)
    records = await play(url_of(engine), load)
    assert len(records) == 1400
    assert {record.error for record in records} == {""}
    # All of them think at once at first, and none is forgotten.
    for record, planned in zip(records, islice(load.stream(), 700), strict=False):
        assert record.intended_s == pytest.approx(planned.at_s)


async def test_a_fault_of_our_own_ends_the_run(engine: EmulatedEngine):
    async def fail(sender: Sender) -> None:
        sender.fail(RuntimeError("ours"))

    with pytest.raises(RuntimeError, match="ours"):
        await play(url_of(engine), load_of(100, rate=10.0), fail)


async def test_a_fault_at_the_end_of_one_answer_keeps_none_of_the_others(
    engine: EmulatedEngine, monkeypatch: pytest.MonkeyPatch
):
    end_stream, ended = Exchange._end_stream, list[int]()

    def failing(self: Exchange, now: float) -> None:
        ended.append(self.record.index)
        if self.record.index == 1:
            raise RuntimeError("ours")
        end_stream(self, now)

    monkeypatch.setattr(Exchange, "_end_stream", failing)
    sender = Sender(target_at(url_of(engine)), load_of(4), worker=0, workers=1)
    exchanges = [ready.exchange for ready in sender._ready]
    sender._running.update(dict.fromkeys(exchanges))
    for exchange in exchanges:
        exchange.answer_head(AnswerHead(200, [(b"content-type", b"text/event-stream")]))
        exchange.answer_complete(framed=True)
    assert ended == [0, 1, 2, 3]
    assert [record.index for record in sender.records] == [0, 2, 3]
    with pytest.raises(RuntimeError, match="ours"):
        await sender.run(time.monotonic())


async def test_users_come_back_after_an_error_but_do_not_spin():
    async with ScriptedEngine(lambda _, peer: stream_words(peer, 0)) as scripted:
        load = Load.closed(2, parse_lengths("16/2"), seed=1, duration_s=1.0)
        records = await play(scripted.url, load)
    assert 2 < len(records) <= 20
    assert {record.error for record in records} == {"no_tokens"}


async def test_a_rate_that_cannot_be_held_is_told_and_answers_are_read_all_the_same(
    engine: EmulatedEngine,
):
    records = await play(url_of(engine), load_of(1500, rate=1e6, lengths="16/2"))
    assert {record.error for record in records} == {""}
    first_answer_s = min(record.ended_s for record in records)
    assert first_answer_s < max(record.sent_s for record in records)
    assert max(record.lag_s for record in records) > 0.01


async def test_users_stop_when_their_time_is_over(engine: EmulatedEngine):
    load = Load.closed(2, parse_lengths("16/2"), seed=1, duration_s=0.2, think_s=0.01)
    records = await play(url_of(engine), load)
    assert records
    assert all(record.intended_s < 0.2 for record in records)


async def test_workers_share_a_load_without_gaps(engine: EmulatedEngine):
    load = load_of(30)
    loop_records: list[Record] = []
    for worker in range(3):
        sender = Sender(target_at(url_of(engine)), load, worker=worker, workers=3)
        await sender.run(time.monotonic())
        loop_records += sender.records
    assert sorted(record.index for record in loop_records) == list(range(30))
    assert Counter(record.worker for record in loop_records) == {0: 10, 1: 10, 2: 10}


async def test_connections_are_used_again():
    async with ScriptedEngine(lambda _, peer: stream_words(peer, 2)) as scripted:
        load = Load.closed(1, parse_lengths("16/2"), seed=1, requests=20)
        records = await play(scripted.url, load)
        assert scripted.connections == 1
    assert [record.error for record in records] == [""] * 20


async def test_who_leaves_hangs_up_and_is_no_error():
    async with ScriptedEngine(lambda _, peer: stream_words(peer, 50, pause_s=0.01)) as scripted:
        records = await play(scripted.url, load_of(10, leave_share=1.0, lengths="16/5"))
        await until(lambda: scripted.clients_gone >= 10)
    assert all(record.left and record.ok and 1 <= record.chunks <= 5 for record in records)
    assert all(record.tpot_s is None for record in records)


async def test_the_role_chunk_is_no_token_and_reasoning_is():
    async def script(_: Received, peer: Peer) -> None:
        await peer.start_stream()
        await peer.event(chat_chunk(None))
        await asyncio.sleep(0.1)
        thought = chat_chunk(None)
        thought["choices"] = [{"index": 0, "delta": {"reasoning_content": "hm"}}]
        await peer.event(thought)
        await peer.event(chat_chunk(""))
        await peer.event(chat_chunk("a"))
        await peer.event(usage_chunk(7, 2))
        await peer.end_stream()

    async with ScriptedEngine(script) as scripted:
        (record,) = await play(scripted.url, load_of(1))
    assert record.ttft_s is not None
    assert record.ttft_s >= 0.1
    assert (record.chunks, record.output_tokens, len(record.itl_s)) == (2, 2, 1)


async def test_chunks_of_several_tokens_are_scaled_by_usage():
    async def script(_: Received, peer: Peer) -> None:
        await peer.start_stream()
        for word in ("a b", "c d", "e f"):
            await peer.event(chat_chunk(word))
            await asyncio.sleep(0.02)
        await peer.event(usage_chunk(7, 6))
        await peer.end_stream()

    async with ScriptedEngine(script) as scripted:
        (record,) = await play(scripted.url, load_of(1))
    assert (record.chunks, record.output_tokens, len(record.itl_s)) == (3, 6, 2)
    tpot_s = record.tpot_s
    assert tpot_s is not None
    assert sum(record.itl_s) / 2 == pytest.approx(tpot_s, rel=1e-3)


async def test_lengths_are_held_against_the_plan():
    async def ends_early(_: Received, peer: Peer) -> None:
        await stream_words(peer, 3, input_tokens=20)

    async with ScriptedEngine(ends_early) as scripted:
        sender = Sender(target_at(scripted.url), load_of(4, lengths="16/12"), worker=0, workers=1)
        await sender.run(time.monotonic())
    assert sender.lengths.output_share == 3 / 12
    assert sender.lengths.input_share == 20 / 16


async def test_without_usage_chunks_are_counted_and_the_plan_stands():
    async with ScriptedEngine(lambda _, peer: stream_words(peer, 5, usage=False)) as scripted:
        (record,) = await play(scripted.url, load_of(1, lengths="16/5"))
    assert (record.error, record.tokens_exact) == ("", False)
    assert (record.input_tokens, record.output_tokens) == (16, 5)
    assert record.cached_tokens is None


async def test_what_the_answer_tells_is_kept():
    async def script(_: Received, peer: Peer) -> None:
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"x-headrace-replica: replica-3\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await peer.event(chat_chunk("a"))
        usage = usage_chunk(70, 1)
        usage["usage"] |= {"prompt_tokens_details": {"cached_tokens": 0}}
        await peer.event(usage)
        await peer.end_stream()

    async with ScriptedEngine(script) as scripted:
        (record,) = await play(scripted.url, load_of(1))
    assert (record.replica, record.input_tokens, record.cached_tokens) == ("replica-3", 70, 0)


async def test_requests_say_what_they_are_to_say():
    async with ScriptedEngine(lambda _, peer: stream_words(peer, 1)) as scripted:
        load = load_of(2, lengths="16/4", tiers=(("gold", 1.0),), shared=SharedPrefix(32))
        await play(scripted.url, load, extra_body='{"temperature": 0}', api_key="k")
        first, second = scripted.received
    assert first.target == "/v1/chat/completions"
    assert first.headers["authorization"] == "Bearer k"
    assert first.headers["x-headrace-tier"] == "gold"
    body = first.json
    system, user = body.pop("messages")
    assert (system["role"], len(system["content"].split())) == ("system", 32)
    assert (user["role"], len(user["content"].split())) == ("user", 16)
    assert body == {
        "model": "m",
        "max_tokens": 4,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    assert second.json["messages"][0] == system
    assert second.json["messages"][1] != user


async def test_completions_and_whole_answers(engine: EmulatedEngine):
    records = await play(
        url_of(engine), load_of(5, lengths="64/8"), endpoint="completions", stream=False
    )
    assert len(records) == 5
    for record in records:
        assert (record.error, record.output_tokens, record.tokens_exact) == ("", 8, True)
        assert (record.first_token_s, record.chunks) == (None, 0)
        assert record.e2e_s >= TTFT_S + 7 * ITL_S


async def test_prompts_longer_than_what_is_written_ahead(engine: EmulatedEngine):
    planned = [PlannedRequest(number / 500, 16, 1) for number in range(600)]
    records = await play(url_of(engine), Load.of_requests(planned, words="many"))
    assert len(records) == 600
    assert {record.error for record in records} == {""}


async def test_a_stopped_run_keeps_what_there_is(engine: EmulatedEngine):
    async def stop(sender: Sender) -> None:
        while sender.progress().done < 3:
            await asyncio.sleep(0.01)
        sender.stop()

    records = await play(url_of(engine), load_of(100_000, rate=100.0, lengths="16/16"), stop)
    kinds = Counter(record.error for record in records)
    assert kinds[""] > 0
    assert kinds["unfinished"] > 0
    assert kinds.keys() == {"", "unfinished"}


async def test_what_has_come_but_was_not_looked_at_is_no_part_of_what_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sender_module, "SWEEP_S", 1e9)
    begun = answered = 0

    async def script(_: Received, peer: Peer) -> None:
        nonlocal begun, answered
        begun += 1
        if begun <= 3:
            await peer.start_stream()
            await asyncio.sleep(1e9)
        await stream_words(peer, 4)
        answered += 1

    async def stop(sender: Sender) -> None:
        sender.log.begin()
        while answered < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert sender.log.held
        assert not sender.records
        sender.stop()

    async with ScriptedEngine(script) as scripted:
        records = await play(scripted.url, load_of(6), stop)
    assert Counter(record.error for record in records) == {"": 3, UNFINISHED: 3}
