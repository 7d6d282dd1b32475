"""Whether the other side of a connection has left, where nothing is being read from it.

An event loop tells of the end when it has read all that is before it. The system knows at once.
With TLS a client may say that it closes and keep the connection for the answer to that, for half a
minute perhaps; this is seen only then.
"""

from __future__ import annotations

import asyncio
import select

# Other systems than Linux tell only of a connection that broke.
_ENDED = getattr(select, "POLLRDHUP", 0)


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the other side will send nothing more, or the connection broke."""
    socket = transport.get_extra_info("socket")
    number = -1 if socket is None else socket.fileno()
    if number < 0:  # it was closed by us
        return False
    poll = select.poll()
    poll.register(number, _ENDED)
    return bool(poll.poll(0))
