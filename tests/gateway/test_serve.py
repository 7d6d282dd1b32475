"""`headrace serve` as a process of its own, in front of scripted engines."""

from __future__ import annotations

import asyncio
import json
import signal
import socket

import pytest

from headrace.edges.build import is_compiled
from headrace.gateway.keys import add_key
from tests.gateway.serve_process import HANG_S, Serve, headrace, pool, serving
from tests.otlp_receiver import OtlpReceiver
from tests.scripted import ScriptedEngine, stream_words

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def three_words(_received, peer):
    await stream_words(peer, 3)


async def endless_words(_received, peer):
    await stream_words(peer, 100_000, pause_s=0.05)


async def test_pools_aliases_and_keys_on_both_sides(tmp_path):
    key = add_key(tmp_path / "keys", "alice")
    async with (
        ScriptedEngine(three_words, models=({"id": "m"}, {"id": "lora", "parent": "m"})) as one,
        ScriptedEngine(three_words, models=({"id": "n"},)) as two,
    ):
        text = (
            f"pools:\n{pool(one, more=', api_key_env: KEY')}{pool(two, 'q', 'n')}"
            "aliases: {chat: n}\napi_keys_file: keys\n"
        )
        async with serving(tmp_path, text, KEY="sk-engine") as serve:
            client = serve.client
            assert (await client.get("/v1/models")).status_code == 401
            client.headers["authorization"] = f"Bearer {key}"
            listed = (await client.get("/v1/models")).json()["data"]
            assert {model["id"] for model in listed} >= {"m", "n", "lora", "chat"}
            answers = [
                await client.post("/v1/chat/completions", json={**CHAT, "model": m, "stream": True})
                for m in ("m", "lora", "n", "chat")
            ]
            assert [answer.status_code for answer in answers] == [200] * 4
            assert [a.headers["x-headrace-replica"].partition("/")[0] for a in answers] == [
                *("p", "p", "q", "q")
            ]
    # Scrapes are among what was received, and carry the engine's key too.
    assert {request.headers["authorization"] for request in one.received} == {"Bearer sk-engine"}
    assert not any("authorization" in request.headers for request in two.received)
    assert asked(one) == ["m", "lora"]
    assert asked(two) == ["n", "n"]


def asked(engine: ScriptedEngine) -> list[str]:
    return [request.json["model"] for request in engine.received if request.method == "POST"]


async def test_traces_are_sent_before_it_ends(tmp_path):
    with OtlpReceiver() as receiver:
        async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
            tracing = f"tracing: {{endpoint: '{receiver.url}', service_name: edge}}\n"
            async with serving(tmp_path, f"pools:\n{pool(engine)}{tracing}grace: 0s\n") as serve:
                body = {**CHAT, "model": "m", "stream": True}
                assert (await serve.client.post("/v1/chat/completions", json=body)).is_success
                serve.signal()
                code, _ = await serve.ended()
        assert code == 0
        assert [span.name for span in receiver.operations()] == ["chat m"]
        assert [span.name for span in receiver.attempts()] == ["POST"]
        (server,) = receiver.of_kind("server")
        assert server.resource["service.name"] == "edge"


async def test_a_dns_name_brings_its_replicas(tmp_path):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n  - {{name: p, model: m, dns: {{name: localhost, port: {engine.port}}}}}\n"
        async with serving(tmp_path, text) as serve:
            answer = await serve.client.post("/v1/chat/completions", json={**CHAT, "model": "m"})
            assert answer.headers["x-headrace-replica"] == f"p/127.0.0.1:{engine.port}"


async def test_why_tells_the_story_by_either_id(tmp_path):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}"
        async with serving(tmp_path, text) as serve:
            answer = await serve.client.post(
                "/v1/chat/completions",
                json={**CHAT, "model": "m", "stream": True},
                headers={"x-request-id": "mine"},
            )
            for name in (answer.headers["x-headrace-request-id"], "mine"):
                why = await headrace("why", name, "--control", serve.control)
                out, _ = await asyncio.wait_for(why.communicate(), HANG_S)
                assert why.returncode == 0
                shown = out.decode()
                for word in (f"p/127.0.0.1:{engine.port}", "TTFT", "uncached", "completed"):
                    assert word in shown
            why = await headrace("why", "mine", "--json", "--control", serve.control)
            out, _ = await asyncio.wait_for(why.communicate(), HANG_S)
            assert json.loads(out)["attempts"][0]["output_tokens"] == 3
            why = await headrace("why", "other", "--control", serve.control)
            _, errors = await asyncio.wait_for(why.communicate(), HANG_S)
            assert why.returncode == 1
            assert "no decision is remembered for request id 'other'" in errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_streams_finish_and_refuses_new_ones(tmp_path, number):
    refusing = asyncio.Event()

    async def script(_received, peer):
        await stream_words(peer, 40, may_end=refusing)

    async with ScriptedEngine(script, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}grace: 300ms\ndrain: 30s\n"
        async with serving(tmp_path, text) as serve:
            body = {**CHAT, "model": "m", "stream": True}
            async with serve.client.stream("POST", "/v1/chat/completions", json=body) as answer:
                pieces = answer.aiter_raw()
                got = await anext(pieces)
                serve.signal(number)
                async with asyncio.timeout(HANG_S):
                    while (await serve.client.get("/ready")).status_code == 200:
                        await asyncio.sleep(0.01)
                await refused(serve)
                refusing.set()
                async for piece in pieces:
                    got += piece
            assert got.endswith(b"data: [DONE]\n\n")
            assert got.count(b'"content":"w') == 40
            code, errors = await serve.ended()
    assert code == 0
    assert errors.rstrip().endswith("stopped")


