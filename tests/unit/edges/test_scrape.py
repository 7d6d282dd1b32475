"""The scrape loop against real HTTP."""

import asyncio
import contextlib
import gzip

import pytest

from headrace.edges.http import fetch
from headrace.edges.scrape import Scraper, ScrapeSettings, ScrapeTarget
from headrace.engines.registry import dialect
from tests.scripted import ScriptedEngine

FAST = ScrapeSettings(interval_s=0.02, timeout_s=0.3)
HANG_GUARD_S = 20.0


class Engine:
    """A scripted vLLM whose metrics a test sets."""

    def __init__(self):
        self.waiting = 0
        self.tokens = 0
        self.status = 200
        self.silent = False

    async def script(self, received, peer):
        if self.silent:
            await asyncio.sleep(HANG_GUARD_S)
        text = (
            "# TYPE vllm:num_requests_waiting gauge\n"
            f'vllm:num_requests_waiting{{engine="0",model_name="m"}} {self.waiting}\n'
            "# TYPE vllm:generation_tokens counter\n"
            f'vllm:generation_tokens_total{{engine="0",model_name="m"}} {self.tokens}\n'
        ).encode()
        head = f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(text)}\r\n\r\n"
        await peer.send(head.encode() + text)


class Log:
    def __init__(self):
        self.readings = []
        self.failures = []
        self.news = asyncio.Event()

    def on_reading(self, replica, reading):
        self.readings.append((replica, reading))
        self.news.set()

    def on_failure(self, replica, reason):
        self.failures.append((replica, reason))
        self.news.set()

    async def until(self, condition):
        async with asyncio.timeout(HANG_GUARD_S):
            while not condition():
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def scraping(settings=FAST, **rest):
    log = Log()
    scraper = Scraper(settings, log.on_reading, log.on_failure, **rest)
    try:
        yield scraper, log
    finally:
        await scraper.close()


def target(url, replica="r", engine="vllm", **rest):
    return ScrapeTarget(replica, url, dialect(engine), **rest)


async def test_readings_keep_coming_and_follow_the_engine():
    engine = Engine()
    async with ScriptedEngine(engine.script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url))
        await log.until(lambda: len(log.readings) >= 3)
        engine.waiting = 7
        await log.until(lambda: log.readings[-1][1].queue_depth == 7)
        assert {replica for replica, _ in log.readings} == {"r"}


async def test_a_fault_with_a_reading_does_not_end_the_scraping(caplog, monkeypatch):
    faults = [ZeroDivisionError("odd page")] * 3
    on_reading = Log.on_reading

    def odd(log, replica, reading):
        if faults:
            raise faults.pop()
        on_reading(log, replica, reading)

    monkeypatch.setattr(Log, "on_reading", odd)
    async with ScriptedEngine(Engine().script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url))
        await log.until(lambda: log.readings)
    assert len(log.failures) == 3
    assert "ZeroDivisionError('odd page')" in log.failures[0][1]
    assert caplog.text.count("the metrics of r could not be read") == 1


async def test_the_engines_key_is_sent_along():
    async with ScriptedEngine(Engine().script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url, headers=((b"authorization", b"Bearer k"),)))
        await log.until(lambda: log.readings)
        assert server.received[0].headers["authorization"] == "Bearer k"
        assert server.received[0].target == "/metrics"


async def test_all_paths_of_a_dialect_are_read_as_one():
    async def script(received, peer):
        if received.target == "/slots":
            await peer.json({"error": "off"}, status=501)
        else:
            text = b"# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 3\n"
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)

    async with ScriptedEngine(script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url, engine="llamacpp"))
        await log.until(lambda: log.readings)
        assert log.readings[0][1].queue_depth == 3
        assert {received.target for received in server.received} >= {"/metrics", "/slots"}


async def test_latencies_are_read_where_they_are_asked_for():
    text = b"".join(
        b"vllm:time_to_first_token_seconds%b\n" % row
        for row in (b'_bucket{le="0.5"} 3', b'_bucket{le="+Inf"} 4', b"_sum 2.5", b"_count 4")
    )

    async def script(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)

    found = []
    async with (
        ScriptedEngine(script) as server,
        scraping(on_latencies=lambda *told: found.append(told)) as (scraper, log),
    ):
        scraper.watch(target(server.url, "relayed"))
        scraper.watch(target(server.url, "external", reads_latencies=True))
        await log.until(lambda: len({replica for replica, _ in log.readings}) == 2)
        await log.until(lambda: len(log.readings) > 4)
    assert {replica for replica, _ in found} == {"external"}
    assert found[0][1].ttft.counts == (3, 1)


