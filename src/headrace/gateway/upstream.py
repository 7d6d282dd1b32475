"""How the engines of one pool are talked to."""

from __future__ import annotations

from headrace.edges.http.address import Address, AddressBook
from headrace.edges.http.heads import render_fields
from headrace.engines.registry import dialect
from headrace.gateway.settings import UpstreamAccess


class Upstream:
    """How to talk to the engines of one pool.

    `authorization` is the header value, if any, and `fields` the same, rendered.
    """

    __slots__ = ("_addresses", "authorization", "dialect", "fields", "tls")

    def __init__(self, access: UpstreamAccess) -> None:
        key = access.api_key
        self.dialect = dialect(access.engine)
        self.authorization = None if key is None else b"Bearer " + key.encode("ascii")
        self.fields = b""
        if self.authorization is not None:
            self.fields = render_fields([(b"authorization", self.authorization)])
        self.tls = access.tls
        self._addresses = AddressBook(access.tls)

    def address(self, url: str) -> Address:
        """A replica's address by its URL."""
        return self._addresses.find(url)
