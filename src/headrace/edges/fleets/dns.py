"""A fleet behind one DNS name: every address is a replica, looked up again and again.

A name that does not resolve for a while does not empty the fleet: the last addresses stay, and
their own health decides. An address that is no longer listed drains, then leaves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from headrace.edges.fleets.readiness import Emit, HealthSettings, Notice, PoolAccess, Watches

MAX_ADDRESSES = 1024
"""Addresses taken from one name; a longer answer is cut, in sorted order."""


@dataclass(frozen=True, slots=True)
class DnsName:
    """A name to look up, such as a Kubernetes headless service."""

    name: str
    """Host name; each of its addresses is one replica."""
    port: int = field(metadata={"minimum": 1})
    """Port of the engine at every address."""
    interval_s: float = 5.0
    """Between two look-ups."""
    timeout_s: float = 5.0
    """For one look-up."""
    drain_s: float = 30.0
    """How long a replica whose address is no longer listed may finish its streams."""


Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses; raises OSError when the name does not resolve."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` by the system's resolver, sorted, IPv6 ones in brackets."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = {
        f"[{address[0]}]" if family == socket.AF_INET6 else str(address[0])
        for family, _, _, _, address in found
    }
    return sorted(addresses)


class DnsFleet:
    """Follows the addresses of one name between `start` and `close`."""

    def __init__(
        self,
        where: DnsName,
        access: PoolAccess,
        settings: HealthSettings,
        *,
        emit: Emit,
        notice: Notice,
        resolver: Resolve = resolve,
    ) -> None:
        self._where = where
        self._notice = notice
        self._resolve = resolver
        self._watches = Watches(access, settings, emit, notice)
        self._present: dict[str, str] = {}
        """Listed addresses: URL to replica name."""
        self._leaving: dict[str, tuple[str, asyncio.TimerHandle]] = {}
        """Draining ones: URL to replica name and the end of its drain."""
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look the name up once, then keep following it."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name=f"dns {self._where.name}")

    async def close(self) -> None:
        """Stop looking up and checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, timer in self._leaving.values():
            timer.cancel()
        await self._watches.close()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._where.interval_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Look the name up now and take in what changed."""
        host, port = self._where.name, self._where.port
        try:
            async with asyncio.timeout(self._where.timeout_s):
                addresses = await self._resolve(host, port)
        except (OSError, TimeoutError) as error:
            if not self._failing:
                kept = f"the last {len(self._present)} addresses stay"
                reason = str(error) or "no answer in time"
                self._notice(f"DNS name {host}: {reason}; {kept}")
            self._failing = True
            return
        if self._failing:
            self._failing = False
            self._notice(f"DNS name {host} resolves again: {len(addresses)} addresses")
        self._take_in([f"http://{address}:{port}" for address in addresses[:MAX_ADDRESSES]])

    def _take_in(self, urls: list[str]) -> None:
        for url in urls:
            if url not in self._present:
                self._arrive(url)
        for url in [url for url in self._present if url not in urls]:
            self._leave(url)

    def _arrive(self, url: str) -> None:
        if url in self._leaving:  # it came back before its drain was over
            _, timer = self._leaving.pop(url)
            timer.cancel()
        self._present[url] = self._watches.add(url)

    def _leave(self, url: str) -> None:
        name = self._present.pop(url)
        self._watches.drain(name)
        timer = asyncio.get_running_loop().call_later(self._where.drain_s, self._gone, url)
        self._leaving[url] = (name, timer)

    def _gone(self, url: str) -> None:
        name, _ = self._leaving.pop(url)
        self._watches.forget(name)
