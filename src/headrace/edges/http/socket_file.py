"""Unix sockets to listen on: a file that must not be left behind, nor taken from somebody."""

from __future__ import annotations

import contextlib
import errno
import socket
import stat
from pathlib import Path

MODE = 0o660
"""Owner and group may connect."""


class SocketFile:
    """A bound Unix socket and its file."""

    def __init__(self, path: str) -> None:
        """Bind, in place of a file that nobody listens on any more. Raises `OSError`."""
        self._path = Path(path)
        _clear(self._path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(path)
            # Nobody can connect before it listens, so the mode is never too wide.
            self._path.chmod(MODE)
            self._inode = self._path.stat().st_ino
        except OSError:
            self.socket.close()
            raise

    def remove(self) -> None:
        """Take the file away, unless another process has put its own there meanwhile."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def _clear(path: Path) -> None:
    """Remove a stale socket. Raises `OSError` for a live one and for any other file."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "a file that is no socket is in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, "another process listens there")
