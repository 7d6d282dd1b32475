"""Accepts connections that begin with a TLS handshake, and counts them from the first byte on.

An event loop tells of such a connection when its handshake is over. Until then it has a descriptor
and some 50 KB, so whoever is silent would take all that there are, past every limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Iterable

from headrace.edges.http.tls import HANDSHAKE_S

ACCEPTED_PER_TURN = 64
"""Connections that are accepted before others have their turn."""
PAUSE_S = 0.5
"""Nobody is accepted for so long where no descriptor is left."""
EVERY_ADDRESS = "::"
"""Those of IPv4, too."""
_NONE_LEFT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_log = logging.getLogger(__name__)


class TlsListener:
    """Listens on sockets, which it closes in the end."""

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        *,
        place_of: Callable[[object], str],
        admits: Callable[[int, int], bool],
    ) -> None:
        """`place_of` says where an address is, `admits` whether one more may begin where so many
        handshakes are under way, in all and from the same place.
        """
        self._sockets = tuple(sockets)
        self._context = context
        self._protocol = protocol
        self._place_of = place_of
        self._admits = admits
        self._under_way: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = True
        self._listen()

    @property
    def handshakes(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def close(self) -> None:
        """Accept nobody any more, and give up handshakes that are not over."""
        loop = asyncio.get_running_loop()
        self._is_open = False
        for listening in self._sockets:
            if listening.fileno() >= 0:
                loop.remove_reader(listening)
                listening.close()
        for task in self._tasks:
            task.cancel()

    def _listen(self) -> None:
        if self._is_open:
            loop = asyncio.get_running_loop()
            for listening in self._sockets:
                loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NONE_LEFT:
                    raise
                _log.error("cannot accept connections: %s", error.strerror)
                self._pause()
                return
            self._begin(accepted, peer)

    def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
        loop.call_later(PAUSE_S, self._listen)

    def _begin(self, accepted: socket.socket, peer: object) -> None:
        place = self._place_of(peer)
        if not self._admits(len(self._tasks), self._under_way.get(place, 0)):
            accepted.close()  # without a handshake nothing can be said
            return
        self._under_way[place] = self._under_way.get(place, 0) + 1
        task = asyncio.get_running_loop().create_task(self._shake_hands(accepted))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._over(ended, place))

    async def _shake_hands(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Of TLS, too: somebody who does not speak it, or is not let in. The loop closes the socket.
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
            )

    def _over(self, task: asyncio.Task[None], place: str) -> None:
        self._tasks.discard(task)
        left = self._under_way[place] - 1
        if left:
            self._under_way[place] = left
        else:
            del self._under_way[place]


async def bound_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listening sockets for every address of `host` whose family this system has; `localhost` is an
    address of IPv6 also where there is none. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    lacking = OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                listening = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                lacking = error
                continue
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                of_ipv6_alone = int(address[0] != EVERY_ADDRESS)
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, of_ipv6_alone)
            listening.bind(address)
            listening.listen(backlog)
            listening.setblocking(False)
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    if not sockets:
        raise lacking
    return sockets
