"""The control plane over its real listener."""

import asyncio
import signal
import socket

import httpx
import pytest

from headrace.core.decisions import Explanation
from headrace.core.specs import Alias, Target
from headrace.gateway.control import MAX_BODY_BYTES, ControlSettings, is_loopback, make_control_app
from headrace.gateway.control_server import serve_control
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.control_plane import ShownGateway, running_control
from tests.fleet_parts import make_fleet, report
from tests.plain_http import NO_TRUST_STORE

NOW = 500.0
PROMISE = (0.0, "default", 2.0, 0.05)
PUSH = {"modelId": "m", "outputTokens": 3}


@pytest.fixture
def gateway():
    fleet = make_fleet(p=("m", 2))
    settings = TelemetrySettings(external_pools=frozenset({"p"}))
    return ShownGateway(Telemetry(settings, lambda: NOW, fleet))


@pytest.fixture
async def client(gateway):
    async with (
        running_control(gateway) as server,
        httpx.AsyncClient(base_url=server.url, verify=NO_TRUST_STORE) as client,
    ):
        yield client


async def test_the_index_lists_what_there_is(client):
    answer = await client.get("/")
    assert answer.status_code == 200
    for path in ("/metrics", "/api/v1/fleet", "/api/v1/decisions/{id}", "/telemetry", "/ready"):
        assert path in answer.text


