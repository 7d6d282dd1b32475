"""Engines that fail, clients that leave, and what the other side notices."""

import asyncio

import httpx
import msgspec
import pytest

from headrace.core.events import ReplicaGone
from headrace.core.model import Endpoint, Outcome, ReplicaState
from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.upstream_connection import UpstreamConnection
from headrace.gateway.settings import Limits, Timeouts
from tests.gateway.conftest import run_gateway
from tests.property.test_upstream_chunks import Sink
from tests.scripted import chat_chunk, stream_words, usage_chunk
from tests.waiting import until


async def good(received, peer):
    await stream_words(peer, 2)


async def reset_at_once(received, peer):
    peer.reset()


async def reset_after_head(received, peer):
    await peer.start_stream()
    peer.reset()


async def garbage(received, peer):
    await peer.send(b"this is not HTTP\r\n\r\n")


async def busy(received, peer):
    await peer.json({"error": {"message": "busy", "code": 503}}, status=503)


async def close_in_head(received, peer):
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    peer.writer.close()


@pytest.mark.parametrize("bad", [reset_at_once, reset_after_head, garbage, busy, close_in_head])
async def test_a_failure_before_the_first_byte_is_retried_elsewhere(bad):
    async with run_gateway(bad, good) as rig:
        for _ in range(3):
            answer = await rig.chat(stream=True)
            assert answer.status_code == 200
            assert answer.headers["x-headrace-replica"] == "r1"
            assert answer.text.endswith("data: [DONE]\n\n")
        assert rig.engines[0].received


async def test_a_broken_stream_ends_with_an_error_event_and_closes():
    async def script(received, peer):
        await peer.start_stream()
        await peer.event(chat_chunk(None))
        await peer.event(chat_chunk("one"))
        await asyncio.sleep(0.05)
        peer.reset()

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        last = answer.text.strip().splitlines()[-1]
        assert last.startswith('data: {"error":')
        assert "[DONE]" not in answer.text
        assert '"one"' in answer.text


async def test_a_broken_messages_stream_speaks_its_own_dialect():
    async def script(received, peer):
        await peer.start_stream()
        await peer.chunk(b'event: message_start\ndata: {"type":"message_start"}\n\n')
        await asyncio.sleep(0.05)
        peer.reset()

    async with run_gateway(script) as rig:
        body = {"model": "m", "max_tokens": 4, "stream": True, "messages": []}
        answer = await rig.client.post("/v1/messages", json=body)
        assert answer.text.splitlines()[-3] == "event: error"
        assert '"type":"error"' in answer.text.splitlines()[-2]