async def refused(serve: Serve) -> None:
    """Wait until no new connection is taken."""
    url = serve.client.base_url
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                _, writer = await asyncio.open_connection(url.host, url.port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def test_a_second_signal_ends_it_at_once_with_an_error_event(tmp_path):
    async with ScriptedEngine(endless_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}grace: 1h\ndrain: 1h\n"
        async with serving(tmp_path, text) as serve:
            body = {**CHAT, "model": "m", "stream": True}
            async with serve.client.stream("POST", "/v1/chat/completions", json=body) as answer:
                pieces = answer.aiter_raw()
                got = await anext(pieces)
                serve.signal()
                async with asyncio.timeout(HANG_S):
                    while (await serve.client.get("/ready")).status_code == 200:
                        await asyncio.sleep(0.01)
                serve.signal()
                async for piece in pieces:
                    got += piece
            code, errors = await serve.ended()
    assert code == 1
    assert b'"error"' in got.rpartition(b"data: ")[2]
    assert b"[DONE]" not in got
    assert "stopping: 1 request in flight" in errors
    assert "stopped; 1 request was cut off" in errors


async def test_a_taken_port_is_named_with_its_flag(tmp_path):
    file = tmp_path / "headrace.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for section, flag in (("listen", "--port"), ("control", "--control-port")):
            other = "control" if section == "listen" else "listen"
            file.write_text(
                f"{section}: {{port: {port}}}\n{other}: {{port: 0}}\n"
                "pools:\n  - {name: p, model: m, replicas: [http://127.0.0.1:9]}\n"
            )
            process = await headrace("serve", "-c", file)
            _, errors = await asyncio.wait_for(process.communicate(), HANG_S)
            assert process.returncode == 2
            (line,) = errors.decode().splitlines()
            assert str(port) in line
            assert flag in line


async def test_the_start_says_where_it_listens_and_who_is_down(tmp_path):
    file = tmp_path / "headrace.yaml"
    file.write_text(
        "listen: {host: 0.0.0.0, port: 0}\ncontrol: {port: 0}\ngrace: 0s\n"
        "pools:\n  - {name: p, model: m, replicas: [http://127.0.0.1:9]}\n"
        "  - {name: q, model: n, replicas: [http://127.0.0.1:10]}\n"
        "aliases: {chat: {targets: [m], fallbacks: [n]}}\n"
    )
    process = await headrace("serve", "-c", file, "--insecure")
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(HANG_S):
        gateway, control, *names = [(await process.stdout.readline()).decode() for _ in range(4)]
        build = (await process.stdout.readline()).decode()
        told = [(await process.stderr.readline()).decode() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert "http://127.0.0.1:" in gateway
    assert "(on 0.0.0.0, every address of this machine)" in gateway
    assert "every address" not in control
    assert names == ["models         m, n\n", "aliases        chat -> m, else n\n"]
    what, _, remedy = build.removeprefix("build          ").partition("  ")
    assert what.strip() == ("compiled" if is_compiled() else "interpreted")
    assert ("make compiled" in remedy) is not is_compiled()
    assert {line.partition(" is down: ")[0] for line in told} == {
        "replica p/127.0.0.1:9",
        "replica q/127.0.0.1:10",
    }
    assert process.returncode == 0


async def test_an_engine_behind_a_path_is_asked_there_for_everything(tmp_path):
    async def script(received, peer):
        if received.target == "/llama/v1/models":
            await peer.json({"data": [{"id": "m"}]})
        elif received.method == "GET":
            await peer.json({})
        else:
            await three_words(received, peer)

    async with ScriptedEngine(script) as engine:
        pool = f"{{name: p, model: m, engine: vllm, replicas: ['{engine.url}/llama']}}"
        async with serving(tmp_path, f"pools:\n  - {pool}\n") as serve:
            body = {"model": "m", "stream": True, "messages": []}
            answer = await serve.client.post("/v1/chat/completions?a=b", json=body)
            assert answer.text.endswith("data: [DONE]\n\n")
            assert answer.headers["x-headrace-replica"] == f"p/127.0.0.1:{engine.port}/llama"
        targets = {each.target for each in engine.received}
        assert targets >= {"/llama/health", "/llama/v1/models", "/llama/v1/chat/completions?a=b"}
        assert all(target.startswith("/llama/") for target in targets)


async def last_error(serve: Serve) -> str:
    fleet = (await serve.control_client.get("/api/v1/fleet")).json()
    return fleet["pools"][0]["replicas"][0]["last_error"]


async def test_metrics_that_cannot_be_read_are_told_once_while_the_replica_is_ready(tmp_path):
    async def script(received, peer):
        if received.target == "/metrics":
            await peer.json({"error": "start the server with --metrics"}, status=501)
        elif received.target == "/v1/embeddings":
            await peer.json({"error": "no"}, status=500)
        else:
            await three_words(received, peer)

    async with ScriptedEngine(script, models=({"id": "m"},)) as engine:
        text = f"scrape: {{interval: 20ms}}\npools:\n{pool(engine)}"
        async with serving(tmp_path, text) as serve:
            line = await serve.hears("its metrics cannot be read")
            assert line.startswith(f"replica p/127.0.0.1:{engine.port} is ready, but")
            assert line.endswith("/metrics: HTTP 501")
            failures = f'headrace_scrape_failures_total{{pool="p",replica="p/{engine.url[7:]}"}}'
            async with asyncio.timeout(HANG_S):
                while await serve.metric(failures) < 20:
                    await asyncio.sleep(0.02)
            assert await last_error(serve) == "scraping failed: /metrics: HTTP 501"
            assert (await serve.client.post("/v1/embeddings", json={"model": "m"})).is_error
            failed = await serve.metric(failures)
            async with asyncio.timeout(HANG_S):
                while await serve.metric(failures) < failed + 5:
                    await asyncio.sleep(0.02)
            assert (await last_error(serve)).startswith("a request failed: ")
            serve.signal()
            _, errors = await serve.ended()
            assert "cannot be read" not in errors


async def test_a_replica_that_is_taken_out_and_comes_back_is_told(tmp_path):
    broken = True

    async def script(received, peer):
        if received.method == "GET":
            await peer.json({}, status=503 if broken and received.target == "/health" else 200)
        elif broken:
            peer.reset()
        else:
            await three_words(received, peer)

    async with ScriptedEngine(script, models=({"id": "m"},)) as engine:
        text = f"routing: {{ejection: {{failures: 2, backoff: 20ms}}}}\npools:\n{pool(engine)}"
        broken = False
        async with serving(tmp_path, text) as serve:
            broken = True
            for _ in range(2):
                await serve.client.post("/v1/chat/completions", json={**CHAT, "model": "m"})
            line = await serve.hears("is taken out")
            assert line.startswith(f"replica p/127.0.0.1:{engine.port} is taken out until its")
            assert "a request failed: " in line
            broken = False
            assert (await serve.hears("takes requests again")).startswith("replica p/127.0.0.1:")
            assert not any("taken out" in said for said in serve.said[serve.said.index(line) + 1 :])


@pytest.mark.parametrize("traffic", ["relayed", "external"])
async def test_metrics_of_a_replica_that_is_down_are_not_missed(tmp_path, traffic):
    """Nor in the moment when it is there again and they are not yet."""
    up, missing = True, 0

    async def script(received, peer):
        nonlocal missing
        _, name, path = received.target.split("/", 2)
        well = up or name == "steady"
        if path == "v1/models":
            await peer.json({"data": [{"id": name}]})
        elif path != "metrics":
            await peer.json({}, status=200 if well else 503)
        elif well and (name == "steady" or not missing):
            text = b"llamacpp:requests_deferred 0\n"
            await peer.send(b"HTTP/1.1 200 X\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
        else:
            missing -= up
            await peer.json({}, status=500)

    async with ScriptedEngine(script) as engine:
        text = "scrape: {interval: 20ms}\npools:\n" + "".join(
            f"  - {{name: {name}, model: {name}, engine: llamacpp, traffic: {sent}, "
            f"replicas: ['{engine.url}/{name}']}}\n"
            for name, sent in (("steady", "relayed"), ("frail", traffic))
        )
        async with serving(tmp_path, text) as serve:
            replica = f"replica frail/{engine.url[7:]}/frail"
            await serve.hears(f"{replica} is ready")
            up, missing = False, 3
            await serve.hears(f"{replica} is down")
            seen = len(engine.received)
            async with asyncio.timeout(HANG_S):
                while len(engine.received) < seen + 60:
                    await asyncio.sleep(0.02)
                up = True
                await serve.hears(f"{replica} is ready")
                while missing:
                    await asyncio.sleep(0.02)
            await serve.reload()
            assert "cannot be read" not in "\n".join(serve.said)
