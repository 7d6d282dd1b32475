"""SIGHUP while a program is only starting."""

from __future__ import annotations

import signal
from collections.abc import Callable


def early_hangup() -> Callable[[], bool]:
    """Have SIGHUP end nothing from now on; what tells whether there was one.

    Whoever asks for a reload does not know that this process has only just been started.
    """
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: early.append(number))
    return lambda: bool(early)
