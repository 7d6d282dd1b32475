"""Reads how busy the memory of each replica's GPUs is, from the DCGM exporter on its host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from headrace.edges.http import fetch
from headrace.engines.dcgm import DRAM_ACTIVE, memory_bandwidth_ratio
from headrace.engines.exposition import MAX_BYTES

HOST = "{host}"
"""Stands for the host of a replica's address."""
BELIEVED_S = 60.0
"""How long what an exporter told is believed: it looks at its GPUs every 30 s by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMetricsSettings:
    """Where NVIDIA's DCGM exporter tells of the GPUs behind a replica.

    Their memory bandwidth (`DCGM_FI_PROF_DRAM_ACTIVE`) may ask for more replicas, see
    docs/explanation/scaling.md.
    """

    url: str
    """The exporter's page, as `http://{host}:9400/metrics`: `{host}` is the host of a replica's
    address."""
    labels: tuple[str, ...] = ()
    """What the lines of a replica's GPUs say, each `name=value`, as `container=vllm`; without any,
    all GPUs of the host are the replica's. Of several that match, the mean counts."""
    interval_s: float = field(default=10.0, metadata={"above": 0, "maximum": BELIEVED_S / 2})
    """Between two looks; what was told is believed for a minute. The exporter itself looks every
    30 s unless told otherwise."""
    timeout_s: float = field(default=2.0, metadata={"above": 0})
    """For one answer."""

    def url_for(self, replica_url: str) -> str:
        """The page of a replica's host; one behind a Unix socket is on this machine."""
        host = urlsplit(replica_url).hostname or "127.0.0.1"
        return self.url.replace(HOST, f"[{host}]" if ":" in host else host)


OnRatio = Callable[[str, float], None]
"""Takes a replica's name and the share of time in which its memory is busy."""
OnFailure = Callable[[str, str], None]
"""Takes a replica's name and why nothing is known."""


class GpuReader:
    """Looks at the GPUs of the replicas that it is told to watch, until they are forgotten."""

    def __init__(self, on_ratio: OnRatio, on_failure: OnFailure) -> None:
        self._on_ratio = on_ratio
        self._on_failure = on_failure
        self._watched: dict[str, tuple[GpuMetricsSettings, str, asyncio.Task[None]]] = {}

    def watch(self, replica: str, replica_url: str, settings: GpuMetricsSettings | None) -> None:
        """Look from now on; the same again changes nothing, no settings end it."""
        watched = self._watched.get(replica)
        if watched is not None and watched[:2] == (settings, replica_url):
            return
        self.forget(replica)
        if settings is not None:
            looking = self._run(replica, settings.url_for(replica_url), settings)
            task = asyncio.create_task(looking, name=f"GPUs of {replica}")
            self._watched[replica] = (settings, replica_url, task)

    def forget(self, replica: str) -> None:
        """Look no more."""
        watched = self._watched.pop(replica, None)
        if watched is not None:
            watched[2].cancel()

    async def close(self) -> None:
        """Stop looking."""
        tasks = [task for _, _, task in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, replica: str, url: str, settings: GpuMetricsSettings) -> None:
        while True:
            try:
                self._on_ratio(replica, await _ratio(url, settings))
            except (fetch.FetchError, LookupError) as error:
                self._on_failure(replica, f"{url}: {error.args[0] if error.args else error}")
            await asyncio.sleep(settings.interval_s)


async def _ratio(url: str, settings: GpuMetricsSettings) -> float:
    """Raises FetchError, or LookupError for a page that does not tell."""
    answer = await fetch.get(url, timeout_s=settings.timeout_s, max_bytes=MAX_BYTES)
    if answer.status != 200:
        raise LookupError(f"HTTP {answer.status}")
    ratio = memory_bandwidth_ratio(answer.body, settings.labels)
    if ratio is None:
        where = f" with {', '.join(settings.labels)}" if settings.labels else ""
        raise LookupError(f"no {DRAM_ACTIVE}{where}; is it among what the exporter collects?")
    return ratio