async def test_failures_say_why_and_end_when_the_engine_is_back():
    engine = Engine()
    engine.status = 503
    async with ScriptedEngine(engine.script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url))
        await log.until(lambda: log.failures)
        assert log.failures[0] == ("r", "/metrics: HTTP 503")
        engine.status = 200
        await log.until(lambda: log.readings)


async def test_nobody_listening_and_an_engine_that_never_answers():
    engine = Engine()
    engine.silent = True
    async with ScriptedEngine(engine.script) as server, scraping() as (scraper, log):
        scraper.watch(target("http://127.0.0.1:1", "gone"))
        scraper.watch(target(server.url, "silent"))
        await log.until(lambda: {"gone", "silent"} <= {replica for replica, _ in log.failures})
        reasons = dict(log.failures)
        assert "no answer within 0.3 s" in reasons["silent"]
        assert not log.readings


async def test_an_answer_without_end_is_cut_off():
    async def script(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.chunk(b"# " + b"x" * 4000 + b"\n")

    settings = ScrapeSettings(interval_s=0.02, max_answer_bytes=100_000)
    async with ScriptedEngine(script) as server, scraping(settings) as (scraper, log):
        scraper.watch(target(server.url))
        await log.until(lambda: log.failures)
        assert "over 100000 bytes" in log.failures[0][1]


@pytest.mark.parametrize(
    ("engine", "text", "said"),
    [
        ("vllm", b"llamacpp:requests_deferred 0\n", "but these are metrics of `engine: llamacpp`"),
        ("vllm", b"<html>Log in</html>\n", "/metrics: nothing in the answer is a metric"),
        ("sglang", gzip.compress(b"sglang:num_running_reqs 3\n"), "nothing in the answer"),
    ],
)
async def test_an_answer_of_something_else_is_a_failure_that_says_so(engine, text, said):
    async def script(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)

    async with ScriptedEngine(script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url, engine=engine))
        await log.until(lambda: log.failures)
        assert said in log.failures[0][1]
        assert not log.readings
        assert server.received[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ("sglang", b""),
        ("sglang", b'# HELP python_info x\npython_info{version="3.12"} 1\n'),
        ("trtllm", b"[]"),
    ],
)
async def test_an_engine_that_has_served_nothing_may_tell_nothing(engine, text):
    async def script(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)

    async with ScriptedEngine(script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url, engine=engine))
        await log.until(lambda: log.readings)
        assert not log.failures


async def test_replicas_come_move_and_go():
    first, second = Engine(), Engine()
    first.waiting, second.waiting = 1, 2
    async with (
        ScriptedEngine(first.script) as one,
        ScriptedEngine(second.script) as two,
        scraping() as (scraper, log),
    ):
        scraper.watch(target(one.url))
        await log.until(lambda: log.readings)
        scraper.watch(target(one.url))  # the same again: no second loop
        scraper.watch(target(two.url))
        log.readings.clear()
        await log.until(lambda: len(log.readings) >= 3)
        assert {reading.queue_depth for _, reading in log.readings} == {2}
        scraper.forget("r")
        scraper.forget("r")
        log.readings.clear()
        await asyncio.sleep(0.1)
        assert log.readings == []


async def test_an_engine_without_metrics_is_left_alone():
    async with ScriptedEngine(Engine().script) as server, scraping() as (scraper, log):
        scraper.watch(target(server.url, engine="openai"))
        await asyncio.sleep(0.1)
        assert server.received == []
        assert not log.failures


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_scrapes_at_once_are_bounded_and_all_get_their_turn(concurrency):
    running, most = 0, 0

    async def slow_get(url, *, timeout_s, headers, max_bytes, tls):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return fetch.FetchResult(200, [], b"vllm:num_requests_waiting 0\n")

    settings = ScrapeSettings(interval_s=0.005, concurrency=concurrency)
    async with scraping(settings, get=slow_get) as (scraper, log):
        for number in range(8):
            scraper.watch(target("http://x", f"r{number}"))
        await log.until(lambda: len({replica for replica, _ in log.readings}) == 8)
    assert most == concurrency
