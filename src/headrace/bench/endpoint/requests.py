"""The bytes of each request: a head that hardly changes, and a body around the prompt's text."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.bench.settings import BenchError, BenchSettings
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.texts import Texts

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_FORCED = {"ignore_eos": b"true"}
_STREAMED = {"stream": b"true", "stream_options": b'{"include_usage":true}'}
_OURS = {
    "model": "--model says it",
    "messages": "--lengths says how long a prompt is",
    "prompt": "--lengths says how long a prompt is",
    "max_tokens": "--lengths says how long an answer is",
    "max_completion_tokens": "--lengths says how long an answer is",
    "stream": "--no-stream says it",
}
"""Members that flags decide, and which: an engine that took the other of two would be measured as
what it is not."""


class RequestWriter:
    """Writes requests to one endpoint for one model.

    Raises:
        BenchError: `extra_body` cannot be used.
    """

    def __init__(
        self, settings: BenchSettings, *, host: bytes, base_path: str, model: str, texts: Texts
    ) -> None:
        self._chat = settings.endpoint == "chat"
        self._texts = texts
        self._head = _head(settings, host, base_path)
        self._open = b'{"model":' + msgspec.json.encode(model)
        close = {} if settings.natural_ends else dict(_FORCED)
        close |= _STREAMED if settings.stream else {}
        close |= extra_members(settings.extra_body)
        pairs = (msgspec.json.encode(name) + b":" + value for name, value in close.items())
        self._close = b"".join(b"," + pair for pair in pairs) + b"}"

    def write(self, planned: PlannedRequest, index: int) -> bytes:
        """The whole request, head and body."""
        shared, own = self._texts.prompt(planned, index)
        if self._chat:
            system = b'{"role":"system","content":"%b"},' % shared if shared else b""
            prompt = b',"messages":[%b{"role":"user","content":"%b"}]' % (system, own)
        else:
            prompt = b',"prompt":"%b%b"' % (shared, own)
        limit = b',"max_tokens":%d' % planned.output_tokens
        body = b"".join((self._open, prompt, limit, self._close))
        tier = b"x-headrace-tier: %b\r\n" % planned.tier.encode() if planned.tier else b""
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (self._head, tier, len(body), body)


def extra_members(text: str) -> dict[str, bytes]:
    """The members of a JSON object, each value as it stands. They replace ours of that name.

    Raises:
        BenchError: the text is no JSON object, or has members that flags decide.
    """
    if not text.strip():
        return {}
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise BenchError(f"--extra-body {text}: not a JSON object") from None
    for name in members:
        if name in _OURS:
            raise BenchError(f"--extra-body: leave out {name!r}: {_OURS[name]}")
    return {name: bytes(raw) for name, raw in members.items()}


def authorization(settings: BenchSettings) -> list[tuple[bytes, bytes]]:
    """The header that says who we are, if we were given a key."""
    if not settings.api_key:
        return []
    return [(b"authorization", f"Bearer {settings.api_key}".encode("latin-1", "replace"))]


def choices_in(extra_body: str) -> int:
    """The answers that each request asks for, by `n`; 1 where it is no number above 0."""
    try:
        n = msgspec.json.decode(extra_body, type=dict[str, Any]).get("n")
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return 1  # `extra_members` says what is wrong
    return n if type(n) is int and n > 0 else 1


def _head(settings: BenchSettings, host: bytes, base_path: str) -> bytes:
    accepts = b"text/event-stream" if settings.stream else b"application/json"
    fields = [
        (b"host", host),
        (b"user-agent", b"headrace-bench"),
        (b"accept", accepts),
        (b"content-type", b"application/json"),
        *authorization(settings),
    ]
    lines = b"".join(b"%b: %b\r\n" % each for each in fields)
    path = base_path + PATHS[settings.endpoint]
    return b"POST %b HTTP/1.1\r\n%b" % (path.encode(), lines)
