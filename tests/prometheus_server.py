"""A real Prometheus that scrapes what a test points it at."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.plain_http import NO_TRUST_STORE
from tools.debian_tools import Program

HANG_GUARD_S = 60.0


@dataclass
class PrometheusServer:
    """A running Prometheus. `targets` are the addresses it scrapes, as `host:port`."""

    client: httpx.AsyncClient
    targets: Sequence[str]

    async def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """An instant query: values by sorted label pairs."""
        answer = await self.client.get("/api/v1/query", params={"query": expression})
        answer.raise_for_status()
        rows = answer.json()["data"]["result"]
        return {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in rows}

    async def value(self, expression: str) -> float | None:
        """The value of a query that gives one series; None where it gives none."""
        rows = await self.query(expression)
        assert len(rows) <= 1, rows
        return next(iter(rows.values()), None)

    async def until(self, expression: str, wanted: float | None) -> None:
        """Wait until a query gives this value."""
        found = None
        try:
            async with asyncio.timeout(HANG_GUARD_S):
                while (found := await self.value(expression)) != wanted:
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"{expression} is {found}, not {wanted}") from None


@contextlib.asynccontextmanager
async def running_prometheus(
    program: Program, targets: Sequence[str], folder: Path, *, scrape_interval: str = "1s"
) -> AsyncIterator[PrometheusServer]:
    """Start one with its data in `folder`, wait until every target was scraped, stop it."""
    config: Mapping[str, object] = {
        "global": {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval},
        "scrape_configs": [
            {"job_name": "headrace", "static_configs": [{"targets": list(targets)}]}
        ],
    }
    config_file = folder / "prometheus.yml"
    config_file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log_file = folder / "prometheus.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(program.path),
            f"--config.file={config_file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            env=program.env,
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=10, verify=NO_TRUST_STORE
        ) as client:
            server = PrometheusServer(client, targets)
            await _wait_ready(server, process, log_file)
            await server.until("sum(up)", float(len(targets)))
            yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _wait_ready(
    server: PrometheusServer, process: asyncio.subprocess.Process, log_file: Path
) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        while True:
            assert process.returncode is None, log_file.read_text("utf-8")
            with contextlib.suppress(httpx.TransportError):
                if (await server.client.get("/-/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
