"""With or without its shortcuts the byte path does the same.

Streams and whole answers of all kinds, damaged and cut anywhere, one after another on connections
that are kept alive: the client gets the same bytes, and the core and the metrics the same figures,
whether chunks pass by comparison and heads are known, or everything goes the long way. A real data
plane serves them; nothing stands in but the core, the wires and the clock.

Shortcuts are counted and taken away by replacing methods, which a compiled build does not let
happen. It is held against the interpreted long way, in another process (`tell`, called by
tests/acceptance/test_compiled.py).
"""

import asyncio
import hashlib
import random
import re
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import Arrived, ConfigChanged, Dispatch, Effect, Event, ReplicaChanged
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from headrace.edges.http import client, connection, upstream_connection
from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.known_heads import KnownHeads, KnownStreamHead
from headrace.edges.http.upstream_connection import UpstreamConnection
from headrace.gateway import steady
from headrace.gateway.attempt import Attempt
from headrace.gateway.server import DataPlane
from headrace.gateway.settings import GatewaySettings, Limits, Timeouts, UpstreamAccess
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.property.test_http_requests import Wire

CONVERSATIONS = 300
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_SIZE_LINE = re.compile(rb"\r\n0*([0-9A-Fa-f]{1,8})\r\n")


def _plain_line(line):
    return b"\r\n%b\r\n" % line[1].lower()


def made_fleet():
    core = Dispatcher(DispatcherSettings(), random.Random(1))
    core.handle(ConfigChanged((PoolSpec("p", "m"),), ()), 0.0)
    core.handle(ReplicaChanged("p-0", "p", "http://127.0.0.1:1", ready=True), 0.0)
    return core.fleet


FLEET = made_fleet()


class RefusingLoop:
    """An event loop that runs a task when it is made, and whose connections are all refused."""

    async def create_connection(self, *_args, **_kwargs):
        raise ConnectionRefusedError(111, "refused")

    def create_task(self, coroutine):
        with pytest.raises(StopIteration):
            coroutine.send(None)
        return SimpleNamespace(cancel=lambda: None)


class LoggingCore:
    """Sends every request to the one replica, and keeps what it is told."""

    def __init__(self, log) -> None:
        self.fleet = FLEET
        self.held: dict[str, int] = {}
        self._log = log
        self._attempts = 0

    def handle(self, event: Event, now: float) -> list[Effect]:
        self._log.append(repr(event))
        if not isinstance(event, Arrived):
            return []
        self._attempts += 1
        return [Dispatch(event.request.id, self._attempts, "p", "p-0", "m", 7)]

    def held_for(self, request_id):
        return ""


class Side:
    """A gateway with one client connection and one engine connection, kept alive where they may."""

    def __init__(self, engine) -> None:
        self.now_s = 1000.0
        self.log = []
        settings = GatewaySettings(
            limits=Limits(max_connections_per_client=1, idle_connections_per_replica=5),
            timeouts=Timeouts(between_bytes_s=2.5, upstream_idle_s=1e12),
            upstreams={"p": UpstreamAccess(engine=engine)},
        )
        self.telemetry = Telemetry(TelemetrySettings(), self.now)
        self.plane = DataPlane(settings, LoggingCore(self.log), self.telemetry)
        self.plane.now = self.now
        self.plane._front._id_prefix = "r"  # else a random one, and another on each side
        self._address = self.plane.upstream("p").address(FLEET.replicas["p-0"].url)
        self._connect()

    def now(self):
        return self.now_s

    def play(self, request, steps):
        if self._wire.closed or self._client._current is not None:
            self._hang_up()
            self._connect()
        pool = self.plane.pool
        if not pool._idle.get(self._address):
            idle = UpstreamConnection(pool, self._address)
            idle.connection_made(Wire())
            pool.release(idle)
        self._client.data_received(request)
        (self._exchange,) = self.plane._exchanges.values()
        assert self._exchange._attempt is not None
        call = self._exchange._attempt._upstream_call
        assert call is not None
        assert call.connection is not None
        self._engine = call.connection
        for span_s, step in steps:
            self.now_s += span_s
            self._take(step)
        self.log.append((self._client._current is None, self._wire.closed, pool.count()))

    def _take(self, step):
        engine, there = self._engine, self._client._transport is not None
        if isinstance(step, bytes) and engine.transport is not None:
            engine.data_received(step)
        elif step == "engine gone":
            engine.connection_lost(None)
        elif step == "tick":
            for progress in self.telemetry.tick(self.now_s):
                self.plane.apply(progress, self.now_s)
            self.log += [series.output_tokens.value for series in self.telemetry.series]
        elif step == "check":
            self._exchange.check(self.now_s)
        elif step == "client slow" and there and not self._client._slow:
            self._client.pause_writing()
        elif step == "client ready" and there and self._client._slow:
            self._client.resume_writing()
        elif step == "client gone":
            self._hang_up()
            self._wire.closed = True
        if engine.transport is not None and engine.transport.is_closing():
            engine.connection_lost(None)

    def _connect(self):
        self._wire, self._client = Wire(), ClientConnection(self.plane._server)
        self._client.connection_made(self._wire)

    def _hang_up(self):
        if self._client._transport is not None:
            self._client.connection_lost(None)
            # An engine's own size line may pass where ours would be written another way.
            self.log.append(_SIZE_LINE.sub(_plain_line, self._wire.written))

    def outcome(self):
        self._hang_up()
        self.telemetry.flush(self.now_s)
        figures = [
            (
                [*series.ttft.counts, *series.tpot.counts, *series.itl.counts],
                [round(each.total, 6) for each in (series.ttft, series.tpot, series.itl)],
                [series.input_tokens, series.cached_tokens, series.output_tokens.value],
                [series.output_tokens.debt, series.aborted_output_tokens, series.in_flight],
                [series.requests, series.usage_missing],
            )
            for series in self.telemetry.series
        ]
        return self.log, figures, self.plane._server.buffered_bytes


