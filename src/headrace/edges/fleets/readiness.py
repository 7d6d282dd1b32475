"""Whether replicas that somebody else runs are ready, and what they hold.

Each replica is asked for its health every `interval_s`, and for its models now and then, so that
adapters loaded at run time become routable. Only changes are reported.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from headrace.core.events import Event, ReplicaChanged, ReplicaGone
from headrace.edges.http import fetch
from headrace.edges.http.heads import Header
from headrace.engines.dialect import Dialect
from headrace.engines.reading import ListedModel

Emit = Callable[[Event], None]
Notice = Callable[[str], None]
"""Takes one line for the operator."""

_MODELS_MAX_BYTES = 4 * 1024 * 1024
_HEALTH_MAX_BYTES = 64 * 1024
_JITTER = 0.1
"""Share of the interval by which checks are spread, so that replicas are not asked in step."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """How replicas of static and DNS pools are checked."""

    interval_s: float = 2.0
    """Between two checks of a replica."""
    timeout_s: float = 2.0
    """For one check."""
    failures: int = 3
    """Checks without an answer before a ready replica counts as not ready. An engine under
    full load answers late now and then; one that says itself that it is not ready is believed
    at once."""
    models_interval_s: float = 10.0
    """Between two looks at the models and adapters of a ready replica."""


@dataclass(frozen=True, slots=True)
class PoolAccess:
    """What the replicas of one pool have in common: what they serve and how to ask them."""

    pool: str
    model: str
    dialect: Dialect
    headers: tuple[Header, ...] = field(default=(), repr=False)
    """Sent with each check: an engine with an API key asks for it on `/v1/models` too."""


class ReplicaWatch:
    """Keeps the gateway informed about one replica until it is cancelled."""

    def __init__(
        self,
        name: str,
        url: str,
        access: PoolAccess,
        settings: HealthSettings,
        *,
        emit: Emit,
        notice: Notice,
    ) -> None:
        self._access = access
        self._settings = settings
        self._emit = emit
        self._notice = notice
        self._reported = ReplicaChanged(name, access.pool, url, ready=False)
        self._missed = 0
        self._models_due_s = 0.0
        self._told: str | None = None

    async def run(self) -> None:
        """Report the replica as found, then check it for ever."""
        self._emit(self._reported)
        while True:
            await self.check()
            spread = 1 + _JITTER * (2 * random.random() - 1)  # noqa: S311 - spreads checks
            await asyncio.sleep(self._settings.interval_s * spread)

    async def check(self) -> None:
        """Ask once and report what changed."""
        status = await self._status()
        if status is None:
            self._missed += 1
            if self._missed >= self._settings.failures:
                self._report(ready=False)
            return
        self._missed = 0
        if not self._access.dialect.ready(status):
            self._report(ready=False)
            return
        now_s = asyncio.get_running_loop().time()
        if not self._reported.ready or now_s >= self._models_due_s:
            self._models_due_s = now_s + self._settings.models_interval_s
            listed = await self._models()
        else:
            listed = None
        self._report(ready=True, listed=listed)

    async def _get(self, path: str, max_bytes: int) -> fetch.FetchResult | None:
        try:
            return await fetch.get(
                self._reported.url + path,
                timeout_s=self._settings.timeout_s,
                headers=self._access.headers,
                max_bytes=max_bytes,
            )
        except fetch.FetchError:
            return None

    async def _status(self) -> int | None:
        result = await self._get(self._access.dialect.health_path, _HEALTH_MAX_BYTES)
        return None if result is None else result.status

    async def _models(self) -> list[ListedModel] | None:
        path = self._access.dialect.models_path
        result = await self._get(path, _MODELS_MAX_BYTES)
        if result is None:
            return None
        if result.status != 200:
            self._tell(f"answers {result.status} to {path}; is the pool's API key right?")
            return None
        try:
            listed = self._access.dialect.models(result.body)
        except ValueError as error:
            self._tell(f"answers {path} with something else than a list of models: {error}")
            return None
        names = {name for model in listed for name in (model.id, *model.aliases)}
        if self._access.model not in names:
            self._tell(f"does not serve {self._access.model!r} but {', '.join(sorted(names))}")
        return listed

    def _tell(self, message: str) -> None:
        if message != self._told:  # once, not at every check
            self._told = message
            self._notice(f"replica {self._reported.replica}: {message}")

    def _report(self, *, ready: bool, listed: list[ListedModel] | None = None) -> None:
        now = replace(self._reported, ready=ready)
        if listed is not None:
            now = replace(
                now,
                adapters=frozenset(model.id for model in listed if model.parent is not None),
                max_context_tokens=_context_of(self._access.model, listed),
            )
        if now != self._reported:
            self._reported = now
            self._emit(now)


def _context_of(model: str, listed: list[ListedModel]) -> int | None:
    for each in listed:
        if model == each.id or model in each.aliases:
            return each.max_context_tokens
    return None


@dataclass(slots=True)
class Watches:
    """The watches of one pool, by replica name."""

    access: PoolAccess
    settings: HealthSettings
    emit: Emit
    notice: Notice
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, "asyncio.Task[None]"])
    urls: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, url: str) -> str:
        """Start watching the replica at `url`; its name is `pool/host:port`."""
        name = f"{self.access.pool}/{url.partition('://')[2]}"
        watch = ReplicaWatch(
            name, url, self.access, self.settings, emit=self.emit, notice=self.notice
        )
        self.urls[name] = url
        self.tasks[name] = asyncio.create_task(watch.run(), name=f"watch {name}")
        return name

    def drain(self, name: str) -> None:
        """Stop watching; the replica finishes what it has and gets nothing new."""
        self.tasks.pop(name).cancel()
        url = self.urls[name]
        self.emit(ReplicaChanged(name, self.access.pool, url, ready=True, draining=True))

    def forget(self, name: str) -> None:
        """The replica is gone for good."""
        del self.urls[name]
        self.emit(ReplicaGone(name))

    async def close(self) -> None:
        """Stop all watches. Nothing is reported any more."""
        tasks, self.tasks = list(self.tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