async def test_a_body_cut_short_is_never_taken_for_whole():
    async def script(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n12345")
        await asyncio.sleep(0.05)
        peer.reset()

    async with run_gateway(script) as rig:
        with pytest.raises(httpx.HTTPError):
            await rig.chat()


async def test_an_error_of_every_replica_reaches_the_client_in_the_engines_words():
    async def no_images(received, peer):
        await peer.json({"error": {"message": "image input is not supported"}}, status=500)

    async with run_gateway(no_images, no_images, no_images) as rig:
        answer = await rig.chat()
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == "image input is not supported"
        assert sum(len(engine.received) for engine in rig.engines) == 2


async def test_a_redirection_of_a_call_is_a_failure_and_its_address_stays_here():
    async def elsewhere(received, peer):
        await peer.send(
            b"HTTP/1.1 307 X\r\nlocation: http://10.0.0.9:8000/\r\ncontent-length: 0\r\n\r\n"
        )

    async def good(received, peer):
        await stream_words(peer, 1)

    async with run_gateway(elsewhere, good) as rig:
        assert (await rig.chat(stream=True)).text.endswith("data: [DONE]\n\n")
    async with run_gateway(elsewhere) as rig:
        answer = await rig.chat()
        assert answer.status_code == 502
        assert "HTTP 307" in answer.json()["error"]["message"]
        assert "location" not in answer.headers
        assert next(iter(rig.telemetry.series)).input_tokens == 0
    async with run_gateway(elsewhere) as rig:
        # What is no call of a model passes: a file may well be elsewhere.
        assert (await rig.client.get("/v1/files/f/content")).status_code == 307


async def test_an_engines_error_without_a_word_gets_some():
    async def mute(received, peer):
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async with run_gateway(mute) as rig:
        answer = await rig.chat()
        assert answer.status_code == 400
        assert "HTTP 400" in answer.json()["error"]["message"]


async def test_a_replica_that_answers_500_to_everything_is_taken_out():
    async def dead(received, peer):
        await peer.json({"error": {"message": "CUDA error"}}, status=500)

    for policy in ("round_robin", "seconds"):
        async with run_gateway(dead, good, policy=policy) as rig:
            for _ in range(12):
                assert (await rig.chat(stream=True)).status_code == 200
            assert len(rig.engines[0].received) < 5


async def test_all_replicas_failing_gives_one_clear_error():
    async with run_gateway(reset_at_once, reset_at_once) as rig:
        answer = await rig.chat()
        assert answer.status_code == 502
        error = answer.json()["error"]
        assert error["code"] == "upstream_unavailable"
        assert error["type"] == "server_error"


async def test_refused_connections_eject_and_the_probe_brings_back():
    async with run_gateway(good, good) as rig:
        engine = rig.engines[0]
        await engine.__aexit__()
        for _ in range(6):
            assert (await rig.chat(stream=True)).status_code == 200
        assert rig.fleet.replicas["r0"].state is ReplicaState.EJECTED
        trouble = rig.telemetry.troubles.last("r0")
        assert trouble is not None
        assert trouble.reason.startswith("a request failed: cannot connect")
        assert rig.telemetry.troubles.last("r1") is None
        await engine.__aenter__()
        await until(lambda: rig.fleet.replicas["r0"].state is ReplicaState.READY)


async def test_a_probe_asks_for_the_health_of_who_lists_no_models():
    async with run_gateway(good, good, engine="openai") as rig:
        engine = rig.engines[0]
        plainly = engine._answer

        async def without_models(received, peer):
            if received.target == "/v1/models":
                await peer.json({"detail": "Not Found"}, 404)
            else:
                await plainly(received, peer)

        engine._answer = without_models
        await engine.__aexit__()
        for _ in range(6):
            assert (await rig.chat(stream=True)).status_code == 200
        assert rig.fleet.replicas["r0"].state is ReplicaState.EJECTED
        await engine.__aenter__()
        await until(lambda: rig.fleet.replicas["r0"].state is ReplicaState.READY)


async def test_a_client_that_leaves_aborts_the_engine_at_once():
    started = asyncio.Event()

    async def script(received, peer):
        await peer.start_stream()
        await peer.event(chat_chunk("x"))
        started.set()
        await peer.reader.read()  # returns when the gateway closes
        raise ConnectionError

    async with run_gateway(script) as rig:
        body = {"model": "m", "messages": [], "stream": True}
        async with rig.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for _ in answer.aiter_raw():
                break
            await started.wait()
        await until(lambda: rig.engines[0].clients_gone)
        assert rig.plane.in_flight == 0
        replica = rig.fleet.replicas["r0"]
        assert (replica.in_flight, replica.decoding, replica.context_tokens) == (0, 0, 0)


async def test_a_client_that_leaves_while_waiting_aborts_too():
    async def script(received, peer):
        await peer.reader.read()
        raise ConnectionError

    async with run_gateway(script) as rig:
        with pytest.raises(httpx.TimeoutException):
            await rig.client.post(
                "/v1/chat/completions", json={"model": "m", "messages": []}, timeout=0.2
            )
        await until(lambda: rig.engines[0].clients_gone)
        assert rig.plane.in_flight == 0


@pytest.mark.parametrize(
    ("timeouts", "status"),
    [
        (Timeouts(first_byte_s=0.3), 504),
        (Timeouts(total_s=0.3), 504),
    ],
)
async def test_silence_before_the_first_byte_times_out(timeouts, status):
    async def silent(received, peer):
        await peer.reader.read()
        raise ConnectionError

    async with run_gateway(silent, timeouts=timeouts) as rig:
        answer = await rig.chat()
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == "upstream_timeout"


async def test_silence_inside_a_stream_ends_it_with_an_error():
    async def stalls(received, peer):
        await peer.start_stream()
        await peer.event(chat_chunk("x"))
        await peer.reader.read()
        raise ConnectionError

    async with run_gateway(stalls, timeouts=Timeouts(between_bytes_s=0.3)) as rig:
        answer = await rig.chat(stream=True)
        assert "stalled" in answer.text
        assert "[DONE]" not in answer.text


async def test_a_slow_client_holds_the_engine_back_instead_of_growing_memory():
    produced = 0

    async def firehose(received, peer):
        nonlocal produced
        await peer.start_stream()
        for _ in range(2000):
            await peer.event(chat_chunk("x" * 50_000))
            produced += 50_000
        await peer.end_stream()

    async with run_gateway(firehose, limits=Limits(client_buffer_bytes=65536)) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port, limit=1024)
        body = b'{"model":"m","messages":[],"stream":true}'
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            % len(body)
            + body
        )
        seen = -1
        async with asyncio.timeout(30):
            while seen != produced or not produced:  # until nothing moves any more
                seen = produced
                await asyncio.sleep(0.5)
        # Sockets' own buffers hold some megabytes; the 100 MB of the answer must not be here.
        assert produced < 40_000_000
        writer.close()
        await until(lambda: not rig.plane.in_flight)
        del reader


