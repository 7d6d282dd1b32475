"""A monotonic clock that can be set for modules that are imported after `install`.

A compiled module keeps the clock that it was imported with: it cannot be given another one later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

now: Callable[[], float] = time.monotonic


def install() -> None:
    """Put it in the place of `time.monotonic`, for this process."""
    time.monotonic = _read


def _read() -> float:
    return now()
