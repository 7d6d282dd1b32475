"""What an engine that generates nothing says: a few words over and over, a word a token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, cycle, islice
from typing import NamedTuple

WORDS = (b" the", b" water", b" runs", b" down", b" to", b" a", b" turbine", b" and")

_ENDS = (0, *accumulate(len(word) for word in WORDS))
"""Where each word ends, and where the first begins."""


class Stop(NamedTuple):
    """Where an answer ends by a stop string: so many tokens, of whose text so much is sent."""

    string: str
    tokens: int
    text_bytes: int


def text_of(tokens: int) -> str:
    """So many tokens of an answer."""
    words: Iterable[bytes] = islice(cycle(WORDS), tokens)
    return b"".join(words).decode()


def text_bytes_of(tokens: int) -> int:
    """How long the text of so many tokens is."""
    rounds, rest = divmod(tokens, len(WORDS))
    return rounds * _ENDS[-1] + _ENDS[rest]


def stop_of(strings: Sequence[str], least_tokens: int, most_tokens: int) -> Stop | None:
    """The first of these to appear in an answer, looked for from so many tokens on, as after each
    token; of those that one token completes the first in their order.
    """
    longest = max(map(len, strings), default=0)
    # The words come round and round: what is not in so many of them is in none.
    tokens = min(most_tokens, least_tokens + len(WORDS) + longest)
    text = text_of(tokens)
    before = text_bytes_of(least_tokens)
    found: list[Stop] = []
    for string in strings:
        at = text.find(string, max(before - len(string) + 1, 0))
        if at >= 0:
            end = at + len(string)
            whole = next(n for n in range(1, tokens + 1) if text_bytes_of(n) >= end)
            found.append(Stop(string, whole, at))
    return min(found, key=lambda stop: stop.tokens, default=None)
