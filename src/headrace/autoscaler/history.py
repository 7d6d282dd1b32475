"""Demand of the past: from Prometheus, or from a file that the scaler keeps itself."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

import msgspec

from headrace.autoscaler.ports import SourceError
from headrace.core.scaling.demand_history import DemandSample
from headrace.edges.http import fetch

STEP_S = 60.0
DAY_S = 86400.0
MOST_POINTS = 10_000
"""Of one answer; Prometheus gives at most 11,000."""
TIMEOUT_S = 30.0
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Of a file and its older part. Half of it are two weeks of 13 pools."""
REQUESTS = "headrace:requests:rate1m"
INPUT_TOKENS = "headrace:input_tokens:rate1m"
OUTPUT_TOKENS = "headrace:output_tokens:rate1m"
WANTED = "headrace:scaling_wanted_replicas:max"
"""The recording rules in deploy/prometheus."""
WANTED_STEP_S = 15.0
"""When a number was reached is known to so much: a rule is evaluated no more often."""
WANTED_BEFORE_S = 3600.0
"""A number is looked for so far back. What was wanted last its platform wants yet, for nobody else
tells it another."""


class PrometheusHistory:
    """What a Prometheus with our recording rules remembers, by `query_range`."""

    def __init__(self, url: str, days: float) -> None:
        self._url = url.rstrip("/")
        self._days = days

    async def read(self, pool: str, now: float) -> Sequence[DemandSample]:
        """The last days by the minute, oldest first; gaps stay gaps. Raises SourceError."""
        begin_s = math.floor((now - self._days * DAY_S) / STEP_S) * STEP_S
        found: list[DemandSample] = []
        while begin_s < now:
            end_s = min(begin_s + MOST_POINTS * STEP_S, now)
            found += await self._part(pool, begin_s, end_s)
            begin_s = end_s + STEP_S
        return found

    async def wanted(self, pool: str, now: float) -> int | None:
        """The replicas that were wanted last before `now`, by any scaler; None if nobody was heard
        of. Raises SourceError.
        """
        found = await self._query(_wanted(pool), now, now)
        return max((round(value) for value in found.values()), default=None)

    async def wanted_steps(self, pool: str, now: float) -> Sequence[tuple[float, int]]:
        """The numbers that were wanted until `now`, each with its time, oldest first. Raises
        SourceError.
        """
        found = await self._query(_wanted(pool), now - WANTED_BEFORE_S, now, WANTED_STEP_S)
        return [(at_s, round(value)) for at_s, value in sorted(found.items())]

    async def _part(self, pool: str, begin_s: float, end_s: float) -> list[DemandSample]:
        rates = [
            await self._query(f"{name}{{pool={_quoted(pool)}}}", begin_s, end_s)
            for name in (REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS)
        ]
        requests, inputs, outputs = rates
        return [
            DemandSample(
                at_s - STEP_S,  # a rate over the minute that ended then
                STEP_S,
                rate * STEP_S,
                inputs.get(at_s, 0.0) * STEP_S,
                outputs.get(at_s, 0.0) * STEP_S,
            )
            for at_s, rate in sorted(requests.items())
            # Requests without a length would be taken for requests that cost nothing.
            if rate == 0.0 or (at_s in inputs and at_s in outputs)
        ]

    async def _query(
        self, query: str, begin_s: float, end_s: float, step_s: float = STEP_S
    ) -> dict[float, float]:
        asked = {"query": query, "start": begin_s, "end": end_s, "step": f"{step_s:g}s"}
        url = f"{self._url}/api/v1/query_range?{urlencode(asked)}"
        try:
            answer = await fetch.get(url, timeout_s=TIMEOUT_S)
        except fetch.FetchError as error:
            raise SourceError(f"history: {self._url}: {error}") from None
        if answer.status != 200:
            why = _error_of(answer.body)
            raise SourceError(f"history: {self._url} answers {answer.status}{why}")
        try:
            told = msgspec.json.decode(answer.body)
            return _values(told["data"]["result"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"history: {self._url} answers query_range with something else: {error!r}"
            ) from None


def _wanted(pool: str) -> str:
    return f"last_over_time({WANTED}{{pool={_quoted(pool)}}}[{WANTED_BEFORE_S:.0f}s])"


def _error_of(body: bytes) -> str:
    """What Prometheus says is wrong, behind a colon; "" of somebody else's page."""
    try:
        return f": {msgspec.json.decode(body)['error']}"
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""


def _quoted(label: str) -> str:
    return '"' + label.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _values(series: list[dict[str, Any]]) -> dict[float, float]:
    """The values of the one series by time, without those that are no numbers."""
    if len(series) > 1:
        raise ValueError(f"{len(series)} series instead of one")
    found: dict[float, float] = {}
    for at_s, text in series[0]["values"] if series else ():
        value = float(text)
        if math.isfinite(value) and value >= 0.0:
            found[float(at_s)] = value
    return found


class FileHistory:
    """Lines of JSON, one per pool and minute, appended by `keep`; one that is half full becomes its
    older part, which takes no time, and the older part of before goes.
    """

    def __init__(self, path: Path, days: float) -> None:
        self.path = path
        self._days = days
        self._reading = asyncio.Lock()

    async def read(self, pool: str, now: float) -> Sequence[DemandSample]:
        """What it holds of a pool, oldest first, of each minute the line that was written last;
        lines that cannot be read are left out.

        Raises SourceError.
        """
        async with self._reading:  # the file is long, and one pool can wait for another
            try:
                with ExitStack() as opened:
                    # Now, for `keep` may give them other names while they are read.
                    parts = [opened.enter_context(part.open("rb")) for part in parts_of(self.path)]
                    return await asyncio.to_thread(self._read, parts, pool, now)
            except OSError as error:
                why = f"{self.path} cannot be read: {error.strerror}"
                raise SourceError(f"history: {why}") from None

    def _read(self, parts: Sequence[BinaryIO], pool: str, now: float) -> Sequence[DemandSample]:
        since_s = now - self._days * DAY_S
        samples = samples_by_pool(_newest(parts, MAX_FILE_BYTES)).get(pool, ())
        return [each for each in samples if since_s <= each.begins_s < now]

    def keep(self, pool: str, sample: DemandSample) -> None:
        """Append a minute.

        Raises SourceError.
        """
        try:
            line = msgspec.json.encode(_Line(pool, sample)) + b"\n"
            with self.path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read() != b"\n":  # the last one was cut off: that is no part of this
                        line = b"\n" + line
                file.write(line)
                is_long = file.tell() > MAX_FILE_BYTES // 2
            if is_long:
                self.path.replace(older_part(self.path))
        except OSError as error:
            raise SourceError(f"history: {self.path} cannot be written: {error.strerror}") from None


def older_part(path: Path) -> Path:
    """Where the lines are that were written before those in such a file, if there are any."""
    return path.with_name(f"{path.name}.1")


def parts_of(path: Path) -> list[Path]:
    """Such a file and its older part, that first; those that are there. Of one that has just become
    the older part there is no other until the next minute.
    """
    return [part for part in (older_part(path), path) if part.exists()]


def _newest(parts: Sequence[BinaryIO], most_bytes: int) -> list[bytes]:
    """The last lines of files that follow one another, as many as are not longer than that."""
    found: list[bytes] = []
    for file in reversed(parts):
        begin = max(file.seek(0, os.SEEK_END) - most_bytes, 0)
        file.seek(max(begin - 1, 0))
        if begin:
            file.readline()  # the rest of one that began before
        text = file.read()
        most_bytes -= len(text)
        found = text.splitlines() + found
    return found


def samples_by_pool(lines: Iterable[bytes | str]) -> dict[str, list[DemandSample]]:
    """What the lines of such a file say of each pool, oldest first; those that cannot be read are
    left out.
    """
    found: dict[str, dict[float, DemandSample]] = {}
    for line in _read(lines):
        # A clock that was set back tells minutes again: what it says since it was set right holds.
        found.setdefault(line.pool, {})[line.sample.begins_s] = line.sample
    return {
        pool: sorted(samples.values(), key=lambda each: each.begins_s)
        for pool, samples in found.items()
    }


class _Line(msgspec.Struct):
    pool: str
    sample: DemandSample


def _read(lines: Iterable[bytes | str]) -> Iterable[_Line]:
    decoder = msgspec.json.Decoder(_Line)
    for line in lines:
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError:  # cut off by a crash, or somebody else's
            continue
