"""Chains of blocks as the gateway would hash them."""

from headrace.core.model import COARSE_BLOCKS, FINE_BLOCKS


def marks_of(blocks: tuple[int, ...]) -> tuple[int, ...]:
    """The marks of a prompt of which each block has a hash of its own here."""
    return blocks[:FINE_BLOCKS] + blocks[FINE_BLOCKS + COARSE_BLOCKS - 1 :: COARSE_BLOCKS]
