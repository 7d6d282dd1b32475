"""What changes an engine for everybody is not for clients, however they spell it."""

import pytest

from tests.gateway.conftest import run_gateway
from tests.gateway.test_listener import plain, raw


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/v1/load_lora_adapter", b"403"),
        (b"/v1/load_lora_adapter?a=b", b"403"),
        (b"/v1/unload_lora_adapter/", b"403"),
        (b"/v1/load_lora_adapter#x", b"400"),
        (b"/v1/load_lora_adapter?#x", b"400"),
        (b"/v1/load_lora_adapter;x", b"400"),
        (b"/v1/load_lora_adapter%0A", b"400"),
        (b"/v1/x%2F..%2fload_lora_adapter", b"400"),
        (b"/v1/x%5C..%5cload_lora_adapter", b"400"),
        (b"/v1\\load_lora_adapter", b"400"),
        (b"/v1/chat/completions#x", b"400"),
    ],
)
async def test_no_spelling_of_them_reaches_the_engine(target, status):
    body = b'{"model":"m","messages":[]}'
    head = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    async with run_gateway(plain) as rig:
        answer = await raw(rig.plane.port, head % (target, len(body)) + body)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert not rig.engines[0].received