async def test_too_many_requests_get_429_with_retry_after():
    release = asyncio.Event()

    async def waits(received, peer):
        await release.wait()
        await peer.json({"ok": True})

    async with run_gateway(waits, limits=Limits(max_in_flight=2)) as rig:
        running = [asyncio.create_task(rig.chat()) for _ in range(2)]
        await until(lambda: rig.plane.in_flight >= 2)
        refused = await rig.chat()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        release.set()
        assert [r.status_code for r in await asyncio.gather(*running)] == [200, 200]


def stream_head(chunk: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    return head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(chunk), chunk)


async def test_content_and_garbage_in_one_packet_leave_nobody_waiting():
    async def script(received, peer):
        content = b"data: " + msgspec.json.encode(chat_chunk("one")) + b"\n\n"
        await peer.send(stream_head(content) + b"ZZZ not a chunk\r\n")
        await peer.reader.read()

    async with run_gateway(script, good) as rig:
        for _ in range(2):
            answer = await rig.chat(stream=True)
            assert answer.text.endswith("[DONE]\n\n")
    async with run_gateway(script) as rig:
        assert (await rig.chat(stream=True)).status_code == 502


async def test_content_that_never_left_is_not_counted():
    async def script(received, peer):
        content = b"data: " + msgspec.json.encode(chat_chunk("one")) + b"\n\n"
        await peer.send(stream_head(content) + b"ZZZ not a chunk\r\n")
        await peer.reader.read()

    async with run_gateway(script, good) as rig:
        while not rig.engines[0].received:
            assert (await rig.chat(stream=True)).headers["x-headrace-replica"] == "r1"
        counted = {each.key.replica: each for each in rig.telemetry.series}
        assert counted["r0"].retries == {Outcome.UNAVAILABLE: 1}
        assert counted["r0"].output_tokens.value == counted["r0"].input_tokens == 0
        assert counted["r0"].aborted_output_tokens == 0
        assert counted["r0"].ttft.count == counted["r0"].ttft.total == 0
        assert counted["r0"].ttft_recent.quantile(0.5, rig.telemetry.clock()) is None
        assert counted["r1"].ttft.count == counted["r1"].requests[Endpoint.CHAT, Outcome.COMPLETED]


async def test_content_that_left_with_the_engines_error_in_one_packet_is_counted():
    async def script(received, peer):
        content = b"data: " + msgspec.json.encode(chat_chunk("one")) + b"\n\n"
        error = b'data: {"error":{"message":"out of memory","code":500}}\n\n'
        await peer.send(stream_head(content + error) + b"0\r\n\r\n")

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        assert '"one"' in answer.text
        assert "out of memory" in answer.text
        (counted,) = rig.telemetry.series
        assert counted.requests == {(Endpoint.CHAT, Outcome.BROKEN): 1}
        assert counted.output_tokens.value == counted.aborted_output_tokens == 1
        assert counted.input_tokens > 0


