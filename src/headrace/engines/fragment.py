"""Pieces of events. In a file of its own, since a class of bytes cannot be compiled."""

from __future__ import annotations


class Fragment(bytes):
    """A piece of an event too long to hold: to be relayed unread."""

    __slots__ = ()
