"""Reads the recorded answers of engines under tests/fixtures/engines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headrace.core.model import Endpoint

FOLDER = Path(__file__).parents[1] / "fixtures" / "engines"

_ENDPOINTS = {
    "chat": Endpoint.CHAT,
    "completion": Endpoint.COMPLETIONS,
    "embeddings": Endpoint.EMBEDDINGS,
    "messages": Endpoint.MESSAGES,
    "responses": Endpoint.RESPONSES,
}


@dataclass(frozen=True)
class Capture:
    """One recorded answer."""

    dialect: str
    name: str
    status: int
    head: str
    body: bytes

    def __str__(self) -> str:
        return f"{self.dialect}/{self.name}"

    @property
    def streamed(self) -> bool:
        return "text/event-stream" in self.head

    @property
    def endpoint(self) -> Endpoint:
        """Told by the file's name; what was asked is in the request file beside it."""
        first_word = self.name.removeprefix("variant2-").split("-")[0]
        return _ENDPOINTS.get(first_word, Endpoint.CHAT)

    @property
    def events(self) -> list[bytes]:
        """The stream's events. Engines end each with an empty line of two bare newlines."""
        return [event + b"\n\n" for event in self.body.split(b"\n\n") if event.strip()]


def load(dialect: str, name: str) -> Capture:
    raw = (FOLDER / dialect / f"{name}.response.txt").read_bytes()
    head, body = re.split(rb"\r\n\r\n|\n\n", raw, maxsplit=1)
    status = int(head.split()[1])
    return Capture(dialect, name, status, head.decode().lower(), body)


def metrics(dialect: str, name: str) -> bytes:
    return (FOLDER / dialect / f"{name}.txt").read_bytes()


def all_of(dialect: str) -> list[Capture]:
    paths = sorted((FOLDER / dialect).glob("*.response.txt"))
    return [load(dialect, path.name.removesuffix(".response.txt")) for path in paths]
