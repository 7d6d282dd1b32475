"""Traces of generated traffic by name."""

from __future__ import annotations

from headrace.traffic.generated import KINDS, taken
from headrace.traffic.trace import Trace


def generate(kind: str, *, requests: int, requests_per_s: float, seed: int) -> Trace:
    """So many requests of a kind (see `KINDS`) in its default shape, at a mean rate.

    Raises:
        ValueError: the kind is not known, or a number is not above 0.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown traffic {kind!r}; known are {', '.join(KINDS)}")
    block_tokens, stream = KINDS[kind]
    return taken(kind, block_tokens, stream(requests_per_s, seed), requests)
