"""Asks the system to run this process soon after it wakes, as far as that needs no privilege.

A sleep lasts 50 µs longer on Linux than it was asked to, and who wakes while another process
computes waits for the end of that one's time slice, some 3 ms. With a slice of its own that is
shorter, a process that sleeps most of the time comes first (EEVDF, from Linux 6.12 on; before, the
wish is taken and changes nothing). It gets no larger share of the processor for that.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_SLACK_NS = 1000
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
SLICE_NS = 500_000
"""The kernel takes 0.1 ms and more. The shorter it is, the oftener others are interrupted, and the
more a request costs: below half a millisecond there is little to win."""
SCHED_ATTR = struct.Struct("=IIQiIQQQ")
"""size, policy, flags, nice, priority, slice (`sched_runtime`), deadline, period."""


def wake_in_time() -> bool:
    """For the calling thread; whether the system took the wish for a slice.

    Where it knows no such wish, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
    number = _SYS_SCHED_SETATTR.get(platform.machine())
    # Somebody may have given it a better class than ours, such as real time.
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wish = SCHED_ATTR.pack(SCHED_ATTR.size, os.SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    return libc.syscall(number, 0, wish, 0) == 0
