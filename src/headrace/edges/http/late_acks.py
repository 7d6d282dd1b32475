"""Fewer acknowledgements of a stream that comes in many small pieces.

Left alone, Linux acknowledges each small piece as it is read, for the sake of senders that wait for
that before they send the next one (Nagle's algorithm). Of a stream of tokens that is a packet for
each, a seventh of all that relaying it costs. Told otherwise it acknowledges every second one, as
TCP asks for, or after 40 ms.

For engines alone whose server switches that algorithm off (`Dialect.sends_at_once`). One that does
not would wait once, for these 40 ms: the system then goes back to acknowledging at once.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

_TCP: Final = socket.IPPROTO_TCP
_QUICK_ACKS: Final = getattr(socket, "TCP_QUICKACK", None)
"""Only Linux has it."""


def acknowledge_late(transport: asyncio.Transport) -> None:
    """Have the system acknowledge every second piece that comes from here on."""
    receiver = transport.get_extra_info("socket")
    if _QUICK_ACKS is not None and receiver is not None:
        try:
            receiver.setsockopt(_TCP, _QUICK_ACKS, 0)
        except OSError:  # closed by us; of a Unix socket; another system's idea of Linux
            return
