"""The cores of this machine."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many this process may run on: `taskset` and containers allow it fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
