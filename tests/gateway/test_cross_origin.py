"""Pages of other origins behind a gateway that asks for keys: browsers send none when they ask
whether they may, and show a page only what names its origin, errors too.
"""

import pytest

from headrace.gateway.keys import KeyRing, new_key
from headrace.gateway.settings import Limits, Timeouts
from tests.gateway.conftest import run_gateway
from tests.gateway.test_listener import plain, raw

ORIGIN = b"https://app.example"
CHAT = b"/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
ASK = b"OPTIONS " + CHAT + b"access-control-request-method: POST\r\n"
ALLOWED = b"access-control-allow-origin: " + ORIGIN


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text(new_key("alice").line + "\n")
    path.chmod(0o600)
    return KeyRing.load(path)


async def test_a_preflight_needs_no_key(keys):
    async with run_gateway(plain, keys=keys, cors_origins=(ORIGIN.decode(),)) as rig:
        port = rig.plane.port
        allowed = await raw(port, ASK + b"origin: %b\r\n\r\n" % ORIGIN)
        assert allowed.startswith(b"HTTP/1.1 204")
        assert ALLOWED in allowed
        refused = await raw(port, ASK + b"origin: https://evil\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 403")
        assert b"access-control" not in refused


async def test_what_looks_like_a_preflight_is_held_to_its_key(keys):
    origin = b"origin: %b\r\n" % ORIGIN
    method = b"access-control-request-method: POST\r\n"
    for head in (
        b"OPTIONS " + CHAT + origin,
        b"POST " + CHAT + origin + method,
        ASK + origin + b"content-length: 50000000\r\n",
        ASK + origin + b"transfer-encoding: chunked\r\n",
    ):
        async with run_gateway(plain, keys=keys, cors_origins=(ORIGIN.decode(),)) as rig:
            assert (await raw(rig.plane.port, head + b"\r\n")).startswith(b"HTTP/1.1 401")
    async with run_gateway(plain, keys=keys) as rig:  # CORS is off
        assert (await raw(rig.plane.port, ASK + origin + b"\r\n")).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"\r\n", b"401"),
        (b"content-length: 999\r\n\r\n", b"413"),
        (b"content-length: 10\r\n\r\nabc", b"408"),
        (b"transfer-encoding: gzip\r\n\r\n", b"501"),
        (b"x: y\r\nbad header\r\n\r\n", b"400"),
    ],
)
async def test_a_page_can_read_why_its_request_was_refused(keys, rest, status):
    async with run_gateway(
        plain,
        keys=keys if status == b"401" else None,
        cors_origins=(ORIGIN.decode(),),
        limits=Limits(max_body_bytes=100),
        timeouts=Timeouts(body_s=0.3),
    ) as rig:
        for origin, may in ((ORIGIN, True), (b"https://evil", False)):
            answer = await raw(rig.plane.port, b"POST " + CHAT + b"origin: %b\r\n" % origin + rest)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert (ALLOWED in answer) == may
            assert (b"access-control" in answer) == may
