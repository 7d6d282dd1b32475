"""Reads the metrics of engines, each replica on its own beat."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from headrace.edges.http import fetch
from headrace.edges.http.address import url_at
from headrace.edges.http.heads import Header
from headrace.edges.http.tls import ClientTls
from headrace.engines import exposition
from headrace.engines.dialect import Dialect
from headrace.engines.latencies import Latencies
from headrace.engines.reading import Answers, EngineReading
from headrace.engines.registry import detect

_log = logging.getLogger(__name__)


class Fetch(Protocol):
    """How to GET; `headrace.edges.http.fetch.get` is one. Raises `FetchError`."""

    async def __call__(
        self,
        url: str,
        *,
        timeout_s: float,
        headers: Iterable[Header],
        max_bytes: int,
        tls: ClientTls | None,
    ) -> fetch.FetchResult:
        """The whole answer, whatever its status."""
        ...


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """How often, how patiently and how much at once."""

    interval_s: float = 1.0
    """Between the starts of two scrapes of a replica."""
    jitter: float = 0.1
    """Share of the interval by which scrapes are spread, so that replicas are not read in step."""
    timeout_s: float = 2.0
    """For one scrape. vLLM may answer late under load; a late figure is worth less than its
    place in the queue."""
    concurrency: int = 32
    """Scrapes at once. With more replicas than that, slow ones stretch the beat of all."""
    max_answer_bytes: int = field(
        default=exposition.MAX_BYTES, metadata={"maximum": exposition.MAX_BYTES}
    )
    """Per answer."""


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """A replica to read."""

    replica: str
    url: str
    dialect: Dialect
    headers: tuple[Header, ...] = field(default=(), repr=False)
    """Sent along: an engine with an API key may ask for it here too."""
    tls: ClientTls | None = None
    """For an `https` address; without it what the system trusts is trusted."""
    reads_latencies: bool = False
    """Also read how the engine's latencies are distributed."""


OnReading = Callable[[str, EngineReading], None]
"""Takes a replica's name and what it said."""
OnFailure = Callable[[str, str], None]
"""Takes a replica's name and why nothing could be read."""
OnLatencies = Callable[[str, Latencies], None]
"""Takes a replica's name and its latencies."""


class Scraper:
    """Scrapes the replicas it is told to watch, until they are forgotten or it is closed."""

    def __init__(
        self,
        settings: ScrapeSettings,
        on_reading: OnReading,
        on_failure: OnFailure,
        get: Fetch = fetch.get,
        on_latencies: OnLatencies | None = None,
    ) -> None:
        self._settings = settings
        self._on_reading = on_reading
        self._on_failure = on_failure
        self._get = get
        self._on_latencies = on_latencies
        self._places = asyncio.Semaphore(settings.concurrency)
        self._tasks: dict[str, tuple[ScrapeTarget, asyncio.Task[None]]] = {}

    def watch(self, target: ScrapeTarget) -> None:
        """Scrape this replica from now on. One that moved is read at its new address; watching
        the same target again changes nothing. An engine without metrics is never read.
        """
        watched = self._tasks.get(target.replica)
        if watched is not None and watched[0] == target:
            return
        self.forget(target.replica)
        if target.dialect.metrics_paths:
            task = asyncio.create_task(self._run(target), name=f"scrape {target.replica}")
            self._tasks[target.replica] = (target, task)

    def configure(self, settings: ScrapeSettings) -> None:
        """Scrape with these settings from now on."""
        if settings == self._settings:
            return
        self._settings = settings
        self._places = asyncio.Semaphore(settings.concurrency)
        for target, _ in tuple(self._tasks.values()):
            self.forget(target.replica)
            self.watch(target)

    def watches(self, replica: str) -> bool:
        """Whether a replica is scraped."""
        return replica in self._tasks

    def forget(self, replica: str) -> None:
        """Stop scraping a replica; nothing more is reported about it."""
        watched = self._tasks.pop(replica, None)
        if watched is not None:
            watched[1].cancel()

    async def close(self) -> None:
        """Stop scraping."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, target: ScrapeTarget) -> None:
        interval_s, jitter = self._settings.interval_s, self._settings.jitter
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(interval_s * jitter * random.random())  # noqa: S311 - spreads scrapes
        told = False
        while True:
            begun_s = clock()
            async with self._places:
                try:
                    await self._scrape(target)
                except Exception as error:  # noqa: BLE001 - no page may end its own scraping
                    if not told:  # once: it may well be the same every second
                        told = True
                        _log.exception("the metrics of %s could not be read", target.replica)
                    self._on_failure(target.replica, f"a fault of the gateway: {error!r}")
            spread = 1 + jitter * (2 * random.random() - 1)  # noqa: S311 - spreads scrapes
            await asyncio.sleep(max(begun_s + interval_s * spread - clock(), interval_s * jitter))

    async def _scrape(self, target: ScrapeTarget) -> None:
        """One reading: all paths side by side, so that they tell of the same moment."""
        paths = target.dialect.metrics_paths
        if len(paths) == 1:  # as with most engines; to gather takes a task
            results = [await self._answer(target, paths[0])]
        else:
            results = await asyncio.gather(*(self._answer(target, path) for path in paths))
        answers = {
            path: (result.status, result.body)
            for path, result in zip(paths, results, strict=True)
            if isinstance(result, fetch.FetchResult)
        }
        if any(status == 200 for status, _ in answers.values()):
            reading = target.dialect.read(answers)
            strange = _strangeness(target.dialect, answers) if reading == _NOTHING else None
            if strange is None:
                self._on_reading(target.replica, reading)
                if target.reads_latencies and self._on_latencies is not None:
                    self._on_latencies(target.replica, target.dialect.latencies(answers))
            else:
                self._on_failure(target.replica, strange)
            return
        reasons = (
            f"{path}: {result if isinstance(result, fetch.FetchError) else f'HTTP {result.status}'}"
            for path, result in zip(paths, results, strict=True)
        )
        self._on_failure(target.replica, "; ".join(reasons))

    async def _answer(
        self, target: ScrapeTarget, path: str
    ) -> fetch.FetchResult | fetch.FetchError:
        try:
            return await self._get(
                url_at(target.url, path),
                timeout_s=self._settings.timeout_s,
                headers=target.headers,
                max_bytes=self._settings.max_answer_bytes,
                tls=target.tls,
            )
        except fetch.FetchError as error:
            return error


_NOTHING = EngineReading()
_SAMPLE = re.compile(rb"^[A-Za-z_:][\w:]*[ \t{]", re.MULTILINE)


def _strangeness(dialect: Dialect, answers: Answers) -> str | None:
    """Why answers that told nothing are not this kind of engine's; None if they may well be: some
    engines export nothing before their first request.
    """
    found = detect(answers)
    if found not in {dialect.name, "openai"}:
        return (
            f"the pool says `engine: {dialect.name}`, but these are metrics of `engine: {found}`; "
            "correct the pool"
        )
    for path, (status, body) in answers.items():
        is_list = body.lstrip().startswith(b"[")  # of steps, of slots
        if status == 200 and body.strip() and not is_list and not _SAMPLE.search(body):
            return f"{path}: nothing in the answer is a metric"
    return None
