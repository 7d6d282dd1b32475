"""The usual chat request, read in one pass: messages of role and text, and a few plain members.

What is not usual (tools, media, members that only some engines know) is left to `call` and
`prompt`, which read any body; where both read one, they say the same of it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.gateway.chat_body import ChatBody, decode_chat
from headrace.gateway.prompt import SEPARATOR
from headrace.gateway.prompt_blocks import hash_blocks

_LIST: Final = ord("[")
_SEPARATOR: Final = SEPARATOR
_decode: Final = decode_chat


MOST_CHOICES: Final = 16_384
"""vLLM's limit. Who asks for more is refused by the engine."""


UNSET: Final = msgspec.UNSET
"""As a constant: to read it off its module takes as long as a call."""


def choices_of(n: int | None) -> int:
    """How many answers a prompt gets by `n`; 1 where it means nothing."""
    return n if n is not None and 0 < n <= MOST_CHOICES else 1


def max_output_of(chat: ChatBody) -> int | None:
    """The first limit of the answer's length that means anything, in tokens."""
    limit = chat.max_completion_tokens or chat.max_tokens
    if limit is not None and limit > 0:
        return limit
    for other in (chat.max_tokens, chat.max_output_tokens):
        if other is not None and other > 0:
            return other
    return None


def read_usual_chat(body: bytes) -> tuple[ChatBody, int, tuple[int, ...]] | None:
    """Return the body, its prompt's bytes and the prompt's blocks; None if it is not usual."""
    try:
        if not body.isascii():
            body.decode()  # names that are not looked for are not checked otherwise
        chat = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if (
        chat.tools is not UNSET
        or chat.functions is not UNSET
        or chat.cache_salt is not UNSET
        or chat.documents is not UNSET
    ):
        return None
    pieces: list[Any] = []  # what can be joined without being copied before
    for turn in chat.messages:
        content = bytes(turn.content)
        if content[0] == _LIST:
            return None
        pieces += (turn.role, content, _SEPARATOR)
    text = b"".join(pieces)
    return chat, len(text), hash_blocks(text)
