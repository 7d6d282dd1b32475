"""Requests that the core holds: what becomes of them, and what others notice of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import httpx
import pytest

from headrace.core.events import Arrived, Effect, Ended, FirstToken, Wake
from headrace.core.model import Endpoint, Request
from headrace.gateway import attempt
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.settings import Limits, Timeouts
from tests.gateway.conftest import Rig, run_gateway
from tests.gateway.holding import HoldingCore
from tests.scripted import Peer, Received, Script, chat_chunk, stream_words
from tests.waiting import until

HANG_S = 20


class Gate:
    """Streams that begin, and end once they may."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _received: Received, peer: Peer) -> None:
        await peer.start_stream()
        await peer.event(chat_chunk("first "))
        await self.go.wait()
        await peer.event(chat_chunk("last"))
        await peer.end_stream()


async def words(_received: Received, peer: Peer) -> None:
    await stream_words(peer, 2)


async def plain(_received: Received, peer: Peer) -> None:
    await peer.json({"choices": []})


@asynccontextmanager
async def holding(
    *scripts: Script, limits: Limits | None = None, timeouts: Timeouts | None = None
) -> AsyncIterator[tuple[Rig, HoldingCore]]:
    async with run_gateway(
        *scripts, make_core=HoldingCore, limits=limits, timeouts=timeouts
    ) as rig:
        yield rig, cast("HoldingCore", rig.plane.dispatcher)


