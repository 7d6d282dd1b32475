"""One timer that is right to a fraction of a millisecond, without burning CPU for it.

uvloop's timers live on a grid of milliseconds, and may fire one early: at 200 requests a second
that would show in the gaps. Linux has timers that are files (timerfd), which wake the loop within
some 50 µs. Elsewhere the last millisecond is waited for by asking the clock over and over.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from math import inf

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_GRID_S = 0.001
_TINY_S = 1e-6
"""A timerfd set to 0 is off: the earliest time is a microsecond."""


class _TimeSpec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _TimerSpec(ctypes.Structure):
    _fields_ = [("interval", _TimeSpec), ("value", _TimeSpec)]


class Alarm:
    """Calls `ring` once at a time of `time.monotonic`, never before it; set it anew after that."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at_s = 0.0
        self._is_set = False
        self._is_held = False
        self._is_soon = False
        self._handle: asyncio.Handle | None = None
        self._spec = _TimerSpec()
        self._libc, self._file = _open_timer()
        if self._file >= 0:
            loop.add_reader(self._file, self._expired)

    @property
    def at_s(self) -> float:
        """When it will ring; infinite if it is not set."""
        return self._at_s if self._is_set else inf

    def hold(self) -> None:
        """From now on it rings only in `check`: whoever calls that wakes up in time by himself."""
        self._is_held = True

    def release(self) -> None:
        """Ring by itself again."""
        self._is_held = False
        if self._is_set:
            self.set(self._at_s)

    def check(self) -> None:
        """Ring now if it is time."""
        if self._is_set and time.monotonic() >= self._at_s:
            self._is_set = False
            self._ring()

    def soon(self) -> None:
        """Ring in the next turn of the loop, once, in place of what was set before."""
        self._at_s = 0.0
        self._is_set = True
        if not self._is_held and not self._is_soon:
            self._is_soon = True
            self._loop.call_soon(self._check_soon)

    def _check_soon(self) -> None:
        self._is_soon = False
        self.check()

    def set(self, at_s: float) -> None:
        """Ring at `at_s`, in place of what was set before."""
        self._at_s = at_s
        self._is_set = True
        if self._is_held:
            return
        if self._file >= 0:
            at_s = max(at_s, _TINY_S)
            value = self._spec.value
            value.seconds = int(at_s)
            value.nanoseconds = int((at_s - int(at_s)) * 1e9)
            pointer = ctypes.byref(self._spec)
            assert self._libc is not None
            self._libc.timerfd_settime(self._file, _ABSOLUTE, pointer, None)
        else:
            self._wait()

    def close(self) -> None:
        """Never ring again."""
        self._is_set = False
        if self._handle is not None:
            self._handle.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _expired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return  # it was set anew since the loop looked
        if not self._is_set:
            return
        if time.monotonic() < self._at_s:  # the nanoseconds were rounded down
            self.set(self._at_s + _TINY_S)
            return
        self._is_set = False
        self._ring()

    def _wait(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if not self._is_set:
            return
        left_s = self._at_s - time.monotonic()
        if left_s <= 0:
            self._is_set = False
            self._ring()
        elif left_s > 2 * _GRID_S:
            self._handle = self._loop.call_later(left_s - 2 * _GRID_S, self._wait)
        else:
            self._handle = self._loop.call_soon(self._wait)


def _open_timer() -> tuple[ctypes.CDLL | None, int]:
    """The C library and a timer's file; −1 where there is none."""
    if not sys.platform.startswith("linux"):
        return None, -1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return libc, libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
    except (OSError, AttributeError):
        return None, -1
