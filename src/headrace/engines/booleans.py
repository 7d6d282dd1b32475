"""Booleans in requests, as engines read them."""

from __future__ import annotations

from typing import Final

import msgspec

_decode: Final = msgspec.json.Decoder().decode
_WORDS: Final = {
    **dict.fromkeys(("0", "false", "f", "n", "no", "off"), False),
    **dict.fromkeys(("1", "true", "t", "y", "yes", "on"), True),
}


def read_boolean(value: bytes) -> bool | None:
    """A JSON value as pydantic reads a `bool`, and so vLLM, SGLang and TensorRT-LLM: 1, 0.0 and
    "Yes" are some. None where it is none, and for null.

    Source: https://docs.pydantic.dev/latest/api/standard_library_types/#booleans
    """
    try:
        read: object = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(read, str):
        return _WORDS.get(read.lower())
    if isinstance(read, (int, float)) and read in (0, 1):
        return bool(read)
    return None
