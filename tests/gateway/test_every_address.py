"""`host: "::"` is every address of the machine, those of IPv4 too, with TLS and without."""

from __future__ import annotations

import asyncio
import random
import ssl
import time

import pytest
import trustme

from headrace.core.dispatcher import Dispatcher
from headrace.core.settings import DispatcherSettings
from headrace.edges.http.tls import ServerTls
from headrace.gateway.server import DataPlane
from headrace.gateway.settings import GatewaySettings, Listener
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.certificates import write_certificate


@pytest.mark.parametrize("secured", [False, True])
async def test_clients_come_by_either_family(tmp_path, secured):
    ca = trustme.CA()
    write_certificate(ca, tmp_path, "gateway.test")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    tls = ServerTls(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    core = Dispatcher(DispatcherSettings(), random.Random(1))
    listen = Listener(host="::", port=0, tls=tls if secured else None)
    telemetry = Telemetry(TelemetrySettings(), time.monotonic, core.fleet)
    plane = DataPlane(GatewaySettings(listen=listen), core, telemetry)
    await plane.start()
    by_tls = {"ssl": context, "server_hostname": "gateway.test"} if secured else {}
    try:
        for address in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(address, plane.port, **by_tls)
            writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
    finally:
        await plane.close()
