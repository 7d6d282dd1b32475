"""Cut one member out of a JSON object and leave every other byte as it was."""

from __future__ import annotations

import re

# All that matters to find a top-level member: strings (so that nothing in them is mistaken for
# structure), brackets and commas. Numbers, literals, colons and white space are stepped over.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
_OPENS = b"{["
_CLOSES = b"}]"


def without_member(payload: bytes, name: bytes) -> bytes:
    """Return the JSON object `payload` without its top-level member `name` and its comma.

    Returns `payload` itself where there is no such member. `payload` must be valid JSON.
    """
    key = b'"' + name + b'"'
    depth = 0
    comma_before = -1
    member_start = -1
    for token in _TOKEN.finditer(payload):
        text = token.group()
        if text in _OPENS:
            depth += 1
        elif depth == 1 and member_start >= 0 and text in b",}":
            return _cut(payload, comma_before, member_start, token.start())
        elif text in _CLOSES:
            depth -= 1
        elif depth == 1 and text == b",":
            comma_before = token.start()
        elif depth == 1 and text == key and _is_key(payload, token.end()):
            member_start = token.start()
    return payload


def _is_key(payload: bytes, end: int) -> bool:
    return payload[end:].lstrip()[:1] == b":"


def _cut(payload: bytes, comma_before: int, start: int, stop: int) -> bytes:
    if comma_before >= 0:
        return payload[:comma_before] + payload[stop:]
    stop += payload[stop : stop + 1] == b","  # the first member takes the comma behind it along
    return payload[:start] + payload[stop:]
