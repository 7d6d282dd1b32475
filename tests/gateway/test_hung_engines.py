"""Engines that hang: their connections stay, and only health checks tell."""

import asyncio

import pytest

from headrace.core.events import ReplicaChanged
from headrace.core.model import ReplicaState
from headrace.gateway.lost_replicas import LostReplicas
from headrace.gateway.settings import Timeouts
from tests.fleet_parts import make_fleet
from tests.gateway.conftest import run_gateway
from tests.scripted import chat_chunk, stream_words
from tests.waiting import until

QUICK = Timeouts(replica_down_s=0.3)


async def hang(received, peer):
    await peer.reader.read()
    raise ConnectionError


async def hang_after_head(received, peer):
    await peer.start_stream()
    await peer.reader.read()
    raise ConnectionError


async def hang_in_the_middle(received, peer):
    await peer.start_stream()
    await peer.event(chat_chunk("one"))
    await peer.reader.read()
    raise ConnectionError


async def answer(received, peer):
    if received.json.get("stream"):
        await stream_words(peer, 2)
    else:
        await peer.json({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


def tell(rig, number, *, ready):
    url = rig.engines[number].url
    rig.plane.apply(ReplicaChanged(f"r{number}", "p", url, ready=ready))


async def ask_hanging(rig, *, stream):
    """A request that r0 has, and does not answer."""
    tell(rig, 1, ready=False)
    asked = asyncio.create_task(rig.chat(stream=stream))
    await until(lambda: rig.engines[0].received)
    return asked


@pytest.mark.parametrize("script", [hang, hang_after_head])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_hung_replica_has_not_begun_to_answer_goes_elsewhere(script, stream):
    async with run_gateway(script, answer, timeouts=QUICK) as rig:
        asked = await ask_hanging(rig, stream=stream)
        tell(rig, 0, ready=False)
        tell(rig, 1, ready=True)
        got = await asyncio.wait_for(asked, 20)
        assert got.status_code == 200
        assert got.headers["x-headrace-replica"] == "r1"
        await until(lambda: rig.engines[0].clients_gone)


async def test_it_waits_while_no_other_replica_is_ready():
    async with run_gateway(hang, answer, timeouts=QUICK) as rig:
        asked = await ask_hanging(rig, stream=True)
        tell(rig, 0, ready=False)
        done, _ = await asyncio.wait({asked}, timeout=4 * QUICK.replica_down_s)
        assert not done
        tell(rig, 1, ready=True)
        assert (await asyncio.wait_for(asked, 20)).headers["x-headrace-replica"] == "r1"


@pytest.mark.parametrize(("back_s", "lost"), [(9.0, False), (None, True)])
def test_one_that_is_back_in_time_is_not_lost(back_s, lost):
    fleet = make_fleet(p=("m", 2))
    down, other = fleet.replicas.values()
    other.state = ReplicaState.READY
    seen = LostReplicas()
    names = frozenset()
    for now in range(15):
        down.state = ReplicaState.READY if now == back_s else ReplicaState.STARTING
        names = seen.look(fleet, 10.0, float(now))
    assert names == (frozenset({down.name}) if lost else frozenset())


async def test_an_answer_that_has_begun_is_not_begun_anew():
    async with run_gateway(hang_in_the_middle, answer, timeouts=QUICK) as rig:
        asked = await ask_hanging(rig, stream=True)
        tell(rig, 0, ready=False)
        tell(rig, 1, ready=True)
        done, _ = await asyncio.wait({asked}, timeout=4 * QUICK.replica_down_s)
        assert not done
        assert not rig.engines[1].received
        asked.cancel()
