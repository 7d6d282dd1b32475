"""The shape of a usual chat request, for `usual_chat`."""

from __future__ import annotations

import msgspec


class _Turn(msgspec.Struct, forbid_unknown_fields=True):
    role: msgspec.Raw
    content: msgspec.Raw


class ChatBody(msgspec.Struct):
    """What a usual body says; `usual_chat` takes its fields apart in this order."""

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


decode_chat = msgspec.json.Decoder(ChatBody).decode
"""Raises `msgspec.DecodeError` for a body that is of another shape."""
