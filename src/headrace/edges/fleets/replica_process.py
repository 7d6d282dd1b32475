"""Starting, awaiting and ending one child process that serves a model."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from headrace.edges.http import fetch

_HEALTH_TIMEOUT_S = 2.0
_HEALTH_INTERVAL_S = 0.05
_LOG_TAIL_BYTES = 2000
LOG_LOOK_S = 30.0
"""The log of a child that runs is looked at so often."""


class ReplicaStartError(RuntimeError):
    """A child did not become ready. The message says how it ended and where its log is."""


class Launch(Protocol):
    """How one child is started. Made anew for each start."""

    @property
    def url(self) -> str | None:
        """Where it will listen; None: it says so itself, in the first line that it prints."""
        ...

    @property
    def health_path(self) -> str:
        """Answers 200 as soon as it is ready."""
        ...

    def command_line(self) -> list[str]:
        """The child's command."""
        ...


class ReplicaProcess:
    """One child. Whoever spawns it must `end` it, however the time between went."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        launch: Launch,
        log_path: Path,
        max_log_bytes: int,
    ) -> None:
        self._process = process
        self._launch = launch
        self._log_path = log_path
        self._max_log_bytes = max_log_bytes

    @classmethod
    async def spawn(cls, launch: Launch, log_path: Path, max_log_bytes: int) -> ReplicaProcess:
        """Start a child that appends what it prints to `log_path`, emptied if it has grown."""
        with log_path.open("ab") as log:
            if log.tell() > max_log_bytes:
                log.truncate(0)
            starting = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *launch.command_line(),
                    stdin=asyncio.subprocess.PIPE,  # closes when we end, and the child with it
                    stdout=asyncio.subprocess.PIPE if launch.url is None else log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for us: streams drain before replicas end
                )
            )
            try:
                process = await asyncio.shield(starting)
            except asyncio.CancelledError:  # it may be there already: nobody else would end it
                process = await starting
                await cls(process, launch, log_path, max_log_bytes).end(0.0)
                raise
        return cls(process, launch, log_path, max_log_bytes)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def ready_url(self, timeout_s: float) -> str:
        """The child's base URL, as soon as its health says that the model is loaded.

        Raises:
            ReplicaStartError: It ended, or is not ready after `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                url = self._launch.url or await self._reported_url()
                while not await self._is_healthy(url):  # noqa: ASYNC110 - no one signals it
                    await asyncio.sleep(_HEALTH_INTERVAL_S)
        except TimeoutError:
            raise ReplicaStartError(
                f"not ready after {timeout_s:g} s, see {self._log_path}"
            ) from None
        return url

    async def exited(self) -> str:
        """How the child ended; waits until it does. Meanwhile its log is kept from growing."""
        status = self._process.returncode
        while status is None:
            try:
                async with asyncio.timeout(LOG_LOOK_S):
                    status = await self._process.wait()
            except TimeoutError:
                self._shorten_log()
        if status >= 0:
            return f"exited with status {status}"
        return f"killed by {_signal_name(-status)}"

    async def end(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL for what still runs after `grace_s`; returns when it is gone.

        What it has started and left behind, as a shell script does, is killed then.
        """
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        # Its session is a process group of its own, which keeps its number while anybody is in it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _shorten_log(self) -> None:
        """The child appends, so it goes on at the beginning of what has been emptied."""
        with suppress(OSError):
            if self._log_path.stat().st_size > self._max_log_bytes:
                os.truncate(self._log_path, 0)

    async def _reported_url(self) -> str:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ReplicaStartError(await self._post_mortem())
        return line.decode().strip()

    async def _is_healthy(self, url: str) -> bool:
        if self._process.returncode is not None:
            raise ReplicaStartError(await self._post_mortem())
        return await self.answers(url)

    async def answers(self, url: str) -> bool:
        """Whether it says now that it is healthy."""
        try:
            answer = await fetch.get(
                f"{url}{self._launch.health_path}",
                timeout_s=_HEALTH_TIMEOUT_S,
                headers=[(b"connection", b"close")],
            )
        except fetch.FetchError:
            return False
        return answer.status == 200

    async def _post_mortem(self) -> str:
        """How it ended, with the last line it logged."""
        how = await self.exited()
        with self._log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f"{how}: {lines[-1] if lines else 'nothing logged'} (see {self._log_path})"


def _signal_name(number: int) -> str:
    """As in `kill -l`; most of the real-time ones have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
