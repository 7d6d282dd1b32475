"""The local fleet: llama.cpp replicas as child processes of this one, kept alive.

    start ──► ReplicaUp ──► ReplicaDown ──► (back-off) ──► ReplicaUp ──► … ──► stop

A child that ends is noticed at once, for its exit is awaited and never polled.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.edges.fleets.llamacpp_process import (
    LlamaCppArguments,
    LlamaCppProcess,
    ReplicaStartError,
)
from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID
from headrace.edges.package_index import cache_dir


class LocalFleetError(RuntimeError):
    """The fleet cannot run. The message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class LocalFleetSettings:
    """What the local replicas serve, what they may use and how they are kept alive."""

    model_path: Path
    """GGUF file that every replica loads."""
    model_id: str = DEFAULT_MODEL_ID
    """The id that clients use."""
    slots: int = 4
    """Requests that one replica decodes at once; more wait inside the engine."""
    context_per_slot_tokens: int = 4096
    """Prompt and answer together, per request."""
    threads: int = 1
    """Threads per replica. One, so that replicas on a small machine do not slow each other."""
    prompt_cache_mib: int = 64
    """Memory per replica for prompts that left their slot. Small: laptops run several."""
    embeddings: bool = False
    """Whether the replicas answer `/v1/embeddings` too."""
    ready_timeout_s: float = 120.0
    """From the start of a process until it has loaded its model; then it is killed."""
    first_restart_delay_s: float = 0.5
    """Before the first restart of a replica that died; doubles with each death."""
    max_restart_delay_s: float = 30.0
    """The longest such delay."""
    healthy_after_s: float = 60.0
    """A replica that was ready for so long starts over at `first_restart_delay_s`."""
    max_failed_starts: int = 3
    """Failed starts in a row after which a replica that was never ready is given up."""
    stop_grace_s: float = 5.0
    """From SIGTERM to SIGKILL."""
    log_dir: Path | None = None
    """Where replicas log; None means `logs` in the cache folder."""
    max_log_bytes: int = 4 * 1024 * 1024
    """A log that has grown longer is emptied at the next start of its replica."""

    def arguments(self) -> LlamaCppArguments:
        """The part that the child processes are told."""
        return LlamaCppArguments(
            model_path=self.model_path,
            model_id=self.model_id,
            slots=self.slots,
            context_per_slot_tokens=self.context_per_slot_tokens,
            threads=self.threads,
            prompt_cache_mib=self.prompt_cache_mib,
            embeddings=self.embeddings,
        )


@dataclass(frozen=True, slots=True)
class ReplicaUp:
    """A replica is ready. Its URL is another one after each restart."""

    name: str
    url: str
    pid: int
    cold_start_s: float
    """From the start of the process to the first healthy answer."""


@dataclass(frozen=True, slots=True)
class ReplicaDown:
    """A replica ended, or did not get ready; it will be started again unless given up."""

    name: str
    reason: str


FleetEvent = ReplicaUp | ReplicaDown


class RestartDelay:
    """Exponential back-off between the deaths of one replica and its restarts."""

    def __init__(self, settings: LocalFleetSettings) -> None:
        self._settings = settings
        self._next_s = settings.first_restart_delay_s

    def after(self, ready_s: float) -> float:
        """Seconds to wait after a replica that was ready for `ready_s` seconds."""
        if ready_s >= self._settings.healthy_after_s:
            self._next_s = self._settings.first_restart_delay_s
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, self._settings.max_restart_delay_s)
        return delay_s


class LocalFleet:
    """Keeps replicas `local-0`, `local-1`, … running between `start` and `stop`.

    Args:
        settings: What to run and how to keep it running.
        on_event: Called on the event loop with each change. It must not block or raise.
    """

    def __init__(
        self, settings: LocalFleetSettings, on_event: Callable[[FleetEvent], None]
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._log_dir = settings.log_dir or cache_dir() / "logs"
        self._keepers: list[asyncio.Task[None]] = []
        self._first_ready: list[asyncio.Future[None]] = []

    def start(self, replicas: int) -> None:
        """Start so many processes and return at once; `wait_ready` waits for them.

        Raises:
            LocalFleetError: llama.cpp is not installed or the model file does not exist.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalFleetError(
                "the local fleet needs llama.cpp (xllamacpp), which is not installed: "
                "pip install 'headrace[local]'"
            )
        if not self._settings.model_path.is_file():
            raise LocalFleetError(
                f"model file {self._settings.model_path} does not exist: name a GGUF file"
            )
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for index in range(replicas):
            first_ready = asyncio.get_running_loop().create_future()
            self._first_ready.append(first_ready)
            keeper = self._keep(f"local-{index}", first_ready)
            self._keepers.append(asyncio.create_task(keeper))

    async def wait_ready(self) -> None:
        """Return when every replica was ready once.

        Raises:
            LocalFleetError: A replica was given up.
        """
        await asyncio.gather(*self._first_ready)

    async def stop(self) -> None:
        """End every replica; returns when no child is left. No event is sent for these ends."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for first_ready in self._first_ready:
            first_ready.cancel()
        self._keepers.clear()
        self._first_ready.clear()

    async def _keep(self, name: str, first_ready: asyncio.Future[None]) -> None:
        """Run one replica again and again until cancelled or given up."""
        delay = RestartDelay(self._settings)
        failed_starts = 0
        while True:
            try:
                ready_s = await self._run_once(name, first_ready)
            except (ReplicaStartError, OSError) as error:
                ready_s = 0.0
                failed_starts += 1
                self._on_event(ReplicaDown(name, str(error)))
                if not first_ready.done() and failed_starts >= self._settings.max_failed_starts:
                    first_ready.set_exception(
                        LocalFleetError(f"{name} failed to start {failed_starts} times: {error}")
                    )
                    return
            await asyncio.sleep(delay.after(ready_s))

    async def _run_once(self, name: str, first_ready: asyncio.Future[None]) -> float:
        """Run a replica until its process ends; returns for how many seconds it was ready.

        Raises:
            ReplicaStartError: It did not get ready.
        """
        settings, clock = self._settings, asyncio.get_running_loop().time
        started_at_s = clock()
        process = await LlamaCppProcess.spawn(
            settings.arguments(), self._log_dir / f"{name}.log", settings.max_log_bytes
        )
        try:
            url = await process.ready_url(settings.ready_timeout_s)
            ready_at_s = clock()
            self._on_event(ReplicaUp(name, url, process.pid, ready_at_s - started_at_s))
            if not first_ready.done():
                first_ready.set_result(None)
            reason = await process.exited()
            self._on_event(ReplicaDown(name, reason))
            return clock() - ready_at_s
        finally:
            await process.end(settings.stop_grace_s)
