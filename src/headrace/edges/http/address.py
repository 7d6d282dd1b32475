"""Where an engine listens: TCP, TLS, or a Unix socket.

As text it is `http://host:port`, `https://host:port` or `unix:/path/of/socket`; an engine's may
have a path behind the port, which its own paths are appended to.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from headrace.edges.http.tls import HANDSHAKE_S, ClientTls, system_tls

UNIX: Final = "unix:"
_ZONE: Final = re.compile(r"%[^]]*(?=])")
MAX_ADDRESSES: Final = 10_000
"""Addresses remembered by one book: replicas come and go with new ports."""


@dataclass(frozen=True, slots=True, eq=False)
class Address:
    """Where to connect. `host_header` is ready to be sent. A Unix socket has its path as `host`
    and 0 as `port`. `base` comes before the target of each request, as in `/llama`.

    Each is parsed once and known by its identity: it is looked up for every request, and hashing
    its fields would cost more than the pool of connections itself. With renewed certificates it is
    another one, so that no connection which the old ones allowed is used again.
    """

    host: str
    port: int
    host_header: bytes
    tls: ClientTls | None = None
    context: ssl.SSLContext | None = None
    base: bytes = b""

    @classmethod
    def of_engine(cls, url: str, tls: ClientTls | None = None) -> Address:
        """Read an address that may have a path. Raises `ValueError` as `parse` does."""
        if url.startswith(UNIX):
            return cls.parse(url, tls)
        place, base = split_url(url)
        return replace(cls.parse(place, tls), base=base.rstrip("/").encode("ascii"))

    @classmethod
    def parse(cls, url: str, tls: ClientTls | None = None) -> Address:
        """Read an address; `https` without `tls` trusts what the system trusts.

        Raises `ValueError` for anything else.
        """
        if url.startswith(UNIX + "/"):
            return cls(url.removeprefix(UNIX), 0, b"localhost")
        parts = urlsplit(url)
        scheme = parts.scheme
        known = scheme in {"http", "https"}
        if not known or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(
                f"{url!r} is not an engine address; write it as http://host:port, "
                "https://host:port or unix:/path"
            )
        # A zone means something on this machine alone (RFC 6874).
        header = _ZONE.sub("", parts.netloc).encode("idna")
        if scheme == "http":
            return cls(parts.hostname, parts.port or 80, header)
        tls = tls or system_tls()
        return cls(parts.hostname, parts.port or 443, header, tls, tls.context)

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Open a connection for `protocol`. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        if not self.port:
            await loop.create_unix_connection(protocol, self.host)
        elif self.tls is None:
            await loop.create_connection(protocol, self.host, self.port)
        else:
            await loop.create_connection(
                protocol,
                self.host,
                self.port,
                ssl=self.context,
                server_hostname=self.tls.server_name or self.host,
                ssl_handshake_timeout=HANDSHAKE_S,
            )


def closed_by(address: Address, *, answered: bool) -> str:
    """What to say of an engine that closed a connection.

    Since TLS 1.3 a server learns after the client's side of the handshake that a certificate is
    missing, and may only close then.
    """
    tls = address.tls
    if tls is None or answered or tls.settings.cert_file is not None:
        return "the engine closed the connection"
    return (
        "TLS: the engine closed the connection without an answer; does it ask for a certificate "
        "(`tls.cert_file`)?"
    )


class AddressBook:
    """Addresses by URL, each parsed once."""

    __slots__ = ("_known", "_tls")

    def __init__(self, tls: ClientTls | None = None) -> None:
        self._tls = tls
        self._known: dict[str, Address] = {}

    def find(self, url: str) -> Address:
        """Return the address at a URL. Raises `ValueError` as `Address.parse` does."""
        known = self._known.get(url)
        if known is None or (known.tls is not None and known.tls.context is not known.context):
            if len(self._known) >= MAX_ADDRESSES:
                self._known.clear()
            known = self._known[url] = Address.of_engine(url, self._tls)
        return known


def url_at(address: str, path: str) -> str:
    """The URL of `path` at an address given as text; a Unix socket's ends with a colon there."""
    return f"{address}:{path}" if address.startswith(UNIX) else address + path


@lru_cache(maxsize=MAX_ADDRESSES)
def split_url(url: str) -> tuple[str, str]:
    """The address and the target of a URL made by `url_at`, or of any `http(s)` one."""
    if url.startswith(UNIX):
        socket, _, target = url.removeprefix(UNIX).partition(":")
        return UNIX + socket, target or "/"
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{parts.netloc}", target
