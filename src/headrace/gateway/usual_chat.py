"""The usual chat request, read in one pass: messages of role and text, and a few plain members.

What is not usual (tools, media, members that only some engines know) is left to `call` and
`prompt`, which read any body; where both read one, they say the same of it.
"""

from __future__ import annotations

import msgspec

from headrace.gateway.prompt import SEPARATOR, hash_blocks

_LIST = b"["


MOST_CHOICES = 16_384
"""vLLM's limit. Who asks for more is refused by the engine."""


class _Turn(msgspec.Struct, forbid_unknown_fields=True):
    role: msgspec.Raw
    content: msgspec.Raw


class UsualChat(msgspec.Struct):
    """What a usual body says.

    `text_bytes` and `blocks` are as in `Request`.
    """

    model: str
    messages: list[_Turn]
    stream: bool = False
    stream_options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    # Members that belong to the prompt.
    cache_salt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    functions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    documents: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def max_output(self) -> int | None:
        """The first limit of the answer's length that means anything, in tokens."""
        limit = self.max_completion_tokens or self.max_tokens
        if limit is not None and limit > 0:
            return limit
        for other in (self.max_tokens, self.max_output_tokens):
            if other is not None and other > 0:
                return other
        return None


_decode = msgspec.json.Decoder(UsualChat).decode
_UNSET = msgspec.UNSET


def choices_of(n: int | None) -> int:
    """How many answers a prompt gets by `n`; 1 where it means nothing."""
    return n if n is not None and 0 < n <= MOST_CHOICES else 1


def read_usual_chat(body: bytes) -> tuple[UsualChat, int, tuple[int, ...]] | None:
    """Return the body, its prompt's bytes and the prompt's blocks; None if it is not usual."""
    try:
        if not body.isascii():
            body.decode()  # names that are not looked for are not checked otherwise
        chat = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if (
        chat.tools is not _UNSET
        or chat.functions is not _UNSET
        or chat.cache_salt is not _UNSET
        or chat.documents is not _UNSET
    ):
        return None
    pieces: list[bytes] = []
    for turn in chat.messages:
        content = bytes(turn.content)
        if content.startswith(_LIST):
            return None
        pieces += (bytes(turn.role), content, SEPARATOR)
    text = b"".join(pieces)
    return chat, len(text), hash_blocks(text)
