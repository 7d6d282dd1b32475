"""What a real Prometheus tells of the number that a scaler wanted which is gone."""

from __future__ import annotations

import asyncio
import time

from headrace.autoscaler.history import WANTED, PrometheusHistory
from tests.prometheus_server import running_prometheus

PAGE = f'{WANTED}{{pool="llama"}} 9\n'
"""As the rules record it; they have tests of their own."""


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(PAGE), PAGE.encode())
    )
    await writer.drain()
    writer.close()


async def test_the_last_number_of_a_scaler_that_is_gone_is_known(prometheus_binary, tmp_path):
    page = await asyncio.start_server(_answer, "127.0.0.1", 0)
    target = f"127.0.0.1:{page.sockets[0].getsockname()[1]}"
    async with running_prometheus(prometheus_binary, [target], tmp_path) as prometheus:
        await prometheus.until(WANTED, 9.0)
        page.close()
        await prometheus.until(WANTED, None)  # it is stale at once
        history = PrometheusHistory(str(prometheus.client.base_url), 1.0)
        assert await history.wanted("llama", time.time()) == 9
        assert await history.wanted("other", time.time()) is None
        steps = await history.wanted_steps("llama", time.time())
        assert {wanted for _, wanted in steps} == {9}
        told_at_s = time.time() + 0.001  # Prometheus rounds to milliseconds
        assert told_at_s - 60.0 < steps[0][0] <= steps[-1][0] <= told_at_s
        assert await history.wanted_steps("other", time.time()) == []
