"""What the system knows of the other side of a connection: whether it left, how much it took.

An event loop tells of the end when it has read all that is before it. The system knows at once.
With TLS a client may say that it closes and keep the connection for the answer to that, for half a
minute perhaps; this is seen only then.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import struct
import termios

# Other systems than Linux tell only of a connection that broke.
_ENDED = getattr(select, "POLLRDHUP", 0)


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the other side will send nothing more, or the connection broke."""
    number = _number_of(transport)
    if number < 0:
        return False
    poll = select.poll()
    poll.register(number, _ENDED)
    return bool(poll.poll(0))


def unsent_bytes(transport: asyncio.Transport) -> int:
    """What was written and has not arrived yet: in the transport, and in the system behind it.

    A transport alone stands still for minutes while a slow client takes what the system holds.
    """
    waiting, number = transport.get_write_buffer_size(), _number_of(transport)
    if number < 0:
        return waiting
    try:
        answer = fcntl.ioctl(number, termios.TIOCOUTQ, b"\0" * 4)
    except OSError:  # not every system tells it of every socket
        return waiting
    (held,) = struct.unpack("i", answer)
    return waiting + int(held)


def _number_of(transport: asyncio.Transport) -> int:
    """The descriptor of its socket, negative if it was closed by us."""
    socket = transport.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())