# ---------------------------------------------------------------- what is sent

PLAIN = (b" the", b"a", "größer".encode())
ODD = (
    b"",
    rb"\n",
    rb"\"",
    b"[DONE]",
    b"\x7f",
    rb"\"usage\":{}",
    b"x" * 3000,
    b"]",
    b"\xff",
    b"a\n\ndata: b",
    b"a\rb",
)
DELTAS = (
    b'"content":"W"',
    b'"reasoning_content":"W"',
    b'"reasoning_content":null,"content":"W"',
    b'"tool_calls":[{"function":{"arguments":"W"}}]',
    b'"content":"","reasoning":"W"',
)
EVENTS = (
    b'data: {"choices":[C],"usage":null}\n\n',
    b'data: {"choices":[C],"usage":{"prompt_tokens":9,"completion_tokens":5}}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":30}}\n\n',
    b'data: {"choices":[C,C]}\n\n',
    b'data: {"choices":[C]}\n\ndata: {"choices":[C]}\n\n',
    b'data: {"choices":[C]}\r\n\r\n',
    b'data: {"choices":[C]}\n',
    b'data: {"choices":[C]}\n\n\n',
    b'data: {"error":{"message":"x"}}\n\n',
    b"data: [DONE]\n\n",
    b": ping\n\n",
    b"\n",
    b"data: {not json\n\n",
)
FRAMES = (b"%X\r\n%b\r\n", b"00%x\r\n%b\r\n", b"%x;a=b\r\n%b\r\n", b"%x\n%b\r\n", b"%x\r\n%b\n")
ENDS = (b"0\r\n\r\n",) * 6 + (
    b"0\r\nx: y\r\n\r\n",
    b"",
    b"0\r\n",
    b"0\r\n\r\nHTTP/1.1 200",
    b"z\r\n",
)
STEPS = (
    "tick",
    "tick",
    "check",
    "client slow",
    "client ready",
    "check",
    "client gone",
    "engine gone",
)
BODIES = (b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}', b'{"id":"resp_1"}', b"junk", b"")


def event(rng: random.Random, oddness: float, deltas) -> bytes:
    shape = b'data: {"choices":[C]}\n\n' if rng.random() > oddness else rng.choice(EVENTS)
    words = rng.choice(PLAIN) if rng.random() > oddness else rng.choice(ODD)
    choice = b'{"index":0,"delta":{%b}}' % rng.choice(deltas).replace(b"W", words)
    return shape.replace(b"C", choice)


def stream(rng: random.Random) -> list[bytes]:
    oddness, damage = rng.choice([0.03, 0.1, 0.5]), rng.choice([0, 0, 0, 0.05])
    deltas = rng.sample(DELTAS, rng.choice([1, 1, 2]))
    events = [event(rng, oddness, deltas) for _ in range(rng.randrange(1, 30))]
    reads = [STREAM_HEAD + b"transfer-encoding: chunked\r\n\r\n"]
    for each in [*events, b"data: [DONE]\n\n"]:
        frame = rng.choice(FRAMES) if rng.random() < damage else b"%x\r\n%b\r\n"
        size = len(each) - (rng.random() < damage)
        reads.append(frame % (size, each))
    return [*reads, rng.choice(ENDS)]


def whole(rng: random.Random) -> list[bytes]:
    body = rng.choice(BODIES)
    status = rng.choice([b"200 OK"] * 8 + [b"201 Created", b"400 Bad", b"500 Oops"])
    length = rng.choice([b"%d" % len(body)] * 8 + [b"0%d" % len(body), b"%d" % (len(body) + 1)])
    field = rng.choice([b""] * 8 + [b"connection: close\r\n", b"connection: keep-alive\r\n"])
    fields = b"content-type: application/json\r\n%bcontent-length: %b\r\n\r\n" % (field, length)
    before = b"HTTP/1.1 100 Continue\r\n\r\n" if rng.random() < 0.05 else b""
    after = rng.choice([b"HTTP/1.1 2", b"\r\n", b"x"]) if rng.random() < 0.05 else b""
    return [before + b"HTTP/1.1 %b\r\n%b%b%b" % (status, fields, body, after)]


