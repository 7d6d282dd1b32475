"""The blocks of a prompt: chained hashes, by which equal prefixes are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import xxhash

from headrace.core.model import COARSE_BLOCKS, FINE_BLOCKS, PROMPT_BLOCK_BYTES

_FINE_BYTES: Final = FINE_BLOCKS * PROMPT_BLOCK_BYTES
_COARSE_BYTES: Final = COARSE_BLOCKS * PROMPT_BLOCK_BYTES
_digest: Final[Callable[[bytes, Any], Any]] = xxhash.xxh3_64_intdigest
"""Hashes are `Any` here: a compiled `int` would be made anew for each use."""


def hash_blocks(data: bytes) -> tuple[int, ...]:
    """Return chained xxh3 hashes of `data`, as `Request.blocks` has them: each covers all before.

    They stand for one block each at first and for several later, whole ones only.
    """
    size = len(data)
    chain: Any = 0
    marks: list[Any] = []
    begin, end = 0, PROMPT_BLOCK_BYTES
    while end <= size:
        chain = _digest(data[begin:end], chain)
        marks.append(chain)
        begin = end
        end += PROMPT_BLOCK_BYTES if begin < _FINE_BYTES else _COARSE_BYTES
    return tuple(marks)
