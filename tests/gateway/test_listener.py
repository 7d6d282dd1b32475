"""The listener itself: framing, limits, keys, draining."""

import asyncio
from dataclasses import replace

import pytest

from headrace.gateway.keys import KeyRing, new_key
from headrace.gateway.server import DataPlane, PortTaken
from headrace.gateway.settings import Limits, Listener, Timeouts
from tests.gateway.conftest import run_gateway
from tests.scripted import stream_words
from tests.waiting import until


async def plain(received, peer):
    await peer.json({"ok": True})


SMALL = b'{"model":"m","messages":[]}'


async def raw(port: int, data: bytes) -> bytes:
    """Send bytes, return everything until the server closes (a hang guard ends the wait)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_health_and_ready_and_nothing_else():
    async with run_gateway(plain) as rig:
        assert (await rig.client.get("/health")).status_code == 200
        assert (await rig.client.get("/ready")).json() == {"status": "ready"}
        for path in ("/metrics", "/telemetry", "/api/v1/fleet", "/", "/docs"):
            answer = await rig.client.get(path)
            assert answer.status_code == 404
            assert "control plane" in answer.json()["error"]["message"]
    async with run_gateway() as rig:
        assert (await rig.client.get("/ready")).status_code == 503


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_health_is_read_and_nothing_else(path):
    async with run_gateway(plain) as rig:
        for method in ("GET", "HEAD"):
            assert (await rig.client.request(method, path)).status_code == 200
        for method in ("OPTIONS", "POST", "DELETE", "PUT"):
            answer = await rig.client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
            assert answer.json()["error"]["message"] == f"{path} is read with GET."


async def test_pipelined_requests_are_answered_in_order():
    async def script(received, peer):
        await peer.json({"n": received.json["n"]})

    async with run_gateway(script) as rig:
        requests = b""
        for n in range(5):
            body = b'{"model":"m","messages":[],"n":%d}' % n
            close = b"connection: close\r\n" if n == 4 else b""
            requests += (
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b"
                % (close, len(body), body)
            )
        answers = await raw(rig.plane.port, requests)
        order = [answers.index(b'{"n":%d}' % n) for n in range(5)]
        assert order == sorted(order)


async def test_blanks_around_a_target_go_no_further():
    """The scripted engine takes one on each side, and no more."""
    async with run_gateway(plain) as rig:
        head = b"POST  /v1/chat/completions   HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        answer = await raw(rig.plane.port, head + b"content-length: 27\r\n\r\n" + SMALL)
        assert answer.startswith(b"HTTP/1.1 200")
        assert rig.engines[0].received[-1].target == "/v1/chat/completions"


@pytest.mark.parametrize("later", [False, True])
async def test_what_comes_behind_a_request_that_closes_is_thrown_away(later):
    """RFC 9112 section 9.6: it is not served, and those before it are answered."""

    async def script(received, peer):
        if received.json["n"] == 0:
            await asked.wait()
        await peer.json({"n": received.json["n"]})

    asked = asyncio.Event()
    async with run_gateway(script) as rig:
        requests = list[bytes]()
        for n, fields in enumerate((b"", b"connection: close\r\n", b"")):
            body = b'{"model":"m","messages":[],"n":%d}' % n
            requests.append(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b"
                % (fields, len(body), body)
            )
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(b"".join(requests[:2] if later else requests))
        async with asyncio.timeout(20):
            while not rig.engines[0].received:
                await asyncio.sleep(0.01)
            writer.write(requests[2] + b"x" * 100_000)
            await writer.drain()
            asked.set()
            answers = await reader.read()
        writer.close()
        assert answers.count(b"HTTP/1.1 200 OK") == 2
        assert answers.endswith(b'{"n":1}')
        assert len([each for each in rig.engines[0].received if each.method == "POST"]) == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET http://elsewhere/v1/models HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: a/../b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: user@a\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", b"505"),
        (b"GET /\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\nhost: x\n\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 66_000 + b"\r\n\r\n", b"431"),
        (b"GET /v1/../slots HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET /v1/%63hat/completions HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET /v1//models HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET /v1/%2E%2e/slots HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"501",
        ),
        (b"POST /v1/x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n", b"413"),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n%b\r\n"
            % b"content-length: 3\r\n",
            b"400",
        ),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 70_000, b"431"),
    ],
)
async def test_bad_requests_get_a_clear_error_and_the_connection_closes(request_bytes, status):
    async with run_gateway(plain) as rig:
        answer = await raw(rig.plane.port, request_bytes)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b'{"error":{"message":' in answer
        assert b"x-headrace-request-id: hr-" in answer


@pytest.mark.parametrize("keys", [KeyRing(), None], ids=["401", "431"])
async def test_a_refused_request_for_a_head_gets_no_body(keys):
    fields = b"" if keys is not None else b"a: b\r\n" * 101
    async with run_gateway(plain, keys=keys) as rig:
        answer = await raw(
            rig.plane.port, b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\n%b\r\n" % fields
        )
        assert answer.startswith(b"HTTP/1.1 4")
        assert answer.endswith(b"\r\n\r\n")


async def test_slow_heads_and_bodies_are_cut_off():
    timeouts = Timeouts(head_s=0.3, body_s=0.3)
    async with run_gateway(plain, timeouts=timeouts) as rig:
        assert (await raw(rig.plane.port, b"GET / HT")).startswith(b"HTTP/1.1 408")
        half = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"
        assert (await raw(rig.plane.port, half)).startswith(b"HTTP/1.1 408")


async def test_idle_connections_are_closed():
    async with run_gateway(plain, timeouts=Timeouts(idle_s=0.3)) as rig:
        assert await raw(rig.plane.port, b"") == b""


async def test_too_many_connections_get_429():
    async with run_gateway(plain, limits=Limits(max_connections=1)) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        await until(lambda: rig.plane._server.connections)
        answer = await raw(rig.plane.port, b"")
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 1" in answer
        writer.close()
        del reader


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "body is empty"),
        (b'{"model":"m","stream_options":"x"}', "'stream_options' must be an object"),
        (b"[1]", "JSON object"),
        (b'{"model":', "JSON object"),
        (b'{"messages":[]}', "'model' is missing"),
        (b'{"model":"m","stream":"true"}', "'stream' must be true or false"),
        (b'{"model":"m","stream":1}', "'stream' must be true or false"),
        (b'{"model":7}', "'model' must be a string"),
        (b'{"model":""}', "'model' must be a string"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON object"),
    ],
)
async def test_bodies_we_cannot_route_are_named(body, word):
    async with run_gateway(plain) as rig:
        answer = await rig.client.post("/v1/chat/completions", content=body)
        assert answer.status_code == 400
        assert word in answer.json()["error"]["message"]


async def test_keys_are_asked_for_and_checked(tmp_path):
    fresh = new_key("alice")
    path = tmp_path / "keys"
    path.write_text(fresh.line + "\n")
    path.chmod(0o600)
    async with run_gateway(plain, keys=KeyRing.load(path)) as rig:
        body = {"model": "m", "messages": []}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": fresh.key[:-1]}):
            answer = await rig.client.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert (await rig.client.get("/v1/models")).status_code == 401
        for headers in ({"authorization": f"Bearer {fresh.key}"}, {"x-api-key": fresh.key}):
            answer = await rig.client.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200
        assert (await rig.client.get("/health")).status_code == 200


async def test_draining_finishes_running_streams_and_refuses_new_connections():
    started, release = asyncio.Event(), asyncio.Event()

    async def script(received, peer):
        started.set()
        await release.wait()
        await stream_words(peer, 3)

    async with run_gateway(script) as rig:
        running = asyncio.create_task(rig.chat(stream=True))
        await started.wait()
        rig.plane.begin_drain()
        assert (await rig.client.get("/ready")).status_code == 503
        draining = asyncio.create_task(rig.plane.drain(30))
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", rig.plane.port)
        release.set()
        answer = await running
        assert answer.text.endswith("data: [DONE]\n\n")
        assert await draining == 0


async def test_a_stream_that_outlives_the_drain_is_told_so():
    async def script(received, peer):
        await stream_words(peer, 1000, pause_s=0.05)

    async with run_gateway(script) as rig:
        running = asyncio.create_task(rig.chat(stream=True))
        await until(lambda: rig.engines[0].received)
        await asyncio.sleep(0.2)
        assert await rig.plane.drain(0.2) == 1
        answer = await running
        assert "the gateway stops" in answer.text
        assert "[DONE]" not in answer.text


async def test_a_taken_port_is_named():
    async with run_gateway(plain) as rig:
        taken = replace(rig.plane.settings, listen=Listener(port=rig.plane.port))
        with pytest.raises(PortTaken, match=str(rig.plane.port)):
            await DataPlane(taken, rig.plane.dispatcher, rig.telemetry).start()


async def test_an_upgrade_offer_is_ignored_and_its_body_read():
    body = b'{"model":"m","messages":[]}'
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b"
    async with run_gateway(plain) as rig:
        closing = head % (b"connection: close\r\n", len(body), body)
        answer = await raw(rig.plane.port, head % (offer, len(body), body) + closing)
        assert answer.count(b"HTTP/1.1 200") == 2
        assert [received.body for received in rig.engines[0].received] == [body, body]


async def test_methods_and_codings_we_do_not_speak_are_named():
    async with run_gateway(plain) as rig:
        for method in ("GET", "PUT", "HEAD", "OPTIONS"):
            answer = await rig.client.request(method, "/v1/chat/completions")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        gzip = ("content-encoding", "gzip")
        for headers in ([gzip], [("content-encoding", "identity"), gzip]):
            answer = await rig.client.post("/v1/chat/completions", content=b"x", headers=headers)
            assert answer.status_code == 415
        answer = await rig.client.post("/v1/load_lora_adapter", json={"model": "m"})
        assert answer.status_code == 403
        assert not rig.engines[0].received


async def test_browsers_of_named_origins_may_read_answers():
    preflight = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    async with run_gateway(plain, cors_origins=("https://app.example",)) as rig:
        path = "/v1/chat/completions"
        allowed = await rig.client.options(path, headers=preflight)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in allowed.headers["access-control-allow-methods"]
        refused = await rig.client.options(path, headers={**preflight, "origin": "https://evil"})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
        body = {"model": "m", "messages": []}
        answer = await rig.client.post(path, json=body, headers={"origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        answer = await rig.client.post(path, json=body, headers={"origin": "https://evil"})
        assert "access-control-allow-origin" not in answer.headers


async def test_a_client_still_sending_a_large_body_reads_that_it_is_too_large():
    async with run_gateway(plain, limits=Limits(max_body_bytes=1_000_000)) as rig:
        for _ in range(5):
            body = b'{"model":"m","x":"' + b"a" * 20_000_000 + b'"}'
            answer = await rig.client.post("/v1/chat/completions", content=body)
            assert answer.status_code == 413


async def test_bodies_held_in_memory_are_bounded_together():
    async with run_gateway(plain, limits=Limits(max_buffered_bytes=1_000_000)) as rig:
        body = b'{"model":"m","messages":[],"x":"' + b"a" * 2_000_000 + b'"}'
        answer = await rig.client.post("/v1/chat/completions", content=body)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "overloaded"
        assert (await rig.chat()).status_code == 200
        assert rig.plane._server.buffered_bytes == 0


async def test_a_stranger_is_refused_before_the_body_is_taken_in(tmp_path):
    path = tmp_path / "keys"
    path.write_text(new_key("alice").line + "\n")
    path.chmod(0o600)
    async with run_gateway(plain, keys=KeyRing.load(path)) as rig:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n"
        answer = await raw(rig.plane.port, head)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"www-authenticate: Bearer" in answer


async def test_100_continue_does_not_fall_into_another_answer():
    async def script(received, peer):
        await stream_words(peer, 10, pause_s=0.03)

    body = b'{"model":"m","messages":[],"stream":true}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n"
    async with run_gateway(script) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(head % (b"", len(body)) + body)
        await asyncio.sleep(0.1)
        writer.write(head % (b"expect: 100-continue\r\nconnection: close\r\n", len(body)) + body)
        async with asyncio.timeout(20):
            answers = await reader.read()
        first = answers[: answers.index(b"[DONE]")]
        assert b"100 Continue" not in first
        assert answers.count(b"[DONE]") == 2
        writer.close()


async def test_trailers_neither_pass_nor_pile_up():
    body = b'{"model":"m","messages":[]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    async with run_gateway(plain) as rig:
        answer = await raw(rig.plane.port, head + b"x-smuggled: yes\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert "x-smuggled" not in rig.engines[0].received[0].headers
        many = b"".join(b"x-%d: %b\r\n" % (n, b"a" * 1000) for n in range(100))
        answer = await raw(rig.plane.port, head + many + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 431")


async def test_draining_takes_no_further_request_of_a_kept_connection():
    async def script(received, peer):
        await stream_words(peer, 6, pause_s=0.05)

    body = b'{"model":"m","messages":[],"stream":true}'
    ask = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
    async with run_gateway(script) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        writer.write(ask % (len(body), body))
        await reader.readuntil(b"w0")
        draining = asyncio.create_task(rig.plane.drain(20))
        writer.write(ask % (len(body), body))
        assert await draining == 0
        assert b"[DONE]" in await reader.read()
        assert len(rig.engines[0].received) == 1
        writer.close()


async def test_draining_waits_for_a_large_body_that_is_being_read():
    body = b'{"model":"m","messages":[' + b"1," * 10_000_000 + b"1]}"
    async with run_gateway(plain) as rig:
        asking = asyncio.create_task(rig.client.post("/v1/chat/completions", content=body))
        await until(lambda: rig.plane.in_flight)
        assert await rig.plane.drain(20) == 0
        assert (await asking).status_code == 200


async def test_a_lower_limit_holds_for_heads_that_came_before():
    body = b'{"model":"m","messages":[]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 27\r\n\r\n"
    async with run_gateway(plain) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
        for status in (b"200", b"200", b"431"):
            if status == b"431":
                limits = Limits(max_head_bytes=16)
                rig.plane.configure(replace(rig.plane.settings, limits=limits), None)
            writer.write(head + body)
            assert (await reader.readline()).split()[1] == status
            if status == b"200":
                await reader.readuntil(b'{"ok":true}')
        writer.close()


async def test_a_request_that_waited_behind_another_needs_a_key_that_is_still_known(tmp_path):
    key, other = new_key("a"), new_key("b")
    rings = list[KeyRing]()
    for made in (key, other):
        (tmp_path / "keys").write_text(made.line)
        rings.append(KeyRing.load(tmp_path / "keys"))
    arrived, go = asyncio.Event(), asyncio.Event()

    async def wait(received, peer):
        arrived.set()
        await go.wait()
        await peer.json({"ok": True})

    body = b'{"model":"m","messages":[]}'
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n"
        b"content-length: %d\r\n\r\n%b" % (key.key.encode(), len(body), body)
    )
    async with run_gateway(wait, keys=rings[0]) as rig:
        answers = asyncio.create_task(
            raw(
                rig.plane.port, 2 * request + request.replace(b"host", b"connection: close\r\nhost")
            )
        )
        await arrived.wait()
        rig.plane.configure(rig.plane.settings, rings[1])
        go.set()
        assert (await answers).count(b"HTTP/1.1 401") == 2
        assert len(rig.engines[0].received) == 1
