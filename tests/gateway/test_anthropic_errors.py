"""Errors on `/v1/messages` have the shape that Anthropic's clients read."""

import httpx
import pytest

from headrace.gateway.keys import KeyRing
from headrace.gateway.settings import Limits
from tests.gateway.conftest import run_gateway
from tests.gateway.test_listener import plain

GOOD = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def error_of(answer: httpx.Response) -> tuple[str, str]:
    """Kind and message, of a body that holds nothing else."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"type", "error"}
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    return body["error"]["type"], body["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true"])
@pytest.mark.parametrize(
    ("changed", "status", "kind"),
    [
        ({"model": "other"}, 404, "not_found_error"),
        ({"model": 1}, 400, "invalid_request_error"),
        ({"stream": "yes"}, 400, "invalid_request_error"),
    ],
)
async def test_what_the_gateway_refuses(path, changed, status, kind):
    async with run_gateway(plain) as rig:
        answer = await rig.client.post(path, json={**GOOD, **changed})
        assert answer.status_code == status
        assert error_of(answer)[0] == kind


async def test_what_the_listener_refuses():
    async with run_gateway(plain, keys=KeyRing(), limits=Limits(max_body_bytes=500)) as rig:
        answer = await rig.client.post("/v1/messages", json=GOOD)
        assert (answer.status_code, error_of(answer)[0]) == (401, "authentication_error")
    async with run_gateway(plain, limits=Limits(max_body_bytes=500)) as rig:
        answer = await rig.client.post("/v1/messages/count_tokens", content=b"x" * 501)
        assert (answer.status_code, error_of(answer)[0]) == (413, "request_too_large")


async def test_no_replica_and_one_that_is_gone():
    async def resets(_received, peer):
        peer.reset()

    async def says_nothing(_received, peer):
        await peer.send(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n")

    async with run_gateway(resets) as rig:
        answer = await rig.client.post("/v1/messages", json=GOOD)
        assert (answer.status_code, error_of(answer)[0]) == (502, "api_error")
    async with run_gateway(says_nothing) as rig:
        answer = await rig.client.post("/v1/messages", json=GOOD)
        assert (answer.status_code, error_of(answer)[0]) == (400, "invalid_request_error")
    async with run_gateway() as rig:
        answer = await rig.client.post("/v1/messages", json=GOOD)
        assert (answer.status_code, error_of(answer)[0]) == (503, "overloaded_error")


async def test_other_paths_keep_openais_shape():
    async with run_gateway(plain) as rig:
        answer = await rig.client.post("/v1/messagesx", json={**GOOD, "model": "other"})
        assert answer.json()["error"]["code"] == "model_not_found"
