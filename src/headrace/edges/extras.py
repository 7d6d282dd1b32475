"""How to get what is installed only where it is asked for."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """What to type; the environment of a checkout has no pip, and `make` knows what is pinned."""
    return f"`pip install 'headrace[{extra}]'`, in a checkout `make env EXTRAS={extra}`"
