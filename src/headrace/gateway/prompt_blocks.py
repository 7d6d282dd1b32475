"""The blocks of a prompt: chained hashes, by which equal prefixes are known."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import xxhash

from headrace.core.model import COARSE_BLOCKS, FINE_BLOCKS, PROMPT_BLOCK_BYTES

_FINE_BYTES: Final = FINE_BLOCKS * PROMPT_BLOCK_BYTES
_COARSE_BYTES: Final = COARSE_BLOCKS * PROMPT_BLOCK_BYTES
_digest: Final[Callable[[bytes, Any], Any]] = xxhash.xxh3_64_intdigest
"""Hashes are `Any` here: a compiled `int` would be made anew for each use."""
_each_fine: Final = struct.Struct(f"{PROMPT_BLOCK_BYTES}s").iter_unpack
_each_coarse: Final = struct.Struct(f"{_COARSE_BYTES}s").iter_unpack


def hash_blocks(data: bytes) -> tuple[int, ...]:
    """Return chained xxh3 hashes of `data`, as `Request.blocks` has them: each covers all before.

    They stand for one block each at first and for several later, whole ones only.
    """
    size = len(data)
    chain: Any = 0
    fine = size - size % PROMPT_BLOCK_BYTES if size < _FINE_BYTES else _FINE_BYTES
    marks = [chain := _digest(block, chain) for (block,) in _each_fine(data[:fine])]
    if size - fine >= _COARSE_BYTES:
        coarse = size - (size - fine) % _COARSE_BYTES
        marks += [chain := _digest(block, chain) for (block,) in _each_coarse(data[fine:coarse])]
    return tuple(marks)
