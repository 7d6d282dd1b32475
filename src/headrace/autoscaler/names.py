"""Gateways behind names: every address of a name is a gateway, looked up again and again.

    http://gateways.llm:9091 ──► http://10.0.0.11:9091, http://10.0.0.12:9091

so that one headless Service stands for all of its pods. Of a name with addresses of both families
those of IPv4 are taken: the others are the same gateways. A name that does not resolve keeps the
addresses it had; one that never did is asked by its name, which fails and says why. An address is
asked for the name (the Host header), by which a proxy may tell its sites apart, and `https` is
verified against the name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from headrace.autoscaler.settings import GatheringSettings
from headrace.autoscaler.sources import HttpSource
from headrace.edges.fleets.dns import Resolve, resolve
from headrace.edges.http.tls import ClientTls, UpstreamTls

_log = logging.getLogger(__name__)

MAX_GATEWAYS = 256
"""Of one name; a longer answer is cut, in sorted order."""
_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True)
class _Name:
    """One entry of `gateways` and what it stands for now."""

    url: str
    host: str
    port: int
    tls: ClientTls | None = None
    host_header: bytes | None = None
    sources: dict[str, HttpSource] = field(default_factory=dict[str, HttpSource])
    failing: bool = False


class NamedGateways:
    """A source for each address of each entry of `gateways`, in their order."""

    def __init__(
        self,
        urls: Sequence[str],
        settings: GatheringSettings,
        *,
        resolver: Resolve = resolve,
    ) -> None:
        self._settings = settings
        self._resolve = resolver
        self._entries: list[HttpSource | _Name] = []
        for url in urls:
            name = _name_of(url, settings.tls)
            tls = None if settings.tls is None else ClientTls(settings.tls)
            self._entries.append(HttpSource(url, settings, tls=tls) if name is None else name)

    async def find(self) -> Sequence[HttpSource]:
        """Who is to be asked now, each once. Returns within the time for one answer."""
        names = [each for each in self._entries if isinstance(each, _Name)]
        await asyncio.gather(*(self._look_up(name) for name in names))
        found: dict[str, HttpSource] = {}
        for entry in self._entries:
            for source in entry.sources.values() if isinstance(entry, _Name) else (entry,):
                found.setdefault(source.name, source)
        return tuple(found.values())

    async def _look_up(self, name: _Name) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                addresses = await self._resolve(name.host, name.port)
        except (OSError, TimeoutError) as error:
            if not name.failing:
                _log.warning("gateways %s: %s", name.url, _reason(error))
            name.failing = True
            if not name.sources:
                name.sources = {name.url: HttpSource(name.url, self._settings, tls=name.tls)}
            return
        name.failing = False
        urls = [_at(name.url, each, name.port) for each in _of_one_family(addresses)]
        name.sources = {
            url: name.sources.get(url)
            or HttpSource(url, self._settings, tls=name.tls, host=name.host_header)
            for url in urls[:MAX_GATEWAYS]
        }


def _name_of(url: str, tls: UpstreamTls | None) -> _Name | None:
    """What has to be looked up of a URL; None where it has an address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        named = replace(tls or UpstreamTls(), server_name=(tls and tls.server_name) or host)
        client = ClientTls(named) if parts.scheme == "https" else None
        port = parts.port or _PORTS[parts.scheme]
        return _Name(url.rstrip("/"), host, port, client, _host_header(host, parts.port))
    return None


def _host_header(host: str, port: int | None) -> bytes | None:
    """As the URL has it; None for what can be no name, which never has an address either."""
    try:
        name = host.encode("idna")
    except UnicodeError:
        return None
    return name if port is None else b"%b:%d" % (name, port)


def _at(url: str, address: str, port: int) -> str:
    """The same URL at one address; IPv6 ones are in brackets."""
    return urlunsplit(urlsplit(url)._replace(netloc=f"{address}:{port}"))


def _of_one_family(addresses: Sequence[str]) -> Sequence[str]:
    plain = [address for address in addresses if not address.startswith("[")]
    return plain or addresses


def _reason(error: OSError | TimeoutError) -> str:
    return getattr(error, "strerror", None) or str(error) or "no answer in time"
