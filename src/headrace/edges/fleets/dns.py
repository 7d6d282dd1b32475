"""A fleet behind one DNS name: every address is a replica, looked up again and again.

A name that does not resolve for a while does not empty the fleet: the last addresses stay, and
their own health decides. An address that is no longer listed drains, then leaves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from headrace.edges.fleets.readiness import Notice, Watches

MAX_ADDRESSES = 1024
"""Addresses taken from one name; a longer answer is cut, in sorted order."""
NO_ADDRESS = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
"""The name has none, as that of a Service without pods; other failures say nothing of it."""
SOURCE = "dns"
"""What the watches know these addresses by."""


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
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one over 63 characters
        raise OSError(f"{host!r} is no host name: {error}") from None
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
        watches: Watches,
        notice: Notice,
        *,
        scheme: str = "http",
        resolver: Resolve = resolve,
    ) -> None:
        self._where = where
        self._watches = watches
        self._notice = notice
        self._scheme = scheme
        self._resolve = resolver
        self._failing = False
        self.is_unanswered = True
        """Whether nobody has said yet which addresses it has: none is an answer."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look the name up once, then keep following it."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name=f"dns {self._where.name}")

    async def close(self) -> None:
        """Stop looking up; what was found stays listed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

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
                self._notice(f"DNS name {host}: {_reason(error)}; {self._kept()}")
            self._failing = True
            if getattr(error, "errno", None) in NO_ADDRESS:
                self.is_unanswered = False
            return
        self.is_unanswered = False
        if self._failing:
            self._failing = False
            self._notice(f"DNS name {host} resolves: {_counted(len(addresses))}")
        urls = [f"{self._scheme}://{each}:{port}" for each in addresses[:MAX_ADDRESSES]]
        self._watches.hold(SOURCE, urls, drain_s=self._where.drain_s)

    def _kept(self) -> str:
        known = self._watches.count(SOURCE)
        if not known:
            return f"no replicas until it resolves; asked every {self._where.interval_s:g} s"
        return f"{_counted(known)} known before, still in use"


def _reason(error: OSError | TimeoutError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "no answer in time"


def _counted(addresses: int) -> str:
    return f"{addresses} address{'' if addresses == 1 else 'es'}"
