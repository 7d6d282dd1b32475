"""What vLLM answers clients outside `/v1/`, and nothing else out there."""

import pytest

from headrace.gateway.keys import KeyRing
from tests.gateway.conftest import run_gateway
from tests.gateway.test_listener import plain

SERVED = ("tokenize", "detokenize", "pooling", "classify", "score", "rerank", "v2/rerank")


@pytest.mark.parametrize("path", SERVED)
async def test_they_are_routed_by_their_model_or_the_only_one(path):
    async with run_gateway(plain) as rig:
        for body in ({"model": "m", "prompt": "hi"}, {"prompt": "hi"}):
            answer = await rig.client.post(f"/{path}", json=body)
            assert answer.json() == {"ok": True}
            assert answer.headers["x-headrace-replica"] == "r0"
            assert rig.engines[0].received[-1].json == body
        assert rig.engines[0].received[-1].target == f"/{path}"
        answer = await rig.client.post(f"/{path}", json={"model": "other", "prompt": "hi"})
        assert answer.status_code == 404
        assert (await rig.client.get(f"/{path}")).status_code == 405
        assert len(rig.engines[0].received) == 2


@pytest.mark.parametrize("path", SERVED)
async def test_they_ask_for_the_key_that_the_rest_asks_for(path):
    async with run_gateway(plain, keys=KeyRing()) as rig:
        assert (await rig.client.post(f"/{path}", json={"prompt": "hi"})).status_code == 401
        assert not rig.engines[0].received


@pytest.mark.parametrize(
    "path",
    [
        "sleep",
        "wake_up",
        "collective_rpc",
        "reset_prefix_cache",
        "load_lora_adapter",
        "start_profile",
        "abort_requests",
        "update_weights",
        "server_info",
        "metrics",
        "invocations",
        "inference/v1/generate",
        "tokenize/",
        "tokenize/x",
        "Tokenize",
        "v2/x",
    ],
)
async def test_nothing_else_is(path):
    async with run_gateway(plain) as rig:
        for method in ("GET", "POST"):
            assert (await rig.client.request(method, f"/{path}")).status_code == 404
        assert not rig.engines[0].received
