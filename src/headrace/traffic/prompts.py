"""Prompts as chains of block ids: shared starts, growth, and changes in the middle.

    id of the block at position p = mix(key + (p + 1) · golden)        (63 bits)

`mix` is the finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", 2014), one to one on 64 bits. Each chain draws its key from a generator of its own, so
the chance that any two of n ids collide is about n²/2^64: 1 in 2,000 for 100 million ids.
"""

from __future__ import annotations

from bisect import bisect_right
from copy import copy
from itertools import accumulate
from random import Random

from headrace.traffic.lengths import Lengths

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def block_id(key: int, position: int) -> int:
    """The id of a block, from 0 to 2^63 − 1 so that signed 64-bit integers hold it."""
    value = (key + (position + 1) * _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return (value ^ (value >> 31)) >> 1


class Prompt:
    """A prompt whose text is known only by its blocks; grows at its end and can be rewritten.

    Its blocks get their ids when they are asked for, since of many prompts nobody asks.
    """

    __slots__ = ("_block_tokens", "_ids", "_key", "_keys", "tokens")

    def __init__(self, block_tokens: int, keys: Random) -> None:
        self._block_tokens = block_tokens
        self._keys = keys
        self._key = keys.getrandbits(64)
        self._ids: list[int] = []
        self.tokens = 0

    def grow(self, tokens: int) -> None:
        """Append text that no other prompt has."""
        self.tokens += tokens

    def rewrite_from(self, tokens: int) -> None:
        """Drop everything behind the first `tokens` tokens; what follows is other text."""
        self.tokens = min(self.tokens, tokens)
        del self._numbered()[self.tokens // self._block_tokens :]
        self._key = self._keys.getrandbits(64)

    def branch(self) -> Prompt:
        """A prompt of the same text so far that goes on differently."""
        other = Prompt(self._block_tokens, self._keys)
        other.tokens = self.tokens
        other._ids = self._numbered().copy()
        return other

    def copy(self) -> Prompt:
        """The same prompt, which stays as it is when this one changes."""
        other: Prompt = copy(self)
        other._ids = self._ids.copy()
        return other

    @property
    def blocks(self) -> tuple[int, ...]:
        """The ids of the full blocks."""
        return tuple(self._numbered())

    def _numbered(self) -> list[int]:
        """The ids of what there is, those that are missing added."""
        ids, full = self._ids, self.tokens // self._block_tokens
        if len(ids) < full:
            ids += [block_id(self._key, position) for position in range(len(ids), full)]
        return ids


def drawn_prompts(
    count: int, lengths: Lengths, block_tokens: int, *, keys: Random, rng: Random
) -> list[Prompt]:
    """Prompts that others begin with: system prompts, projects, contexts of agents."""
    prompts = [Prompt(block_tokens, keys) for _ in range(count)]
    for prompt in prompts:
        prompt.grow(lengths.draw(rng))
    return prompts


class Popularity:
    """Picks one of `count` things; the one at rank r has weight 1/(r + 1)^exponent (Zipf)."""

    __slots__ = ("_bounds",)

    def __init__(self, count: int, exponent: float) -> None:
        if count < 1:
            raise ValueError(f"count {count} is not 1 or above")
        self._bounds = list(accumulate((rank + 1) ** -exponent for rank in range(count)))

    def draw(self, rng: Random) -> int:
        """A rank from 0."""
        at = rng.random() * self._bounds[-1]
        return min(bisect_right(self._bounds, at), len(self._bounds) - 1)
