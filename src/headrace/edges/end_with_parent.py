"""Worker processes that end with the process that started them, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """Have this process, one of `multiprocessing`, killed as soon as its parent is gone.

    The pool's own way is to be told by the parent. One that was killed, or ended by a signal that
    it does not handle, tells nothing, and its workers play on or wait for work for ever: forked
    from one another's parent, they keep each other's pipes open.
    """
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_wait, name="end with parent", daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
