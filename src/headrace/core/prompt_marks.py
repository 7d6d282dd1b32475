"""The marks of a prompt: the hashes by which its beginning is known, and what they stand for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, TypeAlias

from headrace.core.model import COARSE_BLOCKS, FINE_BLOCKS

Mark: TypeAlias = Hashable
"""A hash of 64 bits, for those who only look it up: of an `int` compiled code makes another object
with each look, and objects that are the same are found soonest."""

EVERY_BLOCK: Final = 1 << 60
"""As `fine_blocks`: more blocks than any prompt has."""

_FNV_OFFSET: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_MASK_64: Final = 0xFFFFFFFFFFFFFFFF


def blocks_covered(marks: int, fine_blocks: int = FINE_BLOCKS) -> int:
    """The number of blocks that the first `marks` marks of a chain stand for."""
    return marks if marks <= fine_blocks else fine_blocks + (marks - fine_blocks) * COARSE_BLOCKS


def mix_identity(marks: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The marks of a prompt under the adapter `name`: an adapter's KV is not its base model's.

    FNV-1a, since the built-in hash of a string differs from process to process.
    """
    salt = _FNV_OFFSET
    for byte in name.encode():
        salt = ((salt ^ byte) * _FNV_PRIME) & _MASK_64
    return tuple([mark ^ salt for mark in marks])
