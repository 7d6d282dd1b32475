"""What the gateway refuses is counted under the model that was asked for, also behind an alias."""

import asyncio

import pytest

from headrace.core.events import ConfigChanged
from headrace.core.specs import Alias, PoolSpec, Target
from headrace.gateway.metrics.held import HeldResult
from tests.gateway.conftest import run_gateway

ALIAS = Alias("chat", (Target("m"),))


async def full(_received, peer):
    await peer.json({"error": {"message": "full"}}, status=503)


@pytest.mark.parametrize(
    ("scripts", "reason"), [((full,), "overloaded"), ((), "no_replica_available")]
)
@pytest.mark.parametrize("name", ["m", "chat"])
async def test_requests_that_no_replica_took(scripts, reason, name):
    async with run_gateway(*scripts, aliases=(ALIAS,)) as rig:
        assert (await rig.chat(model=name)).status_code == 503
        assert rig.telemetry.rejects == {(reason, "m"): 1}


async def test_names_that_stand_for_nothing_have_no_model():
    async with run_gateway(full, aliases=(ALIAS,)) as rig:
        assert (await rig.chat(model="made-up")).status_code == 404
        assert rig.telemetry.rejects == {("model_not_found", ""): 1}


async def test_a_client_that_leaves_the_queue_has_waited_for_a_model():
    async with run_gateway(full, aliases=(ALIAS,)) as rig:
        pools = (PoolSpec("p", "m"), PoolSpec("z", "zero", wait_for_replica_s=60.0))
        rig.plane.apply(ConfigChanged(pools, (Alias("none", (Target("zero"),)),)))
        asking = asyncio.create_task(rig.chat(model="none"))
        async with asyncio.timeout(20):
            while not rig.plane.held:
                await asyncio.sleep(0.01)
            asking.cancel()
            while rig.plane.held:
                await asyncio.sleep(0.01)
        ((key, _),) = rig.telemetry.held_times
        assert (key.model_id, key.result) == ("zero", HeldResult.LEFT)
