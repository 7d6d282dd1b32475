"""The bytes of each request: a head that hardly changes, and a body around the prompt's text."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.bench.settings import BenchError, BenchSettings
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.texts import Texts

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_FORCED = b',"ignore_eos":true'
_STREAMED = b',"stream":true,"stream_options":{"include_usage":true}'


class RequestWriter:
    """Writes requests to one endpoint for one model.

    Raises:
        BenchError: `extra_body` is no JSON object.
    """

    def __init__(
        self, settings: BenchSettings, *, host: bytes, base_path: str, model: str, texts: Texts
    ) -> None:
        self._chat = settings.endpoint == "chat"
        self._texts = texts
        self._head = _head(settings, host, base_path)
        self._open = b'{"model":' + msgspec.json.encode(model)
        self._close = b"" if settings.natural_ends else _FORCED
        self._close += _STREAMED if settings.stream else b""
        self._close += extra_members(settings.extra_body) + b"}"

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


def extra_members(text: str) -> bytes:
    """The members of a JSON object as they stand, behind a comma.

    Raises:
        BenchError: the text is no JSON object.
    """
    if not text.strip():
        return b""
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise BenchError(f"--extra-body {text}: not a JSON object") from None
    pairs = (msgspec.json.encode(name) + b":" + bytes(raw) for name, raw in members.items())
    return b"".join(b"," + pair for pair in pairs)


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