async def test_metrics_in_the_format_asked_for(client):
    text = await client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'llm_queue_depth{model_id="m",pool="",replica=""} 0.0' in text.text
    asked = {"accept": "application/openmetrics-text;version=1.0.0"}
    openmetrics = await client.get("/metrics", headers=asked)
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_many_readers_at_once(client):
    answers = await asyncio.gather(*(client.get("/metrics") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}


async def test_ready_says_why_not(client, gateway):
    assert (await client.get("/ready")).status_code == 200
    gateway.reason = "draining"
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert "draining" in answer.text
    assert (await client.get("/health")).status_code == 200


async def test_the_fleet_shows_how_many_sequences_run_side_by_side_and_whose_word_it_is(
    client, gateway
):
    telling, learned = gateway.telemetry.fleet.replicas.values()
    report(telling, NOW, max_sequences=4.0)
    telling.max_sequences, learned.max_sequences = 4.0, 8.0

    async def shown() -> list[tuple[float | None, bool]]:
        (pool,) = (await client.get("/api/v1/fleet")).json()["pools"]
        return [(each["max_sequences"], each["max_sequences_learned"]) for each in pool["replicas"]]

    assert await shown() == [(4.0, False), (8.0, True)]
    learned.max_sequences = None
    assert await shown() == [(4.0, False), (None, False)]


async def test_the_fleet(client, gateway):
    fleet = gateway.telemetry.fleet
    fleet.aliases["gpt"] = Alias("gpt", (Target("m", 0.9), Target("n", 0.1)), ("m",))
    fleet.replicas["p-0"].in_flight = 2
    report(fleet.replicas["p-0"], NOW - 1, queue_depth=5, kv_usage_ratio=0.25)
    shown = (await client.get("/api/v1/fleet")).json()
    (pool,) = shown["pools"]
    assert (pool["name"], pool["model"], pool["policy"]) == ("p", "m", "seconds")
    assert "latency_source" in pool
    first, second = pool["replicas"]
    assert (first["state"], first["in_flight"], first["queue_depth"]) == ("ready", 2, 5)
    assert (first["kv_usage_ratio"], first["scrape_age_s"]) == (0.25, 1.0)
    assert (second["gauges_estimated"], second["scrape_age_s"]) == (True, None)
    gateway.telemetry.troubles.note("p-1", "answers 503 to /health", NOW - 2)
    (pool,) = (await client.get("/api/v1/fleet")).json()["pools"]
    first, second = pool["replicas"]
    assert (first["last_error"], first["last_error_age_s"]) == (None, None)
    assert (second["last_error"], second["last_error_age_s"]) == ("answers 503 to /health", 2.0)
    assert shown["aliases"][0]["targets"] == [
        {"model": "m", "weight": 0.9},
        {"model": "n", "weight": 0.1},
    ]


async def test_a_decision_by_its_id_even_one_with_slashes(client, gateway):
    told = Explanation("r1", "mine/7", "m", NOW - 3, 40, (), "", "no replica was ready", *PROMISE)
    gateway.explanations = {"r1": told, "mine/7": told}
    for request_id in ("r1", "mine/7", "mine%2F7"):
        shown = (await client.get(f"/api/v1/decisions/{request_id}")).json()
        assert shown["request_id"] == "r1"
        assert shown["reason"] == "no replica was ready"
        assert shown["age_s"] == 3.0
    missing = await client.get("/api/v1/decisions/nobody")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "decision_not_found"
    assert "'nobody'" in missing.json()["error"]["message"]
    assert "refused before it was routed" in missing.json()["error"]["message"]


async def test_the_last_decision_needs_no_id(gateway, client):
    before = await client.get("/api/v1/decisions/last")
    assert before.status_code == 404
    assert "no request was routed yet" in before.json()["error"]["message"]
    gateway.explanations["a"] = Explanation("a", "", "m", 0.0, 1, (), "", "", *PROMISE)
    assert (await client.get("/api/v1/decisions/last")).json()["request_id"] == "a"


async def test_a_push_is_counted_and_answered(client):
    answer = await client.post("/telemetry", json=[PUSH | {"replica": "p-1", "eventId": "1"}] * 2)
    assert answer.status_code == 200
    assert answer.json() == {"accepted": 1, "duplicates": 1, "ignored": []}
    counter = 'llm_tokens_processed_total{model_id="m",pool="p",replica="p-1",token_type="output"}'
    assert f"{counter} 3.0" in (await client.get("/metrics")).text


async def test_a_wrong_push_names_field_value_and_remedy(client):
    answer = await client.post("/telemetry", json=PUSH | {"kvCacheOccupancy": 70})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "kvCacheOccupancy"
    assert error["type"] == "invalid_request_error"
    assert "is 70; give a share from 0 to 1" in error["message"]


async def test_a_body_over_the_limit_is_refused(client):
    async def endless():
        for _ in range(2 * MAX_BODY_BYTES // 65536):
            yield b" " * 65536

    headers = {"content-type": "application/json"}
    answer = await client.post("/telemetry", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["error"]["message"]


async def test_a_sender_that_goes_away_is_no_fault_of_ours(gateway):
    """Whatever is raised is printed by the server, a page for each such sender."""
    app = make_control_app(gateway, ControlSettings())
    fields = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/telemetry", "headers": fields}
    told = [{"type": "http.request", "body": b"[", "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return told.pop(0)

    async def send(message):
        sent.append(message)

    await app(scope | {"query_string": b"", "root_path": ""}, receive, send)
    assert sent[0]["status"] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/telemetry", 405), ("POST", "/metrics", 405)],
)
async def test_errors_have_the_openai_shape(client, method, path, status):
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


# ---------------------------------------------------------------- who may


async def test_a_web_page_cannot_write_without_asking(client):
    body = b'{"modelId":"m"}'
    answer = await client.post("/telemetry", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    preflight = await client.options(
        "/telemetry",
        headers={"origin": "http://evil.example", "access-control-request-method": "POST"},
    )
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9091", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1", 200),
        ("[::1]:9091", 200),
        ("evil.example:9091", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
async def test_on_loopback_only_loopback_names_are_answered(client, host, status):
    answer = await client.get("/metrics", headers={"host": host})
    assert answer.status_code == status


async def test_a_token_is_asked_for_what_writes_and_only_that(gateway):
    async with (
        running_control(gateway, token="s3cret") as server,
        httpx.AsyncClient(base_url=server.url, verify=NO_TRUST_STORE) as client,
    ):
        assert (await client.get("/metrics")).status_code == 200
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            answer = await client.post("/telemetry", json=PUSH, headers=given)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
        right = {"authorization": "Bearer s3cret"}
        written = PUSH | {"replica": "p-0"}
        assert (await client.post("/telemetry", json=written, headers=right)).status_code == 200


async def test_off_loopback_nothing_is_written_without_a_token(gateway):
    app = make_control_app(gateway, ControlSettings(host="0.0.0.0"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gw.example") as client:
        assert (await client.get("/metrics")).status_code == 200
        answer = await client.post("/telemetry", json=PUSH)
        assert answer.status_code == 403
        assert "token" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("gw.example", False),
    ],
)
def test_what_is_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_the_token_is_not_shown():
    assert "s3cret" not in repr(ControlSettings(token="s3cret"))


# ---------------------------------------------------------------- the listener


async def test_a_port_that_is_taken_is_an_error_of_the_caller(gateway):
    settings = ControlSettings()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ControlSettings(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await serve_control(make_control_app(gateway, settings), settings)


async def test_signals_stay_the_programs_own_and_the_port_is_free_again(gateway):
    before = signal.getsignal(signal.SIGTERM)
    async with running_control(gateway) as server:
        assert signal.getsignal(signal.SIGTERM) is before
        port = server.port
    with socket.create_server(("127.0.0.1", port)):
        pass
