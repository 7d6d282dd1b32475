"""What a client sees of an answer, and what the engine sees of a request."""

import asyncio

import msgspec
import pytest

from headrace.core.specs import Alias, Target
from tests.gateway.conftest import run_gateway
from tests.scripted import chat_chunk, stream_words, usage_chunk


async def test_a_stream_passes_unchanged_but_for_the_usage_we_asked_for():
    async def script(received, peer):
        assert received.json["stream_options"] == {"include_usage": True}
        await stream_words(peer, 3)

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        expected = [chat_chunk(t) for t in (None, "w0 ", "w1 ", "w2 ")]
        events = [line[6:] for line in answer.text.splitlines() if line]
        assert [msgspec.json.decode(e) for e in events[:-1]] == expected
        assert events[-1] == "[DONE]"


async def test_usage_the_client_asked_for_is_passed_on():
    async def script(received, peer):
        await stream_words(peer, 2)

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True, stream_options={"include_usage": True})
        assert '"completion_tokens":2' in answer.text
        assert rig.engines[0].received[0].json["stream_options"] == {"include_usage": True}


async def test_other_stream_options_survive_the_merge():
    async def script(received, peer):
        await stream_words(peer, 1)

    async with run_gateway(script) as rig:
        await rig.chat(stream=True, stream_options={"x": 1, "include_usage": False})
        options = rig.engines[0].received[0].json["stream_options"]
        assert options == {"x": 1, "include_usage": True}


async def test_unknown_fields_and_odd_numbers_pass_byte_for_byte():
    body = (
        b'{ "model" : "m", "messages":[{"role":"user","content":"\\u00e9\\/ \xc3\xa9"}],'
        b'"big":123456789012345678901234567890,"tiny":1e-400,"nested":{"b":[1, 2],"a":null}}'
    )

    async def script(received, peer):
        await peer.json({"ok": True})

    async with run_gateway(script) as rig:
        await rig.client.post("/v1/chat/completions", content=body)
        assert rig.engines[0].received[0].body == body


async def test_an_alias_is_replaced_by_its_target_and_no_key_stands_twice():
    body = b'{"model":"other","big":12345678901234567890123,"messages":[],"model":"chat"}'

    async def script(received, peer):
        await peer.json({"ok": True})

    alias = Alias("chat", (Target("m"),))
    async with run_gateway(script, aliases=(alias,)) as rig:
        answer = await rig.client.post("/v1/chat/completions", content=body)
        assert answer.status_code == 200
        sent = rig.engines[0].received[0].body
        assert sent.count(b'"model"') == 1
        assert b'"model":"m"' in sent
        assert b'"big":12345678901234567890123' in sent


async def test_credentials_stay_at_the_gateway_and_the_pools_own_go_out():
    async def script(received, peer):
        await peer.json({"ok": True})

    async with run_gateway(script, api_key="engine-secret") as rig:
        await rig.client.post(
            "/v1/chat/completions",
            json={"model": "m", "messages": []},
            headers={"authorization": "Bearer client-secret", "x-api-key": "client-secret"},
        )
        received = rig.engines[0].received[0]
        assert received.headers["authorization"] == "Bearer engine-secret"
        assert "client-secret" not in str(received.headers)


async def test_hop_by_hop_fields_stop_at_the_gateway():
    async def script(received, peer):
        await peer.json(
            {"ok": True}, headers="connection: x-private\r\nx-private: 1\r\nx-kept: 2\r\n"
        )

    async with run_gateway(script) as rig:
        answer = await rig.client.post(
            "/v1/chat/completions",
            json={"model": "m", "messages": []},
            headers={"connection": "x-hop, keep-alive", "x-hop": "1", "x-end": "2"},
        )
        headers = rig.engines[0].received[0].headers
        assert "x-hop" not in headers
        assert headers["x-end"] == "2"
        assert "x-private" not in answer.headers
        assert answer.headers["x-kept"] == "2"


async def test_ids_go_out_on_answers_and_errors():
    async def script(received, peer):
        await peer.json({"ok": True})

    async with run_gateway(script) as rig:
        answer = await rig.client.post(
            "/v1/chat/completions",
            json={"model": "m", "messages": []},
            headers={"x-request-id": "mine-1"},
        )
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["x-headrace-replica"] == "r0"
        own = answer.headers["x-headrace-request-id"]
        assert rig.engines[0].received[0].headers["x-request-id"].startswith(own)
        error = await rig.client.post("/v1/chat/completions", json={"model": "nope"})
        assert error.status_code == 404
        assert error.headers["x-headrace-request-id"] != own
        assert "m" in error.json()["error"]["message"]


async def test_an_engines_own_error_reaches_the_client_as_it_is():
    async def script(received, peer):
        await peer.json({"error": {"message": "too long", "code": 400}}, status=400)

    async with run_gateway(script, script) as rig:
        answer = await rig.chat(stream=True)
        assert answer.status_code == 400
        assert answer.json() == {"error": {"message": "too long", "code": 400}}
        assert sum(len(e.received) for e in rig.engines) == 1


