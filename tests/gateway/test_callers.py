"""What one client alone can do, and what it cannot do to others."""

import httpx

from headrace.core.events import ConfigChanged, ReplicaChanged
from headrace.core.model import ReplicaState
from headrace.core.specs import Alias, PoolSpec, Target
from tests.gateway.conftest import run_gateway
from tests.plain_http import NO_TRUST_STORE
from tests.scripted import ScriptedEngine

ALIAS = Alias("chat", (Target("m"),), ("spare",))


async def refuses_the_odd(received, peer):
    await peer.json({"ok": True}, status=401 if "x-odd" in received.headers else 200)


async def takes_all(_received, peer):
    await peer.json({"ok": True})


async def ask_oddly(rig, address: str) -> None:
    """Ask from this address what only the fall-back answers."""
    transport = httpx.AsyncHTTPTransport(local_address=address, verify=NO_TRUST_STORE)
    async with httpx.AsyncClient(base_url=rig.client.base_url, transport=transport) as client:
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post("/v1/chat/completions", json=body, headers={"x-odd": "1"})
        assert answer.status_code == 200
        assert answer.headers["x-headrace-replica"] == "s"


async def test_a_client_takes_no_replica_out_alone():
    async with run_gateway(refuses_the_odd) as rig, ScriptedEngine(takes_all) as spare:
        rig.plane.apply(ConfigChanged((PoolSpec("p", "m"), PoolSpec("q", "spare")), (ALIAS,)))
        rig.plane.apply(ReplicaChanged("s", "q", spare.url, ready=True))
        for _ in range(4):
            await ask_oddly(rig, "127.0.0.2")
        assert rig.fleet.replicas["r0"].state is ReplicaState.READY
        for _ in range(2):
            await ask_oddly(rig, "127.0.0.3")
        assert rig.fleet.replicas["r0"].state is ReplicaState.EJECTED
