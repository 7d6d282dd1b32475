"""`headrace up` as a user runs it: a process of its own, real replicas, real model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import httpx
import msgspec

HANG_S = 120.0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children_of(pid: int) -> list[int]:
    """Process ids whose parent is `pid`."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Up:
    """A running `headrace up`."""

    process: subprocess.Popen[bytes]
    url: str
    control: str
    output: IO[bytes]

    @property
    def printed(self) -> str:
        """Everything it wrote to its terminal so far."""
        self.output.seek(0)
        return self.output.read().decode("utf-8", "replace")

    def fleet(self) -> dict[str, dict[str, object]]:
        """The control plane's view: replica name to its facts."""
        body = httpx.get(f"{self.control}/api/v1/fleet", timeout=HANG_S, trust_env=False).json()
        return {r["name"]: r for pool in body["pools"] for r in pool["replicas"]}

    def metrics(self) -> str:
        """The text of `/metrics`."""
        return httpx.get(f"{self.control}/metrics", trust_env=False).text

    def why(self, request_id: str) -> dict[str, Any]:
        """The explanation of a decision."""
        answer = httpx.get(f"{self.control}/api/v1/decisions/{request_id}", trust_env=False)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content)

    def stop(self, sign: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end, return the exit code."""
        self.process.send_signal(sign)
        return self.process.wait(HANG_S)


def command(*arguments: str) -> list[str]:
    """The command line of `headrace`."""
    return [sys.executable, "-m", "headrace", *arguments]


@contextmanager
def running_up(*arguments: str, path: str | None = None) -> Iterator[Up]:
    """Start `headrace up` on free ports and wait until its gateway is ready."""
    port, control = free_port(), free_port()
    env = {**os.environ, "PATH": path} if path else dict(os.environ)
    line = command("up", "--port", str(port), "--control-port", str(control), *arguments)
    with TemporaryFile() as output:
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, env=env)
        up = Up(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{control}", output)
        try:
            _wait_ready(up)
            yield up
        finally:
            children = children_of(process.pid)
            if process.poll() is None:
                up.stop(signal.SIGTERM)
            assert not [pid for pid in children if alive(pid)], "children were left behind"


def _wait_ready(up: Up) -> None:
    guard = time.monotonic() + HANG_S
    while True:
        assert up.process.poll() is None, up.printed
        assert time.monotonic() < guard, up.printed
        try:
            # Ready is what a user sees: the printed address, and an answer behind it.
            if up.url in up.printed and httpx.get(f"{up.url}/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