def cut_anew(rng: random.Random, reads: list[bytes]) -> list[bytes]:
    data = b"".join(reads)
    edges = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(8)))
    return [data[a:b] for a, b in pairwise([0, *edges, len(data)])]


def together(rng: random.Random, reads: list[bytes]) -> list[bytes]:
    """Some of them with the one before, as they are read by whoever is late."""
    joined = reads[:1]
    for read in reads[1:]:
        if rng.random() < 0.3:
            joined[-1] += read
        else:
            joined.append(read)
    return joined


def exchange(rng: random.Random):
    streamed = rng.random() < 0.5
    members = b',"stream":true' if streamed else b""
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]%b}' % members
    version, field = rng.choice(
        [(b"1.1", b"")] * 8 + [(b"1.0", b""), (b"1.1", b"Connection: close\r\n")]
    )
    fields = b"Host: a\r\n%bContent-Length: %d\r\n\r\n" % (field, len(body))
    request = b"POST /v1/chat/completions HTTP/%b\r\n%b%b" % (version, fields, body)
    reads = stream(rng) if streamed or rng.random() < 0.1 else whole(rng)
    way = rng.random()
    if way < 0.6:
        reads = (cut_anew if way < 0.3 else together)(rng, reads)
    steps = []
    for read in filter(None, reads):
        steps.append((rng.choice([0, 0.001, 0.02, 0.3, 2.0]), read))
        if rng.random() < 0.15:
            steps.append(
                (
                    rng.choice([0.01, 0.3, 30.0] if rng.random() < 0.1 else [0.01, 0.3]),
                    rng.choice(STEPS),
                )
            )
    return request, [*steps, (0.5, "client ready")]


def conversations(seed):
    """Each as an engine's name and what is played with it."""
    rng = random.Random(seed)
    for _ in range(CONVERSATIONS // 3):
        played = [exchange(rng) for _ in range(rng.randrange(1, 6))]
        yield rng.choice(["vllm", "vllm", "sglang", "tgi", "llamacpp"]), played


def outcome(engine, played, patch, clock=lambda side: side.now):
    """What comes of a conversation; `clock` makes the one that times the chunks that pass."""
    side = Side(engine)
    for module in (time, client, connection):
        patch.setattr(module, "monotonic", side.now)
    patch.setattr(steady, "monotonic", clock(side))
    patch.setattr(asyncio, "get_running_loop", RefusingLoop)
    for request, steps in played:
        side.play(request, steps)
    return side.outcome()


def without_shortcuts(patch):
    for heads in (KnownHeads, KnownStreamHead):
        patch.setattr(heads, "match", lambda *_: None)
    patch.setattr(Attempt, "_flow", lambda *_: None)
    patch.setattr(upstream_connection, "chunk_start", lambda _: 0)


def tell(seed, *, shortcuts):
    """Print a digest of what comes of each conversation, and last how many chunks passed."""
    passed = 0

    def clock(side):
        def now():
            nonlocal passed
            passed += 1
            return side.now_s

        return now

    for engine, played in conversations(seed):
        with pytest.MonkeyPatch.context() as patch:
            if not shortcuts:
                without_shortcuts(patch)
            told = repr(outcome(engine, played, patch, clock))
        print(hashlib.sha256(told.encode()).hexdigest())
    print(passed)


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", range(3))
def test_the_shortcuts_change_nothing(seed, monkeypatch):
    passed, at_once, known, begun = 0, 0, 0, 0
    for engine, played in conversations(seed):
        outcomes = []
        for shortcuts in (True, False):
            with monkeypatch.context() as patch:
                takes = counting(patch, steady.Steady, "takes")
                several = counting(patch, steady.Steady, "_takes_several")
                match = counting(patch, KnownHeads, "match")
                begins = counting(patch, KnownStreamHead, "match")
                if not shortcuts:
                    without_shortcuts(patch)
                outcomes.append(outcome(engine, played, patch))
            passed, at_once = passed + takes[0], at_once + several[0]
            known, begun = known + match[0], begun + begins[0]
        assert outcomes[0] == outcomes[1]
    assert passed > CONVERSATIONS // 3
    assert at_once > CONVERSATIONS // 100
    assert known > CONVERSATIONS // 6
    assert begun > CONVERSATIONS // 10


def counting(patch, owner, name):
    """Count how often a method says yes."""
    count, method = [0], getattr(owner, name)

    def counted(*args):
        answer = method(*args)
        count[0] += bool(answer)
        return answer

    patch.setattr(owner, name, counted)
    return count
