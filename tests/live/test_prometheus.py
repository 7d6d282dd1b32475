"""A real Prometheus reads the true numbers, while answers are still running."""

import asyncio
import contextlib
import time

import httpx
import pytest

from headrace.core.model import Endpoint, Outcome, Usage
from headrace.gateway.metrics.external import PushedReport
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.control_plane import ShownGateway, running_control
from tests.fleet_parts import add_replica, make_fleet, remove_replica, report
from tests.plain_http import NO_TRUST_STORE
from tests.prometheus_server import running_prometheus

pytestmark = pytest.mark.prometheus

OUTPUT_RATE = 'sum(rate(llm_tokens_processed_total{token_type="output"}[10s]))'
QUEUE = 'sum(llm_queue_depth{model_id="m"})'


class Gateway:
    """Telemetry of one gateway over two replicas, fed as a relay and a core would."""

    def __init__(self, *, engine_gauges):
        self.fleet = make_fleet(p=("m", 2))
        settings = TelemetrySettings(engine_gauges=engine_gauges)
        self.telemetry = Telemetry(settings, time.monotonic, self.fleet)

    def begin(self, replica, now):
        return self.telemetry.begin(
            "m",
            "p",
            replica,
            attempt=1,
            received_s=now - 0.2,
            streamed=True,
            endpoint=Endpoint.CHAT,
        )

    async def stream(self, replica, tokens_per_second):
        """One answer that does not end by itself, true to the clock however late this task gets
        its turn.
        """
        begun_s = time.monotonic()
        meter = self.begin(replica, begun_s)
        sent = 0
        try:
            while True:
                await asyncio.sleep(0.02)
                now = time.monotonic()
                due = int((now - begun_s) * tokens_per_second)
                if due > sent:
                    meter.content(now, due - sent)
                    sent = due
        finally:
            meter.finish(Outcome.ABORTED, None, time.monotonic())

    async def look(self, **queue_depths):
        """Both replicas are scraped again and again."""
        while True:
            for name, depth in queue_depths.items():
                replica = self.fleet.replicas.get(name.replace("_", "-"))
                if replica is not None:
                    report(replica, time.monotonic(), queue_depth=depth, kv_usage_ratio=0.5)
            await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def running(*coroutines):
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_queries_people_scale_by_are_true_with_two_gateways(prometheus_binary, tmp_path):
    first, second = Gateway(engine_gauges=True), Gateway(engine_gauges=False)
    first.telemetry.held = lambda: {"m": 2}
    second.telemetry.held = lambda: {"m": 1}
    async with (
        running_control(ShownGateway(first.telemetry)) as one,
        running_control(ShownGateway(second.telemetry)) as two,
        running_prometheus(
            prometheus_binary,
            [url.removeprefix("http://") for url in (one.url, two.url)],
            tmp_path,
            scrape_interval="500ms",
        ) as prometheus,
        running(first.stream("p-0", 50)) as (last_answer,),
        running(
            second.stream("p-0", 30),
            second.stream("p-1", 20),
            first.look(p_0=4, p_1=1),
            second.look(p_0=4, p_1=1),
        ),
    ):
        await prometheus.until(QUEUE, 4 + 1 + 2 + 1)
        await asyncio.sleep(11)  # a whole window of the rate
        assert await prometheus.value(OUTPUT_RATE) == pytest.approx(100, rel=0.1)
        assert await prometheus.value("sum(llm_tokens_per_second)") == pytest.approx(100, rel=0.1)
        assert await prometheus.value("max(llm_kv_cache_usage_ratio)") == 0.5
        own_p95 = max(
            p95
            for gateway in (first, second)
            for series in gateway.telemetry.series
            if (p95 := series.ttft_recent.quantile(0.95, time.monotonic())) is not None
        )
        assert await prometheus.value("max(llm_ttft_p95_seconds)") == pytest.approx(own_p95)

        remove_replica(first.fleet, "p-0")
        first.telemetry.forget("p-0")
        await prometheus.until(QUEUE, 1 + 2 + 1)  # its gauges vanish at once
        last_answer.cancel()  # its counters when the last answer is accounted
        await prometheus.until('count(llm_ttft_seconds_count{replica="p-0"})', 1)
        gone = await prometheus.query(
            'count({replica="p-0",__name__=~"llm_.*"}) by (instance)',
        )
        assert [dict(labels)["instance"] for labels in gone] == [two.url.removeprefix("http://")]


async def test_a_replica_back_under_its_name_is_a_counter_that_restarts(
    prometheus_binary, tmp_path
):
    gateway = Gateway(engine_gauges=True)
    counter = 'llm_tokens_processed_total{replica="p-0",token_type="output"}'

    def complete(tokens):
        gateway.begin("p-0", 0.0).finish(Outcome.COMPLETED, Usage(1, tokens), time.monotonic())

    async with (
        running_control(ShownGateway(gateway.telemetry)) as control,
        running_prometheus(
            prometheus_binary,
            [control.url.removeprefix("http://")],
            tmp_path,
            scrape_interval="500ms",
        ) as prometheus,
    ):
        await prometheus.until(counter, 0)
        complete(500)
        await prometheus.until(counter, 500)
        replica = remove_replica(gateway.fleet, "p-0")
        gateway.telemetry.forget("p-0")
        add_replica(gateway.fleet, replica.pool, "p-0")
        await prometheus.until(counter, 0)
        complete(40)
        await prometheus.until(counter, 40)
        seen = f"max_over_time({counter}[1m]) + {counter}"
        assert await prometheus.value(seen) == 540
        assert await prometheus.value(f"resets({counter}[1m])") == 1
        increase = await prometheus.value(f"increase({counter}[1m])")
        assert increase is not None
        assert increase >= 540


async def test_promtool_finds_nothing_wrong_with_the_metrics(promtool_binary):
    gateway = Gateway(engine_gauges=True)
    telemetry = gateway.telemetry
    now = time.monotonic()
    report(gateway.fleet.replicas["p-0"], now, queue_depth=1, running=1, kv_usage_ratio=0.5)
    telemetry.push(PushedReport("m", queue_depth=1), gateway.fleet.replicas["p-1"], now)
    telemetry.reject("overloaded", "m")
    telemetry.connections = lambda: {"client": 3}
    for outcome in Outcome:
        meter = gateway.begin("p-0", now)
        meter.content(now)
        meter.content(now + 0.05)
        meter.finish(outcome, None, now + 1, retried=outcome is Outcome.UNAVAILABLE)
    meter = gateway.begin("p-0", now)
    meter.content(now, chunks=2)
    meter.finish(Outcome.COMPLETED, Usage(9, 5, 4), now + 1)
    async with (
        running_control(ShownGateway(telemetry)) as control,
        httpx.AsyncClient(base_url=control.url, verify=NO_TRUST_STORE) as client,
    ):
        text = (await client.get("/metrics")).content
    assert text.count(b"# TYPE headrace_") + text.count(b"# TYPE llm_") > 20
    process = await asyncio.create_subprocess_exec(
        str(promtool_binary.path),
        "check",
        "metrics",
        env=promtool_binary.env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(text)
    assert (process.returncode, output.decode()) == (0, "")
