"""Cut one member out of a JSON object and leave every other byte as it was."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from headrace.engines.decoding import UNREADABLE

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COLON: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")


def without_member(payload: bytes, name: str) -> bytes:
    """Return the JSON object `payload` without its top-level member `name` and one comma.

    Returns `payload` itself where it is no object or has no such member.
    """
    try:
        members: dict[str, msgspec.Raw] = _MEMBERS.decode(payload)
    except UNREADABLE:
        return payload
    if name not in members:
        return payload
    key = b'"' + name.encode() + b'"'
    value = bytes(members[name])
    at = payload.find(key)
    while at >= 0:
        rest = _cut(payload, at, at + len(key), value)
        if rest is not None and _is_gone(rest, name):
            return rest
        at = payload.find(key, at + 1)  # that was a value, or a member of something inside
    return payload


def _cut(payload: bytes, start: int, key_end: int, value: bytes) -> bytes | None:
    colon = _COLON.match(payload, key_end)
    if colon is None or not payload.startswith(value, colon.end()):
        return None
    before, after = payload[:start], payload[colon.end() + len(value) :]
    if before.rstrip().endswith(b","):
        return before.rstrip()[:-1] + after
    if after.lstrip().startswith(b","):
        return before + after.lstrip()[1:]
    return before + after


def _is_gone(rest: bytes, name: str) -> bool:
    try:
        members: dict[str, msgspec.Raw] = _MEMBERS.decode(rest)
    except UNREADABLE:
        return False
    return name not in members
