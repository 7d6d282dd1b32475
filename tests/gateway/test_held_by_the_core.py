"""The gateway with the core as it is, before a replica that takes long for a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from headrace.core.admission import Tier
from headrace.core.events import ConfigChanged, ReplicaGone
from headrace.core.latency import LatencyProfile
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import PoolSpec
from tests.gateway.conftest import Rig, run_gateway
from tests.scripted import Peer, Received, stream_words

HANG_S = 20
SLOW = LatencyProfile("slow", "profile slow", 0.0, 100.0)
"""Minutes for the shortest prompt, so that nothing here depends on how fast the machine is."""
SETTINGS = DispatcherSettings(tiers=(Tier(shed_after_factor=0.0, ttl_s=3600.0),))


@asynccontextmanager
async def two_asked(
    go: asyncio.Event,
) -> AsyncIterator[tuple[Rig, list[asyncio.Task[httpx.Response]]]]:
    """One is being prefilled, until `go`; the other one is held."""

    async def script(_received: Received, peer: Peer) -> None:
        await go.wait()
        await stream_words(peer, 2)

    async with run_gateway(script, dispatcher=SETTINGS) as rig:
        rig.plane.apply(ConfigChanged((PoolSpec("p", "m", profile=SLOW),), ()))
        asked = list[asyncio.Task[httpx.Response]]()
        try:
            for held in (0, 1):
                asked.append(asyncio.create_task(rig.chat(stream=True)))
                async with asyncio.timeout(HANG_S):
                    while rig.plane.held < held or not rig.engines[0].received:
                        await asyncio.sleep(0.005)
            assert rig.plane.dispatcher.held == {"m": 1}
            yield rig, asked
        finally:
            go.set()
            await asyncio.gather(*asked, return_exceptions=True)


async def test_it_is_sent_when_the_prefill_before_it_is_done():
    go = asyncio.Event()
    async with two_asked(go) as (rig, asked):
        assert len(rig.engines[0].received) == 1
        go.set()
        assert [(await each).status_code for each in asked] == [200, 200]
        assert len(rig.engines[0].received) == 2
        assert rig.plane.held == 0
        assert rig.plane.dispatcher.held == {}


@pytest.mark.parametrize("event", [ReplicaGone("r0"), ConfigChanged((), ())])
async def test_it_is_refused_when_there_is_nobody_left_to_serve_it(event):
    async with two_asked(asyncio.Event()) as (rig, asked):
        rig.plane.apply(event)
        answer = await asked[1]
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_replica_available"
        assert rig.plane.dispatcher.held == {}


async def test_it_is_forgotten_when_its_client_goes():
    async with two_asked(asyncio.Event()) as (rig, asked):
        asked[1].cancel()
        async with asyncio.timeout(HANG_S):
            while rig.plane.held:
                await asyncio.sleep(0.005)
        assert rig.plane.dispatcher.held == {}
