"""What engines may answer that cannot be read, and whether a member holds anything."""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding raises where the bytes are no such JSON, nest too deep to be honest, or have words
that are no UTF-8 in a member that is looked at."""
_NOTHING: Final = frozenset((b"", b"null", b'""', b"[]", b"{}"))


def present(raw: msgspec.Raw) -> bool:
    """Whether a member was given and holds anything: not null, "", [] or {}."""
    return bytes(raw) not in _NOTHING