async def test_the_type_of_a_stream_may_be_written_in_any_case():
    async def script(received, peer):
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        await peer.event(chat_chunk("a"))
        await peer.event(usage_chunk(7, 3))
        await peer.end_stream()

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        assert "usage" not in answer.text
        assert next(iter(rig.telemetry.series)).output_tokens.value == 3


@pytest.mark.parametrize(
    ("written", "asks"),
    [(1, True), ("true", True), ("Yes", True), (0, False), ("False", False), (None, False)],
)
async def test_usage_is_asked_for_as_engines_read_it(written, asks):
    """pydantic, and so vLLM, takes 1 and "yes" for true: such a client wants the usage."""
    options = {"include_usage": written}

    async def script(received, peer):
        assert received.json["stream_options"] == (options if asks else {"include_usage": True})
        await stream_words(peer, 2)

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True, stream_options=options)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert ('"usage":{' in answer.text) == asks
        assert next(iter(rig.telemetry.series)).output_tokens.value == 2


def untyped(framing: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"


@pytest.mark.parametrize("begin", [b"", b"\r\n\n", b": hello\n\n", b"\xef\xbb\xbf", b"event: x\n"])
@pytest.mark.parametrize("way", ["chunks", "bytes", "whole", "until it closes"])
async def test_a_stream_that_does_not_say_so_is_one_for_who_asked_for_it(begin, way):
    body = begin + b"".join(
        b"data: %b\n\n" % (each if isinstance(each, bytes) else msgspec.json.encode(each))
        for each in (chat_chunk("a"), chat_chunk("b"), usage_chunk(7, 3), b"[DONE]")
    )

    async def script(received, peer):
        if way == "whole":
            await peer.send(untyped(b"content-length: %d" % len(body)) + body)
        elif way == "until it closes":
            await peer.send(untyped(b"connection: close") + body)
            peer.writer.close()
        else:
            await peer.send(untyped(b"transfer-encoding: chunked"))
            step = 1 if way == "bytes" else len(body)
            for at in range(0, len(body), step):
                await peer.chunk(body[at : at + step])
            await peer.end_stream(done=False)

    async with run_gateway(script) as rig:
        answer = await rig.chat(stream=True)
        assert answer.content.startswith(begin)
        assert "usage" not in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        series = next(iter(rig.telemetry.series))
        assert (series.input_tokens, series.output_tokens.value) == (7, 3)
        assert series.ttft.count == 1


@pytest.mark.parametrize(
    "body", [b"", b" ", b"da", b"data", b"{}", b'{"data":1}', b"\n" * 100 + b"data: 1\n\n"]
)
@pytest.mark.parametrize("framing", [b"content-length: %d", b"transfer-encoding: chunked"])
async def test_another_body_that_does_not_say_what_it_is_passes_as_it_is(body, framing):
    async def script(received, peer):
        if b"%" in framing:
            await peer.send(untyped(framing % len(body)) + body)
            return
        await peer.send(untyped(framing))
        if body:
            await peer.chunk(body)
        await peer.end_stream(done=False)

    async with run_gateway(script) as rig:
        for _ in range(2):
            answer = await rig.chat(stream=True)
            assert (answer.status_code, answer.content) == (200, body)


async def test_an_engine_that_breaks_off_before_it_told_what_it_sends_is_replaced():
    async def breaks(received, peer):
        await peer.send(untyped(b"transfer-encoding: chunked"))
        await peer.chunk(b"da")
        peer.reset()

    async def streams(received, peer):
        await stream_words(peer, 2)

    async with run_gateway(breaks, streams) as rig:
        for _ in range(2):
            answer = await rig.chat(stream=True)
            assert answer.text.startswith("data: ")
            assert answer.text.endswith("data: [DONE]\n\n")
        assert sum(series.output_tokens.value for series in rig.telemetry.series) == 4


async def test_a_body_without_framing_ends_with_its_connection():
    async def script(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + b'{"a":1}')
        peer.writer.close()

    async with run_gateway(script) as rig:
        answer = await rig.chat()
        assert answer.json() == {"a": 1}


async def test_kept_alive_connections_are_used_again():
    async def script(received, peer):
        await stream_words(peer, 1)

    async with run_gateway(script) as rig:
        for _ in range(5):
            await rig.chat(stream=True)
        assert rig.engines[0].connections == 1


async def test_a_connection_the_engine_closed_meanwhile_is_not_a_failure():
    async def script(received, peer):
        await peer.json({"ok": True})
        peer.writer.close()

    async with run_gateway(script) as rig:
        for _ in range(4):
            answer = await rig.chat()
            assert answer.status_code == 200
            await asyncio.sleep(0.02)
        assert len(rig.engines[0].received) == 4
        assert rig.fleet.replicas["r0"].consecutive_failures == 0


async def test_split_events_reach_the_client_whole():
    whole = b"data: " + msgspec.json.encode(chat_chunk("hello")) + b"\n\n"

    async def script(received, peer):
        await peer.start_stream()
        for i in range(0, len(whole), 7):
            await peer.chunk(whole[i : i + 7])
            await asyncio.sleep(0)
        await peer.event(usage_chunk(3, 1))
        await peer.end_stream()

    async with (
        run_gateway(script) as rig,
        rig.client.stream(
            "POST", "/v1/chat/completions", json={"model": "m", "messages": [], "stream": True}
        ) as answer,
    ):
        pieces = [piece async for piece in answer.aiter_raw()]
        assert b"".join(pieces) == whole + b"data: [DONE]\n\n"


@pytest.mark.parametrize("words", [1, 50])
async def test_usage_settles_the_counters(words):
    async def script(received, peer):
        await stream_words(peer, words, input_tokens=11)

    async with run_gateway(script) as rig:
        await rig.chat(stream=True)
        series = next(iter(rig.telemetry.series))
        assert series.output_tokens.value == words
        assert series.input_tokens == 11


async def test_embeddings_and_unknown_paths_pass_through():
    async def script(received, peer):
        await peer.json({"path": received.target, "usage": {"prompt_tokens": 4, "total_tokens": 4}})

    async with run_gateway(script) as rig:
        answer = await rig.client.post("/v1/embeddings", json={"model": "m", "input": ["a", "b"]})
        assert answer.json()["path"] == "/v1/embeddings"
        assert next(iter(rig.telemetry.series)).input_tokens == 4
        answer = await rig.client.post("/v1/rerank?x=1", json={"model": "m", "query": "q"})
        assert answer.json()["path"] == "/v1/rerank?x=1"
        assert next(iter(rig.telemetry.series)).input_tokens == 8
        answer = await rig.client.get("/v1/whatever")
        assert answer.json()["path"] == "/v1/whatever"
        assert next(iter(rig.telemetry.series)).input_tokens == 8
        assert rig.fleet.pools["p"].answers == 1  # nothing is learned of what nobody has read


async def test_stored_responses_are_asked_of_the_replica_that_holds_them():
    async def script(received, peer):
        name = received.headers["host"]
        if received.method == "POST" and received.target == "/v1/responses":
            await peer.json({"id": f"resp_{name}", "object": "response", "status": "completed"})
        else:
            await peer.json({"asked": name, "method": received.method, "target": received.target})

    async with run_gateway(script, script, script) as rig:
        for _ in range(6):
            made = await rig.client.post("/v1/responses", json={"model": "m", "input": "x"})
            response_id = made.json()["id"]
            holder = response_id.removeprefix("resp_")
            for method, tail in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
                answer = await rig.client.request(method, f"/v1/responses/{response_id}{tail}")
                assert answer.json()["asked"] == holder
                assert answer.json()["method"] == method
            follow = await rig.client.post(
                "/v1/responses",
                json={"model": "m", "input": "y", "previous_response_id": response_id},
            )
            assert follow.json()["id"] == response_id
        missing = await rig.client.get("/v1/responses/resp_none")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "response_not_found"


async def test_a_streamed_response_is_found_again_too():
    async def script(received, peer):
        if received.method == "GET":
            await peer.json({"asked": received.headers["host"]})
            return
        name = received.headers["host"]
        response = {"id": f"resp_{name}", "status": "in_progress"}
        await peer.start_stream()
        usage = {
            "input_tokens": 5,
            "output_tokens": 2,
            "input_tokens_details": {"cached_tokens": 1},
        }
        for kind, fields in (
            ("response.created", {"response": response}),
            ("response.output_text.delta", {"delta": "he"}),
            ("response.output_text.delta", {"delta": "llo"}),
            ("response.completed", {"response": {**response, "usage": usage}}),
        ):
            body = msgspec.json.encode({"type": kind, **fields})
            await peer.chunk(b"event: %b\ndata: %b\n\n" % (kind.encode(), body))
        await peer.end_stream(done=False)

    async with run_gateway(script, script) as rig:
        body = {"model": "m", "input": "x", "stream": True}
        answer = await rig.client.post("/v1/responses", json=body)
        assert "response.completed" in answer.text
        holder = rig.engines[0].url if rig.engines[0].received else rig.engines[1].url
        found = await rig.client.get(f"/v1/responses/resp_{holder.removeprefix('http://')}")
        assert found.json()["asked"] == holder.removeprefix("http://")
        series = next(iter(rig.telemetry.series))
        assert (series.input_tokens, series.output_tokens.value, series.cached_tokens) == (5, 2, 1)


async def test_adapters_are_routable_and_their_holders_preferred():
    async def script(received, peer):
        await peer.json({"model": received.json["model"]})

    held = (frozenset[str](), frozenset({"lora-1"}), frozenset[str]())
    async with run_gateway(script, script, script, adapters=held) as rig:
        for _ in range(4):
            answer = await rig.chat(model="lora-1")
            assert answer.headers["x-headrace-replica"] == "r1"
            assert answer.json()["model"] == "lora-1"
        listed = {m["id"]: m for m in (await rig.client.get("/v1/models")).json()["data"]}
        assert listed["lora-1"]["parent"] == "m"
        assert (await rig.client.get("/v1/models/lora-1")).json()["id"] == "lora-1"
        assert (await rig.client.get("/v1/models/none")).status_code == 404
