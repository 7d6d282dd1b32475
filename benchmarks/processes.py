"""Processes under measurement: started, waited for, weighed and stopped."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
HEADRACE = (sys.executable, "-m", "headrace")
START_S = 60.0
"""Longest that a program may take until it answers."""

_WAITS = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
_LIBC = ctypes.CDLL(None)


class StartFailedError(RuntimeError):
    """A program did not come up. The message ends with what it printed."""


class Running:
    """A started program with all its children."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        """The program's own process."""
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds, user and system, that the tree has used; to the nanosecond."""
        return sum(map(_cpu_ns, self._tree())) / 1e9

    def waits(self) -> int:
        """How often the threads that the tree has now went to sleep until something came."""
        found = 0
        for pid in self._tree():
            for status in Path(f"/proc/{pid}/task").glob("*/status"):
                counted = _WAITS.search(status.read_text())
                found += int(counted[1]) if counted else 0
        return found

    def memory_bytes(self) -> int:
        """The tree's memory; a page shared by several processes is shared out among them."""
        total = 0
        for pid in self._tree():
            found = re.search(r"^Pss: +(\d+) kB", _rollup(pid), re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
        return total

    def output(self) -> str:
        """All that it has printed."""
        return self._output.read_text(errors="replace")

    def check(self) -> None:
        """Raise StartFailedError if it has ended."""
        if self._process.poll() is not None:
            raise StartFailedError(f"{self._process.args!r} ended:\n{self.output()[-2000:]}")

    def _tree(self) -> list[int]:
        pids = [self._process.pid]
        for pid in pids:  # grows while it is read
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, children.read_text().split())
        return pids


def _cpu_ns(pid: int) -> int:
    """CPU time of a process with all its threads, those that have ended included.

    `/proc/<pid>/stat` rounds the same figure down to ticks of 10 ms.
    """
    clock = ctypes.c_int()
    error = _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, f"no CPU clock of process {pid}: {os.strerror(error)}")
    return time.clock_gettime_ns(clock.value)


def _rollup(pid: int) -> str:
    return Path(f"/proc/{pid}/smaps_rollup").read_text()


@contextmanager
def running(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a program in a process group of its own; end the whole group afterwards, also where this
    process is told to end.
    """
    end_on_signals()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        output = Path(folder) / "output"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Running(process, output)
        finally:
            _end(process)


def end_on_signals() -> None:
    """Have SIGTERM and SIGHUP unwind this process from now on, so that what it started ends too:
    it is in groups of its own, which nobody else ends. A second one changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # who runs programs in threads has asked for it in the main one
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)


def _unwind(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_served(program: Running, port: int, path: str) -> None:
    """Wait until `GET path` gives 200. Raises StartFailedError."""
    deadline_s = time.monotonic() + START_S
    while not _answers(port, path):
        program.check()
        if time.monotonic() > deadline_s:
            what = f"no 200 for GET {path} on port {port} within {START_S:g} s"
            raise StartFailedError(f"{what}:\n{program.output()[-2000:]}")
        time.sleep(0.05)


def _answers(port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request.encode())
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False
