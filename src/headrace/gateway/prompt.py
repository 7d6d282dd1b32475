"""The identity and the size of a prompt, taken from its JSON without understanding it.

Two prompts share a prefix in the engine's KV cache if their templates render the same text from
the start. So what is hashed follows the order of the template (salt, tools, system, messages),
whatever the order of fields in the body. Strings are hashed as they stand in the JSON: clients
that escape differently only miss a hit.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
import xxhash

from headrace.core.model import Endpoint
from headrace.gateway.large_body import Scan, Span, cut
from headrace.gateway.prompt_blocks import hash_blocks

Members = dict[str, msgspec.Raw]
"""A JSON object, its values still the bytes of the body."""

MAX_HASHED_BYTES = 4 * 1024 * 1024
"""Of a longer prompt, what comes after has no identity: some million tokens are enough to tell."""

_EMPTY = msgspec.Raw(b"")
SEPARATOR: Final = b"\x1e"
_TOKEN_BYTES = 4

_decode_objects = msgspec.json.Decoder(list[Members]).decode
_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode

_BEFORE_MESSAGES: dict[Endpoint, tuple[str, ...]] = {
    Endpoint.CHAT: ("cache_salt", "tools", "functions", "documents"),
    Endpoint.MESSAGES: ("cache_salt", "tools", "system"),
    Endpoint.RESPONSES: ("cache_salt", "tools", "instructions"),
    Endpoint.COMPLETIONS: ("cache_salt",),
    Endpoint.EMBEDDINGS: (),
}
_TURNS: dict[Endpoint, str] = {
    Endpoint.CHAT: "messages",
    Endpoint.MESSAGES: "messages",
    Endpoint.RESPONSES: "input",
    Endpoint.COMPLETIONS: "prompt",
    Endpoint.EMBEDDINGS: "input",
}
_INLINE_MEDIA = re.compile(rb'"data:[^"\\]{64,}"|(?<="data":)"[A-Za-z0-9+/=_-]{1024,}"')
_SORTED = frozenset(("tools", "functions", "documents"))


class Prompt(msgspec.Struct, frozen=True):
    """`blocks` are chained hashes as in `Request`; `tokens` is exact or None;
    `prompts` is how many separate prompts a list holds.
    """

    text_bytes: int = 0
    media_items: int = 0
    tokens: int | None = None
    prompts: int = 1
    blocks: tuple[int, ...] = ()


class _Text:
    """Collects what is hashed, and counts what is text."""

    __slots__ = ("media_items", "pieces", "prompts", "tokens")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.media_items = 0
        self.tokens: int | None = None
        self.prompts = 1

    def turns(self, turns: list[Members]) -> None:
        """Messages: role, content, then everything else by name."""
        for turn in turns:
            self.pieces.append(bytes(turn.get("role", _EMPTY)))
            self.content(turn.get("content", _EMPTY))
            for name in sorted(turn.keys() - {"role", "content"}):
                self.pieces.append(name.encode())
                self.canonical(turn[name])
            self.pieces.append(SEPARATOR)

    def content(self, raw: msgspec.Raw) -> None:
        """A string, or a list of parts of which some may be media."""
        data = bytes(raw)
        if not data.startswith(b"["):
            self.pieces.append(data)
            return
        for part in _decode_objects(data):
            text = part.get("text")
            if text is not None:
                self.pieces.append(bytes(text))
            elif _holds_media(part):
                # An image is not text: it counts as an item, and for identity its hash is enough.
                self.media_items += 1
                self.pieces.append(xxhash.xxh3_128_digest(_encode_sorted(part)))
            else:
                self.nested(_encode_sorted({k: _decode_any(v) for k, v in part.items()}))

    def canonical(self, raw: msgspec.Raw) -> None:
        """Any JSON value, independent of the order of its fields."""
        data = bytes(raw)
        self.nested(_encode_sorted(_decode_any(data)) if data[:1] in b"{[" else data)

    def nested(self, data: bytes) -> None:
        """JSON in which media may lie at any depth, as in the results of tools."""

        def digest(found: re.Match[bytes]) -> bytes:
            self.media_items += 1
            return xxhash.xxh3_128_digest(found[0])

        self.pieces.append(_INLINE_MEDIA.sub(digest, data))

    def prompt(self, raw: msgspec.Raw) -> None:
        """`prompt` or `input`: a string, strings, token ids, lists of token ids, or messages."""
        data = bytes(raw)
        if not data.startswith(b"["):
            self.pieces.append(data)
            return
        items = _decode_any(data)
        first = items[0] if items else None
        if isinstance(first, dict):
            self.turns(_decode_objects(data))
        elif isinstance(first, int):
            self.token_ids(items)
        else:
            self.prompts = max(1, len(items))
            for item in items:
                if isinstance(item, str):
                    self.pieces.append(item.encode("utf-8", "surrogatepass"))
                elif isinstance(item, list):
                    self.token_ids(item)
                self.pieces.append(SEPARATOR)

    def token_ids(self, ids: list[object]) -> None:
        """Token ids: their count is exact."""
        self.tokens = (self.tokens or 0) + len(ids)
        mask = 0xFFFFFFFF
        self.pieces.append(
            b"".join(
                (i & mask).to_bytes(_TOKEN_BYTES, "little") if isinstance(i, int) else b"?"
                for i in ids
            )
        )


def _holds_media(part: Members) -> bool:
    kind = bytes(part.get("type", _EMPTY))
    return any(word in kind for word in (b"image", b"audio", b"video", b"file", b"document"))


def read_prompt(endpoint: Endpoint, members: Members) -> Prompt:
    """Return the prompt of a request body.

    Raises `msgspec.DecodeError` (or a subclass) if its messages are not what the API asks for.
    """
    field = _TURNS.get(endpoint)
    if field is None:
        return Prompt()
    text = _Text()
    for name in _BEFORE_MESSAGES[endpoint]:
        raw = members.get(name)
        if raw is not None:
            if name in _SORTED:
                text.canonical(raw)
            else:
                text.content(raw)
            text.pieces.append(SEPARATOR)
    raw = members.get(field)
    if raw is not None:
        if field == "messages":
            text.turns(_decode_objects(raw))
        else:
            text.prompt(raw)
    data = b"".join(text.pieces)
    return Prompt(len(data), text.media_items, text.tokens, text.prompts, hash_blocks(data))


def read_large_prompt(endpoint: Endpoint, pieces: list[bytes], scan: Scan) -> Prompt:
    """Return the prompt of a scanned body.

    Its identity is the JSON as it stands, field order included: a large prompt meets its own
    repetitions and continuations, but not the same text that came in a small body.
    """
    turns = _TURNS.get(endpoint)
    if turns is None:
        return Prompt()
    spans = [scan.members[n] for n in (*_BEFORE_MESSAGES[endpoint], turns) if n in scan.members]
    text_bytes = sum(end - start for start, end in spans) - scan.media_bytes
    room = MAX_HASHED_BYTES
    hashed: list[bytes] = []
    for start, end in spans:
        span: Span = (start, min(end, start + room))
        hashed.append(cut(pieces, span))
        room -= span[1] - start
    blocks = hash_blocks(b"".join(hashed))
    return Prompt(max(0, text_bytes), scan.media_items, None, 1, blocks)
