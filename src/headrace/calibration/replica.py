"""The engine to be measured: what it is, what it can hold, whether it is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.core.one_line import in_a_line
from headrace.edges.http import fetch
from headrace.edges.http.address import url_at
from headrace.edges.http.heads import Header
from headrace.engines.dialect import Dialect
from headrace.engines.reading import Answers, EngineReading, ListedModel
from headrace.engines.registry import detect, dialect

_TIMEOUT_S = 5.0
_PATHS = ("/metrics", "/prometheus/metrics", "/slots", "/v1/models", "/version", "/props")


class CalibrationError(Exception):
    """The engine cannot be measured, or not now; the message says why and what to do."""


class _Version(msgspec.Struct):
    version: str = ""
    build_info: str = ""


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine as it tells of itself. None where it does not."""

    url: str
    model: str
    """As the engine calls it, byte for byte."""
    dialect: Dialect
    version: str = ""
    max_context_tokens: int | None = None
    kv_capacity_tokens: int | None = None
    kv_block_tokens: int | None = None
    max_sequences: int | None = None
    headers: tuple[Header, ...] = field(default=(), repr=False)

    @property
    def title(self) -> str:
        """The model's name as people are shown it."""
        return in_a_line(self.model)

    async def reading(self) -> EngineReading:
        """What its metrics say now; an empty reading if it has none."""
        answers = await _answers(self.url, self.dialect.metrics_paths, self.headers)
        return self.dialect.read(answers)

    async def check_idle(self) -> EngineReading:
        """Raise CalibrationError if others use it now."""
        reading = await self.reading()
        running, waiting = reading.running or 0.0, reading.queue_depth or 0.0
        if running + waiting > 0:
            raise CalibrationError(
                f"{self.url} is not idle: {running:.0f} requests run and {waiting:.0f} wait; take "
                "the replica out of the gateway and wait until it has finished"
            )
        return reading


async def identify(url: str, model: str | None, api_key: str | None) -> Replica:
    """Ask an engine what it is.

    Raises:
        CalibrationError: it does not answer, or does not serve `model`.
    """
    headers: tuple[Header, ...] = ()
    if api_key is not None:
        headers = ((b"authorization", b"Bearer " + api_key.encode()),)
    answers = await _answers(url, _PATHS, headers)
    if not answers:
        reason = await _reason(url, headers)
        raise CalibrationError(f"{url} does not answer: {reason}; is the engine running there?")
    spoken = dialect(detect(answers))
    listed = _listed(url, spoken, answers, model)
    reading = spoken.read(answers)
    version = _version(answers)
    return Replica(
        url,
        listed.id,
        spoken,
        version,
        max_context_tokens=listed.max_context_tokens,
        kv_capacity_tokens=_whole(reading.kv_capacity_tokens),
        kv_block_tokens=_whole(reading.block_size_tokens),
        max_sequences=_whole(reading.max_sequences),
        headers=headers,
    )


def _listed(url: str, spoken: Dialect, answers: Answers, model: str | None) -> ListedModel:
    status, body = answers.get("/v1/models", (0, b""))
    if status != 200:
        hint = "; give its key with --api-key-env" if status in {401, 403} else ""
        raise CalibrationError(f"{url}: /v1/models answers {status or 'nothing'}{hint}")
    try:
        models = spoken.models(body)
    except ValueError as error:
        raise CalibrationError(f"{url}: {error}") from None
    bases = [each for each in models if each.parent is None]
    if model is None:
        if len(bases) != 1:
            raise CalibrationError(f"{url} serves {_names(bases)}: name one with --model")
        return bases[0]
    for each in models:
        if model == each.id or model in each.aliases:
            return each
    raise CalibrationError(f"--model: {url} does not serve {model!r} but {_names(models)}")


def _names(models: Sequence[ListedModel]) -> str:
    return in_a_line(", ".join(each.id for each in models)) or "none"


def _version(answers: Answers) -> str:
    for path in ("/version", "/props"):
        status, body = answers.get(path, (0, b""))
        if status != 200:
            continue
        try:
            told = msgspec.json.decode(body, type=_Version)
        except msgspec.DecodeError:
            continue
        if told.version or told.build_info:
            return in_a_line(told.version or told.build_info)
    return ""


async def _answers(url: str, paths: Iterable[str], headers: tuple[Header, ...]) -> Answers:
    wanted = tuple(paths)
    results = await asyncio.gather(*(_get(url, path, headers) for path in wanted))
    return {
        path: (result.status, result.body)
        for path, result in zip(wanted, results, strict=True)
        if result is not None
    }


async def _reason(url: str, headers: tuple[Header, ...]) -> str:
    """Why an engine that answers nothing does not: a certificate and a silence are not alike."""
    try:
        await fetch.get(url_at(url, "/v1/models"), timeout_s=_TIMEOUT_S, headers=headers)
    except fetch.FetchError as error:
        return in_a_line(str(error))
    return "it began to just now"


async def _get(url: str, path: str, headers: tuple[Header, ...]) -> fetch.FetchResult | None:
    try:
        return await fetch.get(url_at(url, path), timeout_s=_TIMEOUT_S, headers=headers)
    except fetch.FetchError:
        return None


def _whole(number: float | None) -> int | None:
    return None if not number or number < 1 else int(number)
