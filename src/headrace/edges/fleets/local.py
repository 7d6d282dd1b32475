"""The local fleet: replicas as child processes of this one, kept alive.

    order ──► ReplicaUp ──► ReplicaDown ──► (back-off) ──► ReplicaUp ──► … ──► retire
      └─► ReplicaDown … ──► ReplicaLost: it never got ready and is given up

A child that ends is noticed at once, for its exit is awaited and never polled. One that is ready is
asked for its health now and then: `ReplicaSilent`, `ReplicaAnswers`, at last `ReplicaDown`.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.edges.fleets.keep_alive import (
    KeepAlive,
    LocalFleetError,
    LocalReplicas,
    RestartDelay,
)
from headrace.edges.fleets.llamacpp_command import LlamaCppArguments
from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID
from headrace.edges.fleets.replica_process import Launch, ReplicaProcess, ReplicaStartError
from headrace.edges.package_index import cache_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFleetSettings(KeepAlive):
    """What the local llama.cpp replicas serve and what they may use."""

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

    @property
    def keep(self) -> KeepAlive:
        """How they are kept alive."""
        return self

    def check(self) -> None:
        """Raises LocalFleetError if llama.cpp is not installed or the model does not exist."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalFleetError(
                "the local fleet needs llama.cpp (xllamacpp), which is not installed: "
                "pip install 'headrace[local]'"
            )
        if not self.model_path.is_file():
            raise LocalFleetError(f"model file {self.model_path} does not exist: name a GGUF file")

    def launch(self) -> Launch:
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


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    """A replica that never got ready is given up."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaSilent:
    """A replica that was ready does not answer; its process is there."""

    name: str


@dataclass(frozen=True, slots=True)
class ReplicaAnswers:
    """One that was silent answers again."""

    name: str


FleetEvent = ReplicaUp | ReplicaDown | ReplicaLost | ReplicaSilent | ReplicaAnswers
LOOK_S = 2.0
"""A replica that is ready is asked for its health so often."""
SILENT_LOOKS = 3
"""Without an answer, in a row: an engine under full load answers late now and then."""


@dataclass(slots=True)
class _Kept:
    """One replica that is kept running."""

    first_ready: asyncio.Future[None]
    task: asyncio.Task[None]


class LocalFleet:
    """Keeps the replicas that were ordered running, `local-0`, `local-1`, …, until they are
    retired or all is stopped. Names are used again, the smallest first.

    Args:
        replicas: What to run and how to keep it running.
        on_event: Called on the event loop with each change. It must not block or raise.
        prefix: What the names begin with.
    """

    def __init__(
        self,
        replicas: LocalReplicas,
        on_event: Callable[[FleetEvent], None],
        *,
        prefix: str = "local",
    ) -> None:
        self._replicas = replicas
        self._keep = replicas.keep
        self._on_event = on_event
        self._prefix = prefix
        self._log_dir = replicas.keep.log_dir or cache_dir() / "logs"
        self._kept: dict[str, _Kept] = {}

    def start(self, replicas: int) -> None:
        """Start so many processes and return at once; `wait_ready` waits for them.

        Raises:
            LocalFleetError: none could ever start.
        """
        self._replicas.check()
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for _ in range(replicas):
            self.order()

    def order(self) -> str:
        """Start one more, after `start`; returns its name at once."""
        number = next(n for n in range(len(self._kept) + 1) if self._name(n) not in self._kept)
        name = self._name(number)
        first_ready = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._keep_running(name, first_ready), name=f"keep {name}")
        self._kept[name] = _Kept(first_ready, task)
        return name

    def _name(self, number: int) -> str:
        return f"{self._prefix}-{number}"

    async def wait_ready(self) -> None:
        """Return when every replica was ready once.

        Raises:
            LocalFleetError: A replica was given up.
        """
        await asyncio.gather(*(kept.first_ready for kept in self._kept.values()))

    async def retire(self, name: str) -> None:
        """End one replica, whatever it is doing; no event is sent for that. Its name is free when
        its process is gone.
        """
        kept = self._kept.get(name)
        if kept is not None:
            # Once only, and never with its waiter: a second one would interrupt the clearing up
            # after the first, and leave a child that nobody waits for.
            if not kept.task.cancelling():
                kept.task.cancel()
            await asyncio.wait({kept.task})
            kept.first_ready.cancel()
            self._kept.pop(name, None)

    async def stop(self) -> None:
        """End every replica; returns when no child is left. No event is sent for these ends."""
        await asyncio.gather(*(self.retire(name) for name in tuple(self._kept)))

    async def _keep_running(self, name: str, first_ready: asyncio.Future[None]) -> None:
        """Run one replica again and again until cancelled or given up."""
        delay = RestartDelay(self._keep)
        failed_starts = 0
        while True:
            try:
                ready_s = await self._run_once(name, first_ready)
            except (ReplicaStartError, OSError) as error:
                ready_s = 0.0
                failed_starts += 1
                if not first_ready.done() and failed_starts >= self._keep.max_failed_starts:
                    what = f"failed to start {failed_starts} times: {error}"
                    self._give_up(name, first_ready, what)
                    return
                self._on_event(ReplicaDown(name, str(error)))
            await asyncio.sleep(delay.after(ready_s))

    def _give_up(self, name: str, first_ready: asyncio.Future[None], what: str) -> None:
        first_ready.set_exception(LocalFleetError(f"{name} {what}"))
        first_ready.exception()  # it need not have been awaited
        self._on_event(ReplicaLost(name, what))

    async def _run_once(self, name: str, first_ready: asyncio.Future[None]) -> float:
        """Run a replica until its process ends; returns for how many seconds it was ready.

        Raises:
            ReplicaStartError: It did not get ready.
        """
        keep, clock = self._keep, asyncio.get_running_loop().time
        started_at_s = clock()
        process = await ReplicaProcess.spawn(
            self._replicas.launch(), self._log_dir / f"{name}.log", keep.max_log_bytes
        )
        try:
            url = await process.ready_url(keep.ready_timeout_s)
            ready_at_s = clock()
            self._on_event(ReplicaUp(name, url, process.pid, ready_at_s - started_at_s))
            if not first_ready.done():
                first_ready.set_result(None)
            self._on_event(ReplicaDown(name, await self._ended(name, process, url)))
            return clock() - ready_at_s
        finally:
            await process.end(keep.stop_grace_s)

    async def _ended(self, name: str, process: ReplicaProcess, url: str) -> str:
        """Why a replica that was ready has ended, or has to be."""
        exited = asyncio.ensure_future(process.exited())
        silent = asyncio.ensure_future(self._silent(name, process, url))
        try:
            await asyncio.wait({exited, silent}, return_when=asyncio.FIRST_COMPLETED)
            return exited.result() if exited.done() else silent.result()
        finally:
            exited.cancel()
            silent.cancel()
            await asyncio.gather(exited, silent, return_exceptions=True)

    async def _silent(self, name: str, process: ReplicaProcess, url: str) -> str:
        """Tell when a replica falls silent and when it answers again; returns when it has been
        silent for too long, and says so.
        """
        clock = asyncio.get_running_loop().time
        missed, answered_s = 0, clock()
        while clock() - answered_s < self._keep.silent_timeout_s:
            await asyncio.sleep(LOOK_S)
            if await process.answers(url):
                if missed >= SILENT_LOOKS:
                    self._on_event(ReplicaAnswers(name))
                missed, answered_s = 0, clock()
                continue
            missed += 1
            if missed == SILENT_LOOKS:
                self._on_event(ReplicaSilent(name))
        return f"did not answer its health for {self._keep.silent_timeout_s:g} s"
