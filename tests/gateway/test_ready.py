"""`/ready` tells load balancers whether some model can be served here."""

from __future__ import annotations

import pytest

from headrace.core.events import ConfigChanged, ReplicaChanged
from headrace.core.specs import PoolSpec
from tests.gateway.conftest import Rig, run_gateway
from tests.scripted import Peer, Received

OTHER_MODELS = (503, "no replica serves its pool's model")
READY = (200, "ready")


async def answers(_received: Received, peer: Peer) -> None:
    await peer.json({"choices": [{"message": {"content": "ok"}}]})


async def ready(rig: Rig) -> tuple[int, str]:
    answer = await rig.client.get("/ready")
    return answer.status_code, answer.json()["status"]


def found(rig: Rig, number: int = 0, *, doubted: bool, adapters: tuple[str, ...] = ()) -> None:
    """A look at a replica's list of models has found this."""
    url = rig.engines[number].url
    rig.plane.apply(
        ReplicaChanged(
            f"r{number}", "p", url, ready=True, doubted=doubted, adapters=frozenset(adapters)
        )
    )


async def test_nobody_is_sent_where_every_replica_serves_another_model():
    async with run_gateway(answers, answers) as rig:
        found(rig, 0, doubted=True)
        assert await ready(rig) == READY
        found(rig, 1, doubted=True)
        assert await ready(rig) == OTHER_MODELS
        found(rig, 0, doubted=False)
        assert await ready(rig) == READY


async def test_one_pool_that_can_serve_is_enough():
    async with run_gateway(answers, answers) as rig:
        found(rig, 0, doubted=True)
        found(rig, 1, doubted=True)
        rig.plane.apply(ConfigChanged((PoolSpec("p", "m"), PoolSpec("q", "n")), ()))
        assert await ready(rig) == OTHER_MODELS
        rig.plane.apply(ReplicaChanged("q0", "q", rig.engines[1].url, ready=True))
        assert await ready(rig) == READY


async def test_adapters_are_served_whatever_the_pool_calls_its_model():
    async with run_gateway(answers) as rig:
        found(rig, doubted=True, adapters=("lora",))
        assert await ready(rig) == READY


@pytest.mark.parametrize("engine", ["llamacpp", "openai", "sglang"])
async def test_an_engine_that_answers_under_any_name_is_ready(engine: str):
    async with run_gateway(answers, engine=engine) as rig:
        found(rig, doubted=True)
        assert await ready(rig) == READY


async def test_what_was_answered_refutes_the_list():
    async with run_gateway(answers) as rig:
        found(rig, doubted=True)
        assert await ready(rig) == OTHER_MODELS
        await rig.client.post("/tokenize", json={"model": "m", "prompt": "a"})
        assert await ready(rig) == OTHER_MODELS  # vLLM answers that to anybody
        assert (await rig.chat()).status_code == 200
        found(rig, doubted=True)
        assert await ready(rig) == READY
        found(rig, doubted=False)
        found(rig, doubted=True)
        assert await ready(rig) == OTHER_MODELS


async def test_a_pool_that_waits_for_a_replica_takes_requests_but_not_for_one_that_refuses():
    async with run_gateway(answers) as rig:
        rig.plane.apply(ConfigChanged((PoolSpec("p", "m", wait_for_replica_s=60.0),), ()))
        found(rig, doubted=True)
        assert await ready(rig) == OTHER_MODELS
        rig.plane.apply(ReplicaChanged("r0", "p", rig.engines[0].url, ready=False))
        assert await ready(rig) == READY
