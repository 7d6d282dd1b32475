"""Who begins a TLS handshake counts from the first byte on, and does not hold up an end."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl

import pytest
import trustme

from headrace.edges.http.tls import HANDSHAKE_S
from headrace.edges.http.tls_listener import bound_sockets
from tests.certificates import write_certificate
from tests.gateway.serve_process import HANG_S, Serve, pool, serving
from tests.scripted import ScriptedEngine

SHUTDOWN_S = 30.0
"""So long uvloop waits for the other side's end of TLS."""
TLS = "tls: {cert_file: cert.pem, key_file: key.pem}"


@pytest.fixture
def context(tmp_path) -> ssl.SSLContext:
    ca = trustme.CA()
    write_certificate(ca, tmp_path, "127.0.0.1")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


async def nobody_asks(_received, _peer):
    raise AssertionError


async def connect(serve: Serve, tls: ssl.SSLContext | None = None):
    url = serve.client.base_url
    return await asyncio.open_connection(url.host, url.port, ssl=tls)


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_client"])
async def test_silent_clients_take_no_more_than_connections_may_be_open(tmp_path, context, limit):
    listen = f"listen: {{port: 0, {TLS}}}\ncontrol: {{port: 0}}\nlimits: {{{limit}: 3}}\n"
    async with ScriptedEngine(nobody_asks, models=({"id": "m"},)) as upstream:
        text = f"pools:\n{pool(upstream)}"
        async with serving(tmp_path, text, listen=listen, tls=context) as serve:
            silent = [await connect(serve) for _ in range(3)]
            reader, writer = await connect(serve)
            async with asyncio.timeout(HANDSHAKE_S / 2):  # by then it would not be given up
                assert await reader.read() == b""
            writer.close()
            for _, other in silent:
                other.close()
            async with asyncio.timeout(HANG_S):
                while (await let_in(serve, context)) is False:
                    await asyncio.sleep(0.02)


async def let_in(serve: Serve, context: ssl.SSLContext) -> bool:
    try:
        _, writer = await connect(serve, context)
    except OSError:
        return False
    writer.close()
    return True


async def test_an_end_waits_neither_for_handshakes_nor_for_idle_clients(tmp_path, context):
    """An idle client that does not answer to the end of TLS would keep its connection."""
    listen = f"listen: {{port: 0, {TLS}}}\ncontrol: {{port: 0}}\ngrace: 50ms\ndrain: 1h\n"
    async with ScriptedEngine(nobody_asks, models=({"id": "m"},)) as upstream:
        text = f"pools:\n{pool(upstream)}"
        async with serving(tmp_path, text, listen=listen, tls=context) as serve:
            _, silent = await connect(serve)
            idle = await asyncio.to_thread(served_once, serve, context)
            serve.signal(signal.SIGTERM)
            async with asyncio.timeout(SHUTDOWN_S * 2 / 3):  # by then the loop would give up
                code, said = await serve.ended()
            assert code == 0, said
            silent.close()
            idle.close()


def served_once(serve: Serve, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A client that had an answer and reads nothing more."""
    url = serve.client.base_url
    plain = socket.create_connection((url.host, url.port), timeout=HANG_S)
    secured = context.wrap_socket(plain, server_hostname=url.host)
    secured.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    assert secured.recv(12) == b"HTTP/1.1 200"
    return secured


@pytest.mark.parametrize("families", [(socket.AF_INET6, socket.AF_INET), (socket.AF_INET6,)])
async def test_a_family_that_the_system_lacks_is_left_out(monkeypatch, families):
    """As on a machine that was started without IPv6, where `localhost` is `::1`, too."""
    names = {socket.AF_INET6: ("::1", 0, 0, 0), socket.AF_INET: ("127.0.0.1", 0)}
    made = socket.socket

    async def resolved(*_args: object, **_options: object):
        return [(family, socket.SOCK_STREAM, 6, "", names[family]) for family in families]

    def without_ipv6(family: int, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *rest)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
    monkeypatch.setattr(socket, "socket", without_ipv6)
    if socket.AF_INET not in families:
        with pytest.raises(OSError, match="family"):
            await bound_sockets("localhost", 0, 1)
        return
    (listening,) = await bound_sockets("localhost", 0, 1)
    with listening:
        assert listening.family is socket.AF_INET
