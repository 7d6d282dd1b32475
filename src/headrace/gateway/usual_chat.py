"""The usual chat request, read in one pass: messages of role and text, and a few plain members.

What is not usual (tools, media, members that only some engines know) is left to `call` and
`prompt`, which read any body; where both read one, they say the same of it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.core.message import message
from headrace.gateway.chat_body import decode_chat
from headrace.gateway.prompt import SEPARATOR
from headrace.gateway.prompt_blocks import hash_blocks

_LIST: Final = ord("[")
_SEPARATOR: Final = SEPARATOR
_decode: Final = decode_chat
_members: Final = msgspec.structs.astuple


MOST_CHOICES: Final = 16_384
"""vLLM's limit. Who asks for more is refused by the engine."""


UNSET: Final = msgspec.UNSET
"""As a constant: to read it off its module takes as long as a call."""


def choices_of(n: int | None) -> int:
    """How many answers a prompt gets by `n`; 1 where it means nothing."""
    return n if n is not None and 0 < n <= MOST_CHOICES else 1


@message
class UsualChat:
    """What a usual chat says; `text_bytes` and `blocks` are as in `Request`."""

    model: str
    streamed: bool
    stream_options: msgspec.Raw | None
    """None where there are none."""
    max_output_tokens: int | None
    choices: int
    text_bytes: int
    blocks: tuple[int, ...]


def read_usual_chat(body: bytes) -> UsualChat | None:
    """Read a body; None if it is not usual."""
    try:
        if not body.isascii():
            body.decode()  # names that are not looked for are not checked otherwise
        members = _members(_decode(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    # All at one go: compiled code has to look each of them up by its name.
    model, messages, stream, options, limit, older, newer, n, salt, tools, functions, docs = members
    if not (salt is UNSET and tools is UNSET and functions is UNSET and docs is UNSET):
        return None
    pieces: list[Any] = []  # what can be joined without being copied before
    for turn in messages:
        content = bytes(turn.content)
        if content[0] == _LIST:
            return None
        pieces += (turn.role, content, _SEPARATOR)
    text = b"".join(pieces)
    return UsualChat(
        model,
        stream,
        None if options is UNSET else options,
        _first_limit(limit or older, older, newer),
        choices_of(n),
        len(text),
        hash_blocks(text),
    )


def _first_limit(first: int | None, second: int | None, third: int | None) -> int | None:
    """The first limit of the answer's length that means anything, in tokens."""
    for limit in (first, second, third):
        if limit is not None and limit > 0:
            return limit
    return None
