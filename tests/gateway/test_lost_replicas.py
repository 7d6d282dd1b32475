"""Requests whose replica goes away under them, in a pool that waits for the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from headrace.core.events import ConfigChanged, ReplicaChanged, ReplicaGone
from headrace.core.specs import PoolSpec
from tests.gateway.conftest import Rig, run_gateway
from tests.gateway.test_holding import QUEUE, metric, until, waited
from tests.scripted import Peer, Received, ScriptedEngine, stream_words

LOST = 'headrace_retries_total{model_id="m",outcome="unavailable",pool="p",replica="r0"}'


@asynccontextmanager
async def losing(
    *, stream: bool, requests: int = 1
) -> AsyncIterator[tuple[Rig, list[asyncio.Task[httpx.Response]]]]:
    """Requests at a replica that is gone: it breaks off and takes no connection more."""
    there = asyncio.Event()

    async def go(_received: Received, peer: Peer) -> None:
        await there.wait()
        peer.reset()

    async with run_gateway(go) as rig:
        rig.plane.apply(ConfigChanged((PoolSpec("p", "m", wait_for_replica_s=3600.0),), ()))
        asked = [asyncio.create_task(rig.chat(stream=stream)) for _ in range(requests)]
        await until(lambda: len(rig.engines[0].received) == requests)
        server = rig.engines[0]._server
        assert server is not None
        server.close()
        there.set()
        await until(lambda: rig.plane.held == requests)
        yield rig, asked


async def words(received: Received, peer: Peer) -> None:
    if b'"stream":true' in received.body:
        await stream_words(peer, 2)
    else:
        await peer.json({"choices": [{"message": {"content": "ok"}}]})


@pytest.mark.parametrize("stream", [True, False])
async def test_they_are_held_and_go_to_the_next_one(stream: bool):
    async with losing(stream=stream, requests=20) as (rig, asked), ScriptedEngine(words) as other:
        assert rig.plane.dispatcher.held == {"m": 20}
        assert metric(rig, QUEUE) == 20
        assert rig.fleet.replicas["r0"].in_flight == 0
        rig.plane.apply(ReplicaGone("r0"))
        rig.plane.apply(ReplicaChanged("r1", "p", other.url, ready=True))
        answers = [await each for each in asked]
        assert {each.status_code for each in answers} == {200}
        assert {each.headers["x-headrace-replica"] for each in answers} == {"r1"}
        assert rig.plane.held == rig.plane.in_flight == 0
        assert metric(rig, QUEUE) == 0
        assert waited(rig, "dispatched") == 20
        assert metric(rig, LOST) >= 20
        ended = 'headrace_requests_total{endpoint="chat",model_id="m",outcome="%s",pool="p"'
        assert metric(rig, (ended % "completed") + ',replica="r1"}') == 20
        assert metric(rig, (ended % "unavailable") + ',replica="r0"}') == 0


@pytest.mark.parametrize("replicas", [2, 3])
async def test_who_comes_when_all_have_just_gone_waits_too(replicas: int):
    async with run_gateway(*[words] * replicas) as rig, ScriptedEngine(words) as other:
        rig.plane.apply(ConfigChanged((PoolSpec("p", "m", wait_for_replica_s=3600.0),), ()))
        for engine in rig.engines:
            assert engine._server is not None
            engine._server.close()
        asked = asyncio.create_task(rig.chat())
        await until(lambda: rig.plane.held == 1)
        rig.plane.apply(ReplicaChanged("next", "p", other.url, ready=True))
        answer = await asked
        assert (answer.status_code, answer.headers["x-headrace-replica"]) == (200, "next")


async def test_a_client_that_leaves_then_is_forgotten():
    async with losing(stream=True) as (rig, [asked]):
        asked.cancel()
        await until(lambda: rig.plane.held == rig.plane.in_flight == 0)
        assert rig.plane.dispatcher.held == {}
        assert waited(rig, "left") == 1


async def test_what_is_held_again_ends_with_the_gateway():
    async with losing(stream=False) as (rig, [asked]):
        assert await rig.plane.drain(0.05) == 1
        assert (await asked).status_code == 503
        assert rig.plane.held == 0