async def test_a_stream_that_only_its_closing_ends_is_not_taken_for_whole():
    async def script(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        await peer.send(b"data: " + msgspec.json.encode(chat_chunk("one")) + b"\n\n")
        await asyncio.sleep(0.05)
        peer.writer.close()

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        assert '"one"' in answer.text
        assert "without its end mark" in answer.text


async def test_an_engines_error_inside_a_stream_is_no_completion():
    async def script(received, peer):
        await peer.start_stream()
        await peer.event(chat_chunk("one"))
        await peer.event({"error": {"message": "engine dead", "code": 500}})
        await peer.end_stream()

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        assert "engine dead" in answer.text
        (series,) = rig.telemetry.series
        assert series.requests == {(Endpoint.CHAT, Outcome.BROKEN): 1}


async def test_running_out_of_time_altogether_says_nothing_about_the_replica():
    async def endless(received, peer):
        await peer.start_stream()
        while True:
            await peer.event(chat_chunk("x"))
            await asyncio.sleep(0.05)

    async with run_gateway(endless, timeouts=Timeouts(total_s=0.4)) as rig:
        for _ in range(3):
            answer = await rig.chat(stream=True)
            assert "not finished within" in answer.text
        assert rig.fleet.replicas["r0"].state is ReplicaState.READY


async def test_a_long_answer_that_is_not_streamed_is_not_begun_anew():
    async def silent(received, peer):
        await peer.reader.read()
        raise ConnectionError

    async with run_gateway(silent, silent, timeouts=Timeouts(first_byte_s=0.3)) as rig:
        assert (await rig.chat()).status_code == 504
        assert sum(len(engine.received) for engine in rig.engines) == 1


async def test_a_reset_after_a_while_of_work_is_told_to_the_core():
    first = True

    async def script(received, peer):
        nonlocal first
        if first:
            first = False
            await peer.json({"ok": True})
        else:
            await asyncio.sleep(1.3)
            peer.reset()

    async with run_gateway(script, good) as rig:
        await rig.chat()
        await rig.chat(stream=True)  # the other replica's turn
        answer = await rig.chat(stream=True)
        assert answer.headers["x-headrace-replica"] == "r1"
        assert len(rig.engines[0].received) == 2
        retries = [series.retries for series in rig.telemetry.series]
        assert {Outcome.UNAVAILABLE: 1} in retries


async def test_what_a_departed_replica_still_relays_is_counted():
    async def script(received, peer):
        await stream_words(peer, 20, pause_s=0.02)

    async with run_gateway(script) as rig:
        running = asyncio.create_task(rig.chat(stream=True))
        await until(lambda: rig.fleet.replicas["r0"].decoding)
        rig.plane.apply(ReplicaGone("r0"))
        rig.telemetry.forget("r0")
        (series,) = rig.telemetry.series
        assert (await running).text.endswith("[DONE]\n\n")
        assert series.output_tokens.value == 20
        await until(lambda: not list(rig.telemetry.series))


async def test_a_running_response_can_be_cancelled():
    async def script(received, peer):
        if received.target.endswith("/cancel"):
            await peer.json({"id": "resp_1", "status": "cancelled"})
            return
        await peer.start_stream()
        await peer.event({"type": "response.created", "response": {"id": "resp_1"}})
        for _ in range(20):
            await peer.event({"type": "response.output_text.delta", "delta": "x"})
            await asyncio.sleep(0.05)
        await peer.end_stream(done=False)

    async with run_gateway(script) as rig:
        body = {"model": "m", "input": "hi", "stream": True}
        running = asyncio.create_task(rig.client.post("/v1/responses", json=body))
        await until(lambda: rig.fleet.replicas["r0"].decoding)
        answer = await rig.client.post("/v1/responses/resp_1/cancel")
        assert answer.json()["status"] == "cancelled"
        await running


async def test_a_second_answer_that_nobody_asked_for_is_dropped():
    async def script(received, peer):
        one = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n"
        await peer.send(one + b'{"n":1}' + one + b'{"n":2}')

    async with run_gateway(script) as rig:
        for _ in range(2):
            assert (await rig.chat()).json() == {"n": 1}


async def test_usage_in_a_last_event_without_its_blank_line_is_read_and_hidden():
    async def script(received, peer):
        await peer.start_stream()
        await peer.event(chat_chunk("one"))
        await peer.chunk(b"data: " + msgspec.json.encode(usage_chunk(7, 1)) + b"\n")
        await peer.end_stream(done=False)

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        assert "usage" not in answer.text
        (series,) = rig.telemetry.series
        assert series.input_tokens == 7


async def test_a_fault_of_ours_ends_its_request_and_no_other():
    async with run_gateway(good, api_key="kéy") as rig:  # cannot be sent as a header
        assert (await rig.chat()).status_code == 500
        assert rig.plane.in_flight == 0
        assert (await rig.client.get("/health")).status_code == 200


async def test_a_connection_that_comes_as_its_call_is_cancelled_is_not_counted_for_ever(
    monkeypatch,
):
    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    made = UpstreamConnection.connection_made

    def cancel_when_made(self, transport):
        made(self, transport)
        call.cancel()

    monkeypatch.setattr(UpstreamConnection, "connection_made", cancel_when_made)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        call = pool.open(Address("127.0.0.1", port, b"x"), [b"GET / HTTP/1.1\r\n\r\n"], Sink())
        task = call._task
        assert task is not None
        await asyncio.wait([task])
        await asyncio.sleep(0.01)
    assert task.cancelled()
    assert pool.count() == {"upstream_busy": 0, "upstream_idle": 0}


@pytest.mark.parametrize(
    ("told", "wait_s"),
    [
        (("17", "9"), "9"),  # the first that may have room
        (("86400", "86400"), "60"),
        (("17", None), "1"),
        (("0", "Wed, 21 Oct 2026 07:28:00 GMT"), "1"),
        (("9" * 5000, "17"), "1"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_client_waits_as_long_as_full_engines_ask_for(status, told, wait_s):
    def full(wait):
        async def script(_received, peer):
            field = "" if wait is None else f"retry-after: {wait}\r\n"
            await peer.json({"error": {"message": "full"}}, status=status, headers=field)

        return script

    async with run_gateway(*map(full, told)) as rig:
        answer = await rig.chat()
        assert answer.json()["error"]["code"] == "overloaded"
        assert answer.headers["retry-after"] == wait_s
