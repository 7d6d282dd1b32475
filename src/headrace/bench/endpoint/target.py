"""The endpoint that is measured: found, asked for its model, and how prompts are sized for it.

Everything here happens once, before the clock runs.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from headrace.bench.endpoint import remedies
from headrace.bench.endpoint.requests import authorization, extra_members
from headrace.bench.endpoint.sizing import Asker, size_prompts
from headrace.bench.settings import BenchError, BenchSettings
from headrace.core.one_line import in_a_line
from headrace.edges.http.address import Address
from headrace.edges.http.fetch import FetchError, get
from headrace.engines.answers import list_models
from headrace.traffic.texts import Sizing

_TEXT_SEED_BITS = 32


@dataclass(frozen=True, slots=True)
class Target:
    """What worker processes need to know; can be pickled."""

    settings: BenchSettings
    model: str
    """As the endpoint calls it, byte for byte."""
    origin: str
    """`http://host:port`."""
    base_path: str
    """What stands before `/v1`; mostly empty."""
    ip: str
    sizing: Sizing
    text_seed: int = 0
    """Of the prompts' words."""

    @property
    def title(self) -> str:
        """The model's name as people are shown it."""
        return in_a_line(self.model)

    def address(self) -> Address:
        """Where to connect; without TLS no name is looked up any more."""
        address = Address.parse(self.origin)
        return replace(address, host=self.ip)


def reach(settings: BenchSettings) -> Target:
    """Find the endpoint and learn what the run must know of it.

    Raises:
        BenchError: it cannot be reached, or refuses what we would send.
    """
    extra_members(settings.extra_body)
    origin, base_path = _split(settings.url)
    ip = _connectable(settings, origin)
    return asyncio.run(_learn(settings, origin, base_path, ip))


async def _learn(settings: BenchSettings, origin: str, base_path: str, ip: str) -> Target:
    model = settings.model or await _first_model(settings, origin + base_path)
    asker = Asker(settings, origin + base_path, model)
    sizing = await size_prompts(settings, asker)
    text_seed = settings.text_seed
    if text_seed is None:
        text_seed = secrets.randbits(_TEXT_SEED_BITS)
    return Target(settings, model, origin, base_path, ip, sizing, text_seed)


def _split(url: str) -> tuple[str, str]:
    """Origin and base path. Raises BenchError for a URL with a query."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if parts.query or parts.fragment:
        raise BenchError(f"{url}: leave out what stands behind the path; bench would not send it")
    for ending in ("/chat/completions", "/completions", "/v1"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{parts.netloc}", path


def _connectable(settings: BenchSettings, origin: str) -> str:
    """The IP address that answers: the first that does, of a name that has several.

    Under TLS the name stays: it is what the certificate is for.
    """
    try:
        address = Address.parse(origin)
    except (ValueError, UnicodeError) as error:
        raise BenchError(f"{settings.url}: {error}") from None
    if address.tls is not None:
        return address.host
    where = (address.host, address.port)
    try:
        with socket.create_connection(where, timeout=settings.connect_s) as made:
            return str(made.getpeername()[0])
    except OSError as error:
        reason = error.strerror or str(error)
        raise BenchError(f"{settings.url}: cannot connect: {reason}") from None


async def _first_model(settings: BenchSettings, url: str) -> str:
    headers = authorization(settings)
    try:
        answer = await get(f"{url}/v1/models", timeout_s=settings.connect_s, headers=headers)
    except FetchError as error:
        raise BenchError(f"{url}/v1/models: {remedies.of_failure(error)}") from None
    if answer.status != 200:
        raise BenchError(f"{url}/v1/models: {remedies.of_refusal(answer)}")
    try:
        models = list_models(answer.body)
    except ValueError as error:
        raise BenchError(f"{url}: {error}") from None
    if not models:
        raise BenchError(f"{url}/v1/models: lists none; name one with --model")
    return models[0].id