@asynccontextmanager
async def held(
    rig: Rig, core: HoldingCore, **body: object
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A chat that is held; others are not."""
    core.holds = True
    task = asyncio.create_task(rig.chat(**body))
    try:
        await until(lambda: rig.plane.held > 0)
        core.holds = False
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def metric(rig: Rig, line: str) -> float:
    text, _ = render(take_snapshot(rig.telemetry, rig.plane.now()), "")
    for each in text.decode().splitlines():
        if each.startswith(line + " "):
            return float(each.rpartition(" ")[2])
    return 0.0


def waited(rig: Rig, result: str, model: str = "m", part: str = "count") -> float:
    labels = f'model_id="{model}",result="{result}",tier="default"'
    return metric(rig, f"headrace_held_seconds_{part}{{{labels}}}")


QUEUE = 'llm_queue_depth{model_id="m",pool="",replica=""}'
OVERLOADED = 'headrace_rejects_total{model_id="m",reason="overloaded"}'


# ---------------------------------------------------------------- let go


@pytest.mark.parametrize("event", [FirstToken, Ended])
async def test_what_another_request_does_can_let_it_go(event):
    gate = Gate()
    async with holding(gate) as (rig, core):
        core.on[event] = core.release
        async with held(rig, core, stream=True) as waiting:
            assert metric(rig, QUEUE) == 1
            assert rig.engines[0].received == []
            other = asyncio.create_task(rig.chat(stream=True))
            if event is Ended:
                await until(lambda: len(rig.engines[0].received) == 1)
                assert rig.plane.held == 1
                gate.go.set()
            await until(lambda: len(rig.engines[0].received) == 2)
            gate.go.set()
            for answer in (await other, await waiting):
                assert answer.status_code == 200
                assert answer.text.endswith("data: [DONE]\n\n")
        assert metric(rig, QUEUE) == 0
        assert waited(rig, "dispatched") == 1
        assert rig.plane.held == rig.plane.in_flight == 0
        assert rig.fleet.replicas["r0"].in_flight == 0


async def test_ttft_is_what_the_client_waited(monkeypatch):
    async with holding(words) as (rig, core):
        async with held(rig, core, stream=True) as waiting:
            started = rig.plane.now
            monkeypatch.setattr(rig.plane, "now", lambda: started() + 50)
            core.on[Wake] = core.release
            rig.plane.apply(Wake())
            assert (await waiting).status_code == 200
        ttft = metric(rig, 'llm_ttft_seconds_sum{model_id="m",pool="p",replica="r0"}')
        assert ttft > 50
        assert waited(rig, "dispatched", part="sum") > 50


async def test_many_are_let_go_at_once():
    async with holding(words) as (rig, core):
        core.holds = True
        asked = [asyncio.create_task(rig.chat(stream=True)) for _ in range(30)]
        await until(lambda: rig.plane.held == 30)
        core.on[Wake] = core.release
        rig.plane.apply(Wake())
        assert {(await each).status_code for each in asked} == {200}
        assert waited(rig, "dispatched") == 30


async def test_a_held_request_can_be_retried_like_any_other():
    async def reset(_received: Received, peer: Peer) -> None:
        peer.reset()

    async with holding(reset, words) as (rig, core):
        async with held(rig, core, stream=True) as waiting:
            core.on[Wake] = core.release
            rig.plane.apply(Wake())
            answer = await waiting
        assert answer.status_code == 200
        assert answer.headers["x-headrace-replica"] == "r1"
        assert waited(rig, "dispatched") == 1


async def test_held_requests_are_not_counted_as_in_flight():
    async with holding(words, limits=Limits(max_in_flight=1)) as (rig, core):
        async with held(rig, core, stream=True):
            assert (await rig.chat(stream=True)).status_code == 200
            assert (await rig.chat(stream=True)).status_code == 200
        assert core.left


# ---------------------------------------------------------------- given up


async def test_a_client_that_leaves_is_told_to_the_core():
    async with holding(words) as (rig, core):
        async with held(rig, core, stream=True) as waiting:
            request_id = next(iter(core.waiting))
            waiting.cancel()
            await until(lambda: core.left == [request_id])
        assert rig.engines[0].received == []
        assert rig.plane.held == rig.plane.in_flight == 0
        assert metric(rig, QUEUE) == 0
        assert waited(rig, "left") == 1


async def test_the_time_for_the_whole_request_goes_on():
    async with holding(words, timeouts=Timeouts(total_s=0.3)) as (rig, core):
        async with held(rig, core) as waiting:
            answer = await waiting
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "upstream_timeout"
        assert len(core.left) == 1
        assert waited(rig, "rejected") == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_time_for_an_engines_first_byte_does_not(streamed):
    timeouts = Timeouts(first_byte_s=0.3, connect_s=0.3, between_bytes_s=0.3)
    script = words if streamed else plain
    async with (
        holding(script, timeouts=timeouts) as (rig, core),
        held(rig, core, stream=streamed) as waiting,
    ):
        await asyncio.sleep(1)
        assert rig.plane.held == 1
        core.on[Wake] = core.release
        rig.plane.apply(Wake())
        assert (await waiting).status_code == 200


async def test_a_slow_or_ready_client_changes_nothing():
    async with holding(words) as (rig, core), held(rig, core, stream=True) as waiting:
        (exchange,) = rig.plane._held.values()
        exchange.client_slow()
        exchange.client_ready()
        core.on[Wake] = core.release
        rig.plane.apply(Wake())
        assert (await waiting).text.endswith("data: [DONE]\n\n")


async def test_what_is_still_held_when_the_gateway_stops_gets_503_and_no_engine():
    gate = Gate()
    async with holding(gate) as (rig, core):
        core.on[Ended] = core.release
        async with held(rig, core, stream=True) as waiting:
            running = asyncio.create_task(rig.chat(stream=True))
            await until(lambda: len(rig.engines[0].received) == 1)
            assert await rig.plane.drain(0.05) == 2
            answer = await waiting
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "gateway_stops"
            assert answer.headers["retry-after"] == "1"
            assert "cut_off" in (await running).text
        assert len(core.left) == 1
        assert len(rig.engines[0].received) == 1
        assert rig.plane.in_flight == 0


async def test_a_drain_waits_for_what_is_held():
    async with holding(words) as (rig, core), held(rig, core, stream=True) as waiting:
        draining = asyncio.create_task(rig.plane.drain(HANG_S))
        await asyncio.sleep(0.05)
        core.on[Wake] = core.release
        rig.plane.apply(Wake())
        assert (await waiting).status_code == 200
        assert await draining == 0


# ---------------------------------------------------------------- refused


async def test_a_request_that_is_shed_is_told_when_to_come_again():
    async with holding(words) as (rig, core):
        async with held(rig, core) as waiting:
            core.on[Wake] = lambda _now: core.refuse(429, "overloaded", 6.6)
            rig.plane.apply(Wake())
            answer = await waiting
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["error"] == {
            "message": "too late",
            "type": "rate_limit_error",
            "param": None,
            "code": "overloaded",
        }
        assert "x-headrace-replica" not in answer.headers
        assert metric(rig, OVERLOADED) == 1
        assert waited(rig, "rejected") == 1


async def test_a_request_that_was_held_too_long():
    async with holding(words) as (rig, core):
        async with held(rig, core) as waiting:
            core.on[Wake] = lambda _now: core.refuse(503, "held_too_long", 2.0)
            rig.plane.apply(Wake())
            answer = await waiting
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"]["type"] == "server_error"


async def test_one_that_leaves_before_it_hears_that_it_was_refused():
    async with holding(words) as (rig, core):
        async with held(rig, core):
            (exchange,) = rig.plane._held.values()
            core.on[Wake] = lambda _now: core.refuse(429, "overloaded", 1.0)
            rig.plane.apply(Wake())
            exchange.client_gone()
            await asyncio.sleep(0.05)
        assert metric(rig, OVERLOADED) == 0
        assert waited(rig, "left") == 1


async def test_requests_that_push_each_other_out_do_not_pile_up_on_the_stack():
    """Each arrival pushes out the one held longest, whose connection has another one ready."""
    clients = 200
    body = b'{"model":"m","messages":[]}'
    asked = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
    async with holding(words) as (rig, core):
        core.holds = True

        def push_out(_now: float) -> list[Effect]:
            return core.refuse(429, "overloaded", 1.0, most=len(core.waiting) - clients)

        core.on[Arrived] = push_out
        async with AsyncExitStack() as stack:
            for _ in range(clients):
                _, writer = await asyncio.open_connection("127.0.0.1", rig.plane.port)
                stack.push_async_callback(writer.wait_closed)
                stack.callback(writer.close)
                writer.write((asked % (len(body), body)) * 2)
            await until(lambda: rig.plane.held == clients)
            assert metric(rig, OVERLOADED) == 0
            # It pushes out the first of the first; the last of the second pushes it out.
            assert (await rig.chat()).status_code == 429
            assert metric(rig, OVERLOADED) == clients + 1
            assert rig.plane.held == clients


# ---------------------------------------------------------------- faults


async def test_a_dispatch_that_nobody_waits_for_takes_no_room():
    async with holding(words) as (rig, _core):
        rig.plane.apply(Arrived(Request("nobody", "m", Endpoint.CHAT, streamed=True)))
        await until(lambda: rig.fleet.replicas["r0"].in_flight == 0)
        assert rig.engines[0].received == []


@pytest.mark.interpreted
async def test_a_fault_in_one_leaves_the_other_alone(monkeypatch, caplog):
    gate = Gate()
    async with holding(gate) as (rig, core):
        core.on[Ended] = core.release
        async with held(rig, core, stream=True) as waiting:
            faulty = next(iter(core.waiting))
            payload_of = attempt.payload_of

            def broken(call, *args, **kwargs):
                if call.request.id == faulty:
                    raise ZeroDivisionError
                return payload_of(call, *args, **kwargs)

            monkeypatch.setattr(attempt, "payload_of", broken)
            other = asyncio.create_task(rig.chat(stream=True))
            await until(lambda: len(rig.engines[0].received) == 1)
            gate.go.set()
            assert (await other).text.endswith("data: [DONE]\n\n")
            answer = await waiting
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "internal"
        assert "could not be sent" in caplog.text
        assert rig.fleet.replicas["r0"].in_flight == 0
        assert rig.plane.in_flight == rig.plane.held == 0
