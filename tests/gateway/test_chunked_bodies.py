"""Bodies in chunks: what is not content is bounded, as extensions are thrown away unseen."""

from headrace.gateway.settings import Limits
from tests.gateway.conftest import run_gateway
from tests.gateway.test_listener import plain, raw

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
BODY = b'{"model":"m","messages":[]}'
END = b"0\r\n\r\n"


def chunk(content: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(content), extension, content)


async def test_an_extension_without_end_is_refused():
    async with run_gateway(plain) as rig:
        first = await raw(rig.plane.port, HEAD + b"1;" + b"x" * 2_000_000)
        assert first.startswith(b"HTTP/1.1 413")
        assert b"limits.max_head" in first
        assert b"framing_too_large" in first


async def test_so_are_many_that_are_short():
    async with run_gateway(plain) as rig:
        piece = chunk(b"x", b";" + b"y" * 1000) * 2000
        assert (await raw(rig.plane.port, HEAD + piece)).startswith(b"HTTP/1.1 413")


async def test_usual_extensions_and_a_chunk_for_each_byte_pass():
    body = BODY + b" " * 100_000
    pieces = b"".join(chunk(bytes((byte,))) for byte in body)
    async with run_gateway(plain, limits=Limits(max_head_bytes=1000)) as rig:
        for sent in (pieces, chunk(BODY, b";a=b;c")):
            answer = await raw(rig.plane.port, HEAD + sent + END)
            assert answer.startswith(b"HTTP/1.1 200")
        assert [len(each.body) for each in rig.engines[0].received] == [len(body), len(BODY)]
