"""Whether replicas that somebody else runs are ready, and what they hold.

Each replica is asked for its health every `interval_s`, and for its models now and then, so that
adapters loaded at run time become routable. Only changes are reported.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from headrace.core.events import Event, ReplicaChanged, ReplicaGone
from headrace.edges.http import fetch
from headrace.edges.http.heads import Header
from headrace.edges.http.tls import ClientTls
from headrace.engines.dialect import Dialect
from headrace.engines.reading import ListedModel
from headrace.engines.registry import detect

Emit = Callable[[Event], None]
Notice = Callable[[str], None]
"""Takes one line for the operator."""
Trouble = Callable[[str, str], None]
"""Takes the name of a replica and what was wrong with it just now."""

_MODELS_MAX_BYTES = 4 * 1024 * 1024
_HEALTH_MAX_BYTES = 64 * 1024
_MOST_NAMES_TOLD = 10
"""An engine with adapters may list thousands."""
_JITTER = 0.1
"""Share of the interval by which checks are spread, so that replicas are not asked in step."""


def nobody(_replica: str, _reason: str) -> None:
    """Nobody keeps what was wrong."""


def _nothing() -> None:
    """Nobody waits for a first check."""


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
    tls: ClientTls | None = None
    """For `https` addresses; without it what the system trusts is trusted."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a replica answered when it was asked for its models, None where that is no list;
    `doubted` as in `ReplicaChanged`.
    """

    listed: list[ListedModel] | None
    doubted: bool


class ReplicaWatch:
    """Keeps the gateway informed about one replica until it is cancelled.

    `access` and `settings` may be replaced at any time, by others for the same pool and model.
    """

    def __init__(
        self,
        name: str,
        url: str,
        access: PoolAccess,
        settings: HealthSettings,
        *,
        emit: Emit,
        notice: Notice,
        trouble: Trouble = nobody,
        on_checked: Callable[[], None] = _nothing,
    ) -> None:
        self.access = access
        self.settings = settings
        self.checked = False
        """Whether a first check has ended, whatever it found; `on_checked` is called then."""
        self._on_checked = on_checked
        self._emit = emit
        self._notice = notice
        self._trouble = trouble
        self._reported = ReplicaChanged(name, access.pool, url, ready=False)
        self._missed = 0
        self._models_due_s = 0.0
        self._told: str | None = None
        self._kind_checked = False
        self._up: bool | None = None
        self._unanswered = ""

    @property
    def ready(self) -> bool:
        """As it was reported last."""
        return self._reported.ready

    async def run(self) -> None:
        """Report the replica as found, then check it for ever."""
        self._emit(self._reported)
        self._models_due_s = 0.0
        while True:
            try:
                await self.check()
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end all checks
                self._tell(f"could not be checked: {error!r}")
            if not self.checked:
                self.checked = True
                self._on_checked()
            spread = 1 + _JITTER * (2 * random.random() - 1)  # noqa: S311 - spreads checks
            await asyncio.sleep(self.settings.interval_s * spread)

    async def check(self) -> None:
        """Ask once and report what changed."""
        found = await self._get(self.access.dialect.health_paths, _HEALTH_MAX_BYTES)
        if found is None:
            self._missed += 1
            self._trouble(self._reported.replica, self._unanswered)
            if self._up is None or self._missed >= self.settings.failures:
                self._down(self._unanswered)
            elif "TLS" in self._unanswered:  # asking again will not help
                self._tell(self._unanswered)
            return
        self._missed = 0
        path, answer = found
        if not self.access.dialect.ready(answer.status):
            reason = f"answers {answer.status} to {path}"
            self._trouble(self._reported.replica, reason)
            self._down(reason)
            return
        now_s = asyncio.get_running_loop().time()
        if not self._reported.ready or now_s >= self._models_due_s:
            self._models_due_s = now_s + self.settings.models_interval_s
            self._report(ready=True, looked=await self._models())
        else:
            self._report(ready=True)
        if not self._up:
            self._up = True
            self._notice(f"replica {self._reported.replica} is ready")

    def _down(self, reason: str) -> None:
        self._report(ready=False)
        if self._up is not False:  # once, not at every check
            self._up = False
            self._notice(f"replica {self._reported.replica} is down: {reason}")

    async def _get(
        self, paths: Sequence[str], max_bytes: int
    ) -> tuple[str, fetch.FetchResult] | None:
        try:
            return await fetch.get_what_is_there(
                self._reported.url,
                paths,
                timeout_s=self.settings.timeout_s,
                headers=self.access.headers,
                max_bytes=max_bytes,
                tls=self.access.tls,
            )
        except fetch.FetchError as error:
            self._unanswered = str(error)
            return None

    async def _models(self) -> _Look | None:
        found = await self._get((self.access.dialect.models_path,), _MODELS_MAX_BYTES)
        if found is None:
            return None
        path, result = found
        if result.status in fetch.NOT_THERE:  # which says nothing of the requests that it serves
            self._tell(f"has no {path} (HTTP {result.status}): what it serves is not checked")
            return _Look(None, doubted=False)
        if result.status != 200:
            self._tell(f"answers {result.status} to {path}; is the pool's API key right?")
            return _Look(None, doubted=300 <= result.status < 500 and result.status != 429)
        try:
            listed = self.access.dialect.models(result.body)
        except ValueError as error:
            self._tell(f"answers {path} with something else than a list of models: {error}")
            return None
        self._check_kind(path, result.body)
        names = {name for model in listed for name in (model.id, *model.aliases)}
        serves = self.access.model in names
        if serves:
            self._told = None  # what was wrong with its list is right: should it come again, say so
        else:
            self._tell(self._not_serving(sorted(names)))
        return _Look(listed, doubted=bool(names) and not serves)  # no names tell of no model

    def _not_serving(self, names: Sequence[str]) -> str:
        """What is wrong, and what to do about it."""
        access = self.access
        shown = ", ".join(names[:_MOST_NAMES_TOLD]) or "nothing"
        more = len(names) - _MOST_NAMES_TOLD
        listed = f"{shown} and {more} more" if more > 0 else shown
        refused = " and refuses requests for others" if access.dialect.refuses_other_models else ""
        return (
            f"does not serve {access.model!r} but {listed}{refused}; make one of these the `model` "
            f"of pool {access.pool!r}, or start the engine under the pool's name"
        )

    def _check_kind(self, path: str, models: bytes) -> None:
        """Say once if the engine seems to be of another kind than its pool says: then its metrics
        are not read, and its usage is not told as it is expected.
        """
        if self._kind_checked:
            return
        self._kind_checked = True
        found, said = detect({path: (200, models)}), self.access.dialect.name
        if found not in {said, "openai"}:
            self._notice(
                f"replica {self._reported.replica}: lists its models as `engine: {found}` does, "
                f"and pool {self.access.pool!r} says `engine: {said}`; if it is one, correct the "
                "pool, or nothing that it tells of itself is understood"
            )

    def _tell(self, message: str) -> None:
        self._trouble(self._reported.replica, message)
        if message != self._told:  # once, not at every check
            self._told = message
            self._notice(f"replica {self._reported.replica}: {message}")

    def _report(self, *, ready: bool, looked: _Look | None = None) -> None:
        now = replace(self._reported, ready=ready)
        if looked is not None:
            now = replace(now, doubted=looked.doubted)
        if looked is not None and looked.listed is not None:
            listed = looked.listed
            now = replace(
                now,
                adapters=frozenset(model.id for model in listed if model.parent is not None),
                max_context_tokens=_context_of(self.access.model, listed),
            )
        if now != self._reported:
            self._reported = now
            self._emit(now)


def _context_of(model: str, listed: list[ListedModel]) -> int | None:
    for each in listed:
        if model == each.id or model in each.aliases:
            return each.max_context_tokens
    return None


class _Watched:
    """One replica under watch."""

    __slots__ = ("task", "url", "watch")

    def __init__(self, url: str, watch: ReplicaWatch, name: str) -> None:
        self.url = url
        self.watch = watch
        self.task = asyncio.create_task(watch.run(), name=f"watch {name}")

    def check_now(self) -> None:
        """Begin a new turn of checks, and do not wait for the end of the one before."""
        self.task.cancel()
        self.task = asyncio.create_task(self.watch.run(), name=self.task.get_name())


class Watches:
    """The watches of one pool: every address that some source lists is a replica.

    An address that no source lists any more drains, then leaves; one that comes back stays. Where
    all are replaced by others, they drain when the first of those is ready, or all were checked:
    else nobody could serve what comes meanwhile.
    """

    def __init__(
        self,
        access: PoolAccess,
        settings: HealthSettings,
        *,
        emit: Emit,
        notice: Notice,
        trouble: Trouble = nobody,
    ) -> None:
        self._access = access
        self._settings = settings
        self._emit = emit
        self._notice = notice
        self._trouble = trouble
        self._listed: dict[str, frozenset[str]] = {}
        """Source to the URLs it lists."""
        self._watched: dict[str, _Watched] = {}
        """By replica name."""
        self.leaving: dict[str, asyncio.TimerHandle] = {}
        """Names of draining replicas, each with the end of its drain."""
        self._unreplaced: dict[str, float] = {}
        """Names of those that are listed no more and do not drain yet, each with its `drain_s`."""
        self._all_left = asyncio.Event()

    def hold(self, source: str, urls: Iterable[str], *, drain_s: float) -> None:
        """`source` lists exactly these URLs from now on."""
        self._listed[source] = frozenset(urls)
        wanted = {self._name(url): url for urls in self._listed.values() for url in urls}
        for name, url in sorted(wanted.items()):
            watched = self._watched.get(name)
            if watched is None or watched.url != url:
                self._add(name, url)
        gone = [name for name in self._watched if name not in wanted]
        self._unreplaced = {name: self._unreplaced.get(name, drain_s) for name in gone}
        self._let_leave()

    async def replaced(self) -> None:
        """Return when all drain that no source lists."""
        await self._all_left.wait()

    def count(self, source: str) -> int:
        """How many URLs a source lists."""
        return len(self._listed.get(source, ()))

    def configure(self, access: PoolAccess, settings: HealthSettings) -> None:
        """Check in another way from now on. Pool and model stay what they are."""
        changed = settings != self._settings
        self._access, self._settings = access, settings
        for watched in self._watched.values():
            watched.watch.access, watched.watch.settings = access, settings
            if changed:  # it may sleep for an hour of the old ones
                watched.check_now()

    async def close(self) -> None:
        """Stop all watches. Nothing is reported any more."""
        for timer in self.leaving.values():
            timer.cancel()
        self.leaving.clear()
        self._unreplaced.clear()
        self._all_left.set()
        tasks = [watched.task for watched in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _name(self, url: str) -> str:
        """`pool/host:port`, or `pool/unix:/path`."""
        return f"{self._access.pool}/{url.partition('://')[2] or url}"

    def _add(self, name: str, url: str) -> None:
        timer = self.leaving.pop(name, None)
        if timer is not None:  # it came back before its drain was over
            timer.cancel()
        before = self._watched.get(name)
        if before is not None:  # the same place is reached in another way
            before.task.cancel()
        watch = ReplicaWatch(
            name,
            url,
            self._access,
            self._settings,
            emit=self._emit,
            notice=self._notice,
            trouble=self._trouble,
            on_checked=self._let_leave,
        )
        self._watched[name] = _Watched(url, watch, name)

    def _let_leave(self) -> None:
        """Have those drain that no source lists, unless nobody is there in their place yet."""
        self._all_left.clear()
        going = self._unreplaced
        coming = [each.watch for name, each in self._watched.items() if name not in going]
        replaced = any(watch.ready for watch in coming) or all(watch.checked for watch in coming)
        if going and not replaced:
            return
        self._unreplaced = {}
        for name, drain_s in going.items():
            self._leave(name, drain_s)
        self._all_left.set()

    def _leave(self, name: str, drain_s: float) -> None:
        """The replica finishes what it has and gets nothing new."""
        watched = self._watched.pop(name)
        watched.task.cancel()
        pool, url = self._access.pool, watched.url
        self._notice(f"replica {name} is no longer listed: it ends what it has")
        self._emit(ReplicaChanged(name, pool, url, ready=True, draining=True))
        loop = asyncio.get_running_loop()
        self.leaving[name] = loop.call_later(drain_s, self._gone, name)

    def _gone(self, name: str) -> None:
        del self.leaving[name]
        self._emit(ReplicaGone(name))
