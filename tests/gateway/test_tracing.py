"""Traces as a real OTLP receiver gets them, of requests through the real data plane."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.core.events import ReplicaChanged
from headrace.core.specs import Alias, Target
from headrace.edges import otel
from headrace.edges.otel import OtelTracer, traces_url
from headrace.gateway.settings import Timeouts
from tests.gateway.conftest import Rig, run_gateway
from tests.gateway.serve_process import HANG_S, LISTEN, headrace
from tests.otlp_receiver import OtlpReceiver
from tests.scripted import Script, ScriptedEngine, chat_chunk, stream_words
from tests.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PROMPT = "the secret of the old mill"


async def three_words(_received, peer):
    await stream_words(peer, 3)


async def whole_answer(_received, peer):
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 16},
    }
    message = {"role": "assistant", "content": PROMPT}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    await peer.json({"id": "c", "object": "chat.completion", "choices": choices, "usage": usage})


async def drop_the_connection(_received, peer):
    peer.reset()


async def break_off(_received, peer):
    await peer.start_stream()
    await peer.event(chat_chunk("half"))
    peer.reset()


async def endless_words(_received, peer):
    await stream_words(peer, 100_000, pause_s=0.02)


def context(traceparent: str) -> tuple[str, str, bool]:
    """Trace, span and whether it is sampled."""
    version, trace, span, flags = traceparent.split("-")
    assert version == "00"
    return trace, span, bool(int(flags, 16) & 1)


@pytest.fixture
def receiver():
    with OtlpReceiver() as receiver:
        yield receiver


@asynccontextmanager
async def traced(
    receiver: OtlpReceiver, *scripts: Script, sample_ratio: float = 1.0, **options
) -> AsyncIterator[Rig]:
    """A gateway with a tracer; when it is left, all spans have been received."""
    tracer = OtelTracer(receiver.url, sample_ratio=sample_ratio, service_name="headrace-test")
    try:
        async with run_gateway(*scripts, tracer=tracer, **options) as rig:
            yield rig
    finally:
        await tracer.close()


async def test_a_request_its_operation_and_its_attempt(receiver):
    async with traced(receiver, three_words) as rig:
        messages = [{"role": "user", "content": PROMPT}]
        answer = await rig.chat(messages=messages, stream=True, max_tokens=9)
        sent = rig.engines[0].received[0]
        port = rig.engines[0].port
    (server,) = receiver.of_kind("server")
    (operation,), (attempt,) = receiver.operations(), receiver.attempts()
    assert server.name == "POST /v1/chat/completions"
    assert server.parent == ""
    assert server.attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "headrace.request_id": answer.headers["x-headrace-request-id"],
        "headrace.model": "m",
    }
    assert operation.name == "chat m"
    assert (operation.trace, operation.parent) == (server.trace, server.id)
    ttft_s = operation.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert isinstance(ttft_s, float)
    assert 0 < ttft_s <= (operation.end_ns - operation.start_ns) / 1e9 + 1e-3
    assert operation.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert attempt.name == "POST"
    assert (attempt.trace, attempt.parent) == (server.trace, operation.id)
    assert attempt.attributes == {
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"http://127.0.0.1:{port}/v1/chat/completions",
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "headrace.pool": "p",
        "headrace.replica": "r0",
        "headrace.attempt": 1,
        "headrace.outcome": "completed",
    }
    assert not any(span.is_error for span in receiver.spans)
    assert server.start_ns <= operation.start_ns == attempt.start_ns
    assert attempt.start_ns < attempt.end_ns <= operation.end_ns <= server.end_ns
    assert server.resource["service.name"] == "headrace-test"
    assert receiver.paths == ["/v1/traces"]
    # A trace begins here, and the engine's own spans can hang on the attempt.
    assert context(sent.headers["traceparent"]) == (attempt.trace, attempt.id, True)


async def test_nothing_of_a_prompt_or_an_answer_is_in_a_trace(receiver):
    async with traced(receiver, whole_answer) as rig:
        headers = {"authorization": "Bearer sk-client", "x-note": PROMPT}
        body = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "user": PROMPT}
        answer = await rig.client.post("/v1/chat/completions?a=secret", json=body, headers=headers)
        assert PROMPT in answer.text
    (operation,) = receiver.operations()
    assert operation.attributes["gen_ai.usage.cache_read.input_tokens"] == 16
    assert "gen_ai.response.time_to_first_chunk" not in operation.attributes  # it did not stream
    for body in receiver.bodies:
        assert b"secret" not in body
        assert b"sk-client" not in body


async def test_the_callers_trace_goes_on(receiver):
    async with traced(receiver, three_words) as rig:
        rig.client.headers.update(
            {
                "traceparent": f"00-{TRACE}-{CALLER}-01",
                "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
                "baggage": "user=1",
            }
        )
        await rig.chat(stream=True)
        sent = rig.engines[0].received[0].headers
    (server,) = receiver.of_kind("server")
    (operation,), (attempt,) = receiver.operations(), receiver.attempts()
    assert (server.trace, server.parent) == (TRACE, CALLER)
    assert (operation.trace, operation.parent) == (TRACE, server.id)
    assert (attempt.trace, attempt.parent) == (TRACE, operation.id)
    assert context(sent["traceparent"]) == (TRACE, attempt.id, True)
    assert sent["tracestate"] == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
    assert sent["baggage"] == "user=1"


async def test_a_caller_that_does_not_sample_is_followed(receiver):
    async with traced(receiver, three_words) as rig:
        rig.client.headers["traceparent"] = f"00-{TRACE}-{CALLER}-00"
        await rig.chat(stream=True)
        trace, span, sampled = context(rig.engines[0].received[0].headers["traceparent"])
    assert receiver.spans == []
    assert (trace, sampled) == (TRACE, False)
    assert span != CALLER


@pytest.mark.parametrize(
    "bad", ["garbage", f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01"]
)
async def test_a_context_that_is_none_begins_a_new_trace(receiver, bad):
    async with traced(receiver, three_words) as rig:
        rig.client.headers.update({"traceparent": bad, "tracestate": "congo=1"})
        await rig.chat(stream=True)
        sent = rig.engines[0].received[0].headers
    (server,), (attempt,) = receiver.of_kind("server"), receiver.attempts()
    assert server.parent == ""
    assert context(sent["traceparent"]) == (attempt.trace, attempt.id, True)
    assert "tracestate" not in sent


@pytest.mark.parametrize(
    "state", ["my old mill", "x" * 5000, ",".join(f"k{number}=v" for number in range(40))]
)
async def test_a_state_that_is_none_is_left_out_and_fills_no_log(receiver, caplog, state):
    async with traced(receiver, three_words) as rig:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": state}
        rig.client.headers.update(headers)
        assert (await rig.chat(stream=True)).status_code == 200
        sent = rig.engines[0].received[0].headers
    assert context(sent["traceparent"])[0] == TRACE
    assert "tracestate" not in sent
    assert not [record for record in caplog.records if "opentelemetry" in record.name]


async def test_a_share_of_the_requests(receiver):
    async with traced(receiver, three_words, sample_ratio=0.0) as rig:
        await rig.chat(stream=True)
        assert not context(rig.engines[0].received[0].headers["traceparent"])[2]
    assert receiver.spans == []


async def test_every_attempt_has_a_span_under_the_one_of_the_operation(receiver):
    async with traced(receiver, drop_the_connection, three_words) as rig:
        assert (await rig.chat(stream=True)).status_code == 200
        sent = [engine.received[0].headers["traceparent"] for engine in rig.engines]
        port = rig.engines[1].port
    (server,), (operation,) = receiver.of_kind("server"), receiver.operations()
    failed, served = receiver.attempts()
    assert operation.parent == server.id
    assert {failed.parent, served.parent} == {operation.id}
    assert [context(parent)[1] for parent in sent] == [failed.id, served.id]
    assert failed.is_error
    assert failed.attributes["error.type"] == failed.attributes["headrace.outcome"] == "unavailable"
    assert not served.is_error
    assert served.attributes["http.request.resend_count"] == 1
    # A caller sees one operation that went well, at the replica that served it.
    assert not operation.is_error
    assert "error.type" not in operation.attributes
    assert operation.attributes["server.port"] == port
    assert operation.attributes["gen_ai.usage.output_tokens"] == 3
    assert operation.start_ns == failed.start_ns < served.start_ns
    waited_ns = operation.attributes["gen_ai.response.time_to_first_chunk"] * 1e9
    assert waited_ns > served.start_ns - failed.start_ns
    assert not server.is_error


async def test_an_operation_that_fell_back_is_of_the_model_that_served_it(receiver):
    aliases = (Alias("nice", (Target("a"),), fallbacks=("m",)),)
    scripts, adapters = (drop_the_connection, three_words), (frozenset({"a"}), frozenset[str]())
    async with traced(receiver, *scripts, aliases=aliases, adapters=adapters) as rig:
        assert (await rig.chat(model="nice", stream=True)).status_code == 200
    (operation,) = receiver.operations()
    assert len(receiver.attempts()) == 2
    assert (operation.name, operation.attributes["gen_ai.request.model"]) == ("chat m", "m")


async def test_an_operation_that_fell_back_to_a_unix_socket_has_no_port(receiver, tmp_path):
    socket = str(tmp_path / "engine.sock")
    async with (
        ScriptedEngine(three_words, unix=socket) as engine,
        traced(receiver, drop_the_connection) as rig,
    ):
        rig.plane.apply(ReplicaChanged("r1", "p", engine.url, ready=True))
        assert (await rig.chat(stream=True)).status_code == 200
        assert len(engine.received) == 1
    (operation,), (failed, served) = receiver.operations(), receiver.attempts()
    assert (failed.attributes["server.port"] > 0, "server.port" in served.attributes) == (
        True,
        False,
    )
    assert operation.attributes["server.address"] == served.attributes["server.address"]
    assert "server.port" not in operation.attributes


async def test_a_last_attempt_that_failed_is_the_operations_error(receiver):
    async with traced(receiver, drop_the_connection) as rig:
        assert (await rig.chat()).status_code == 502
    (operation,) = receiver.operations()
    assert (operation.is_error, operation.attributes["error.type"]) == (True, "unavailable")
    assert "gen_ai.usage.output_tokens" not in operation.attributes


async def test_what_the_engine_refuses_is_the_clients_error(receiver):
    async def refuse(_received, peer):
        await peer.json({"error": {"message": PROMPT}}, status=400)

    async with traced(receiver, refuse) as rig:
        assert (await rig.chat()).status_code == 400
    (server,) = receiver.of_kind("server")
    clients = receiver.operations() + receiver.attempts()
    assert [(span.is_error, span.attributes["error.type"]) for span in clients] == [
        (True, "400")
    ] * 2
    assert (server.is_error, server.attributes["http.response.status_code"]) == (False, 400)
    assert not any(PROMPT.encode() in body for body in receiver.bodies)


async def test_what_the_gateway_rejects(receiver):
    async with traced(receiver) as rig:
        assert (await rig.chat(model="nobody")).status_code == 404
        assert (await rig.chat()).status_code == 503
        assert (await rig.client.post("/v1/chat/completions", content=b"{")).status_code == 400
        assert (await rig.client.get("/health")).status_code == 200
    assert receiver.of_kind("client") == []
    unknown, none_ready, not_json = receiver.of_kind("server")
    assert (unknown.is_error, unknown.attributes["http.response.status_code"]) == (False, 404)
    assert (none_ready.is_error, none_ready.attributes["http.response.status_code"]) == (True, 503)
    assert none_ready.attributes["error.type"] == "no_replica_available"
    assert (not_json.name, not_json.attributes["http.response.status_code"]) == ("POST", 400)


async def test_paths_that_ask_for_no_key_are_not_traced(receiver):
    async with traced(receiver) as rig:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}  # which no share of ours bounds
        assert (await rig.client.get("/wp-login.php", headers=headers)).status_code == 404
        assert (await rig.client.post("/health", headers=headers)).status_code == 405
    assert receiver.spans == []


async def test_a_method_that_is_none_of_the_conventions_is_not_in_a_name(receiver):
    async with traced(receiver) as rig:
        assert (await rig.client.request("PROPFIND", "/v1/chat/completions")).status_code == 405
    (server,) = receiver.of_kind("server")
    assert server.name == "HTTP"
    assert server.attributes["http.request.method"] == "_OTHER"
    assert server.attributes["http.request.method_original"] == "PROPFIND"


async def test_a_limit_that_no_receiver_could_read_is_left_out(receiver, caplog):
    async with traced(receiver, three_words) as rig:
        assert (await rig.chat(stream=True, max_tokens=2**63)).status_code == 200
    (operation,) = receiver.operations()
    assert "gen_ai.request.max_tokens" not in operation.attributes
    assert not [record for record in caplog.records if "opentelemetry" in record.name]


async def test_several_choices_are_told(receiver):
    async with traced(receiver, three_words, three_words, three_words) as rig:
        await rig.chat(n=1)
        await rig.chat(n=3)
        body = {"model": "m", "prompt": ["a", "b"], "n": 2}
        await rig.client.post("/v1/completions", json=body)
    key = "gen_ai.request.choice.count"
    assert [each.attributes.get(key) for each in receiver.operations()] == [None, 3, None]


async def test_a_stream_that_breaks_off_is_an_error_despite_its_status(receiver):
    async with traced(receiver, break_off) as rig:
        assert (await rig.chat(stream=True)).status_code == 200
    assert len(receiver.spans) == 3
    assert {span.is_error for span in receiver.spans} == {True}
    assert {span.attributes["error.type"] for span in receiver.spans} == {"broken"}
    (server,), (attempt,) = receiver.of_kind("server"), receiver.attempts()
    assert server.attributes["http.response.status_code"] == 200
    assert attempt.attributes["http.response.status_code"] == 200


async def test_a_client_that_leaves_is_an_outcome_and_no_error(receiver):
    async with traced(receiver, endless_words) as rig:
        body = {"model": "m", "messages": [], "stream": True}
        async with rig.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            await anext(answer.aiter_lines())
        await until(lambda: not rig.plane.in_flight, hang_s=30)
    (attempt,) = receiver.attempts()
    assert attempt.attributes["headrace.outcome"] == "aborted"
    assert attempt.attributes["http.response.status_code"] == 200
    assert len(receiver.spans) == 3
    for span in receiver.spans:
        assert not span.is_error
        assert "error.type" not in span.attributes


async def test_a_time_limit_is_named(receiver):
    async def silent(_received, peer):
        await asyncio.sleep(60)

    async with traced(receiver, silent, timeouts=Timeouts(total_s=0.2)) as rig:
        assert (await rig.chat()).status_code == 504
    (server,) = receiver.of_kind("server")
    assert server.attributes["error.type"] == "upstream_timeout"


async def test_an_alias_stands_on_the_request_and_its_target_on_the_operation(receiver):
    aliases = (Alias("nice", (Target("m"),)),)
    async with traced(receiver, three_words, aliases=aliases) as rig:
        await rig.chat(model="nice", stream=True)
    (server,), (operation,) = receiver.of_kind("server"), receiver.operations()
    assert server.attributes["headrace.model"] == "nice"
    assert (operation.name, operation.attributes["gen_ai.request.model"]) == ("chat m", "m")


async def test_what_is_no_inference_is_a_plain_http_call(receiver):
    async def tokens(_received, peer):
        await peer.json({"tokens": [1]})

    async with traced(receiver, tokens) as rig:
        await rig.client.post("/v1/tokenize", json={"model": "m", "prompt": PROMPT})
    (server,), (client,) = receiver.of_kind("server"), receiver.of_kind("client")
    assert (server.name, client.name) == ("POST", "POST")
    assert not [key for key in client.attributes if key.startswith("gen_ai")]


# ---------------------------------------------------------------- when the receiver is in trouble


async def test_a_receiver_that_stalls_holds_up_nothing_and_fills_no_memory(receiver, monkeypatch):
    monkeypatch.setattr(otel, "MAX_WAITING_SPANS", 8)
    monkeypatch.setattr(otel, "SPANS_PER_EXPORT", 4)
    receiver.gate.clear()
    async with traced(receiver, three_words) as rig:
        await rig.chat(stream=True)
        await rig.chat(stream=True)
        assert await asyncio.to_thread(receiver.asked.wait, 30)
        for _ in range(20):
            assert (await rig.chat(stream=True)).status_code == 200
        receiver.gate.set()
    # What was being sent, and what could wait; 44 spans were made.
    assert len(receiver.spans) <= 4 + 8


async def test_a_receiver_that_is_not_there_is_given_up_at_the_end(monkeypatch, caplog):
    monkeypatch.setattr(otel, "CLOSE_S", 0.1)
    monkeypatch.setattr(otel.sparing, "next_s", 0.0)
    tracer = OtelTracer("http://127.0.0.1:1", sample_ratio=1.0, service_name="t")
    async with run_gateway(three_words, tracer=tracer) as rig:
        assert (await rig.chat(stream=True)).status_code == 200
    async with asyncio.timeout(60):
        await tracer.close()
    # Of all that went wrong, the first is told; more would come with every batch.
    (told,) = [record for record in caplog.records if "opentelemetry" in record.name]
    assert "retrying" in told.getMessage()


# ---------------------------------------------------------------- without a tracer


async def test_without_a_tracer_the_callers_context_passes_as_it_came():
    parent = f"00-{TRACE}-{CALLER}-01"
    async with run_gateway(three_words) as rig:
        rig.client.headers.update({"traceparent": parent, "tracestate": "congo=1"})
        await rig.chat(stream=True)
        sent = rig.engines[0].received[0].headers
    assert (sent["traceparent"], sent["tracestate"]) == (parent, "congo=1")


@pytest.mark.parametrize(
    ("variable", "value", "code", "said"),
    [
        (
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
            "-1",
            2,
            "headrace: tracing: OTEL_SPAN_ATTRIBUTE_COUNT",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer sk-secret", 0, "Header format"),
    ],
)
async def test_a_variable_of_opentelemetry_that_cannot_be_used(
    tmp_path, variable, value, code, said
):
    file = tmp_path / "headrace.yaml"
    text = "tracing: {endpoint: 'http://127.0.0.1:1'}\npools:\n  - {name: p, model: m, replicas: ['"
    file.write_text(f"{LISTEN}grace: 0s\n{text}http://127.0.0.1:1']}}\n")
    process = await headrace("serve", "-c", file, **{variable: value})
    assert process.stdout is not None
    async with asyncio.timeout(HANG_S):
        if await process.stdout.readline():  # it runs
            process.terminate()
        _, errors = await process.communicate()
    assert process.returncode == code
    assert said in errors.decode()
    assert "Traceback" not in errors.decode()
    assert "sk-secret" not in errors.decode()


def test_without_a_tracer_opentelemetry_is_not_imported():
    code = (
        "import sys, headrace.cli, headrace.compose.serve, headrace.compose.up.command; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_where_spans_are_sent(endpoint, url):
    assert traces_url(endpoint) == url
