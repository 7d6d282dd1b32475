"""What an event loop calls, by name, on one end of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast


class ByteStream(Protocol):
    """The callbacks of `asyncio.Protocol`, without it as a base.

    A class that derives from one that is not compiled keeps its attributes in a dictionary, also
    where it is compiled itself. Event loops do not ask for the base.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        ...

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        ...

    def eof_received(self) -> bool:
        """The peer sends no more. Say whether to keep the connection, to send on."""
        ...

    def pause_writing(self) -> None:
        """Too much waits to be sent."""
        ...

    def resume_writing(self) -> None:
        """What waited was sent."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over; called once, last."""
        ...


def protocol_of(stream: Callable[[], ByteStream]) -> Callable[[], asyncio.Protocol]:
    """As event loops have it in their signatures."""
    return cast("Callable[[], asyncio.Protocol]", stream)
