"""The wired gateway: what fleets report reaches the core, the scraper and the metrics."""

import asyncio
import sys
from dataclasses import replace

import httpx
import pytest

from headrace.compose.serving.wiring import Gateway, GatewayPlan, StartError
from headrace.core.events import ReplicaChanged, ReplicaGone
from headrace.core.model import ReplicaState
from headrace.core.specs import PoolSpec
from headrace.edges.scrape import ScrapeSettings
from headrace.gateway.control import ControlSettings
from headrace.gateway.settings import GatewaySettings, Listener, UpstreamAccess
from headrace.gateway.telemetry import TelemetrySettings
from headrace.gateway.tracing import TracingSettings
from tests.plain_http import NO_TRUST_STORE
from tests.scripted import ScriptedEngine, stream_words

METRICS = b"""\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="m"} 7
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="m"} %d
"""
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


class Metered(ScriptedEngine):
    """Has served `prompt_tokens` so far."""

    def __init__(self) -> None:
        super().__init__(self._script)
        self.prompt_tokens = 100
        self.more = b""
        """Of its metrics."""

    async def _script(self, received, peer):
        if received.target != "/metrics":
            await stream_words(peer, 2)
            return
        body = METRICS % self.prompt_tokens + self.more
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def plan(external: bool = False, control_port: int = 0) -> GatewayPlan:
    return GatewayPlan(
        gateway=GatewaySettings(
            listen=Listener(port=0), upstreams={"p": UpstreamAccess("vllm", "sk-1")}
        ),
        control=ControlSettings(port=control_port),
        pools=(PoolSpec("p", "m"),),
        telemetry=TelemetrySettings(external_pools=frozenset({"p"} if external else ())),
        scrape=ScrapeSettings(interval_s=0.02),
    )


def test_traces_without_the_extra_are_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "headrace.edges.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)  # as if it were not installed
    tracing = TracingSettings(endpoint="http://127.0.0.1:4318")
    with pytest.raises(StartError, match=r"pip install 'headrace\[otel\]'"):
        Gateway(replace(plan(), tracing=tracing))


@pytest.fixture
async def engine():
    async with Metered() as metered:
        yield metered


async def started(gateway: Gateway, url: str) -> None:
    await gateway.start()
    gateway.apply(ReplicaChanged("r", "p", url, ready=True))


async def metrics(gateway: Gateway) -> dict[str, float]:
    async with httpx.AsyncClient(trust_env=False, verify=NO_TRUST_STORE) as client:
        text = (await client.get(f"{gateway.control_url}/metrics")).text
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


async def until(predicate):
    async with asyncio.timeout(20):
        while not await predicate():
            await asyncio.sleep(0.02)


async def test_a_scrape_reaches_routing_and_metrics(engine):
    gateway = Gateway(plan())
    try:
        await started(gateway, engine.url)
        replica = gateway.dispatcher.fleet.replicas["r"]

        async def scraped():
            return replica.report.queue_depth == 7

        await until(scraped)
        assert (await metrics(gateway))['llm_queue_depth{model_id="m",pool="p",replica="r"}'] == 7
        assert engine.received[0].headers["authorization"] == "Bearer sk-1"
    finally:
        await gateway.close()


async def test_a_replica_that_is_gone_is_gone_everywhere(engine):
    gateway = Gateway(plan())
    try:
        await started(gateway, engine.url)
        assert any('replica="r"' in name for name in await metrics(gateway))
        gateway.apply(ReplicaGone("r"))
        assert "r" not in gateway.dispatcher.fleet.replicas
        assert not any('replica="r"' in name for name in await metrics(gateway))
        assert gateway.not_ready_reason() == "no replica is ready"
    finally:
        await gateway.close()


async def test_an_external_pool_is_measured_and_gets_no_requests(engine):
    gateway = Gateway(plan(external=True))
    try:
        await started(gateway, engine.url)
        assert gateway.dispatcher.fleet.replicas["r"].state is ReplicaState.DRAINING
        async with httpx.AsyncClient(trust_env=False, verify=NO_TRUST_STORE) as client:
            answer = await client.post(f"{gateway.url}/v1/chat/completions", json=CHAT)
        assert answer.status_code == 503

        async def seen():
            return any(request.target == "/metrics" for request in engine.received)

        await until(seen)
        before = len(engine.received)

        async def seen_again():
            return len(engine.received) > before + 1

        await until(seen_again)
        engine.prompt_tokens = 150
        name = 'llm_tokens_processed_total{model_id="m",pool="p",replica="r",token_type="input"}'

        async def counted():
            return (await metrics(gateway)).get(name) == 50

        await until(counted)
    finally:
        await gateway.close()


async def test_latencies_of_an_external_pool_are_its_engines(engine):
    name = b"vllm:time_to_first_token_seconds"
    page = b'%b_bucket{le="0.5"} %d\n%b_bucket{le="+Inf"} %d\n%b_sum %f\n'
    engine.more = page % (name, 5, name, 7, name, 11.0)
    gateway = Gateway(plan(external=True))
    labels = '{model_id="m",pool="p",replica="r"}'
    try:
        await started(gateway, engine.url)

        async def seen():  # the first answer is in when a second is asked for
            return sum(request.target == "/metrics" for request in engine.received) > 1

        await until(seen)
        engine.more = page % (name, 8, name, 10, name, 11.75)

        async def counted():
            return (await metrics(gateway)).get(f"llm_ttft_seconds_count{labels}") == 3

        await until(counted)
        told = await metrics(gateway)
        assert told[f"llm_ttft_seconds_sum{labels}"] == pytest.approx(0.75)
        assert told[f"llm_ttft_p95_seconds{labels}"] == pytest.approx(0.25, rel=0.01)
    finally:
        await gateway.close()


async def test_a_control_port_that_is_taken_leaves_nothing_open():
    holder = Gateway(plan())
    await holder.start()
    try:
        taken = int(holder.control_url.rpartition(":")[2])
        with pytest.raises(StartError, match=rf"port {taken} on 127\.0\.0\.1.*--control-port"):
            await Gateway(plan(control_port=taken)).start()
    finally:
        await holder.close()
