"""Standard streams that whoever started us has closed (`headrace check FILE >&-`)."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Have what is closed lead nowhere, as if it were /dev/null.

    Python has None in place of such a stream. Nor may its number stay free: the next socket or
    file would get it, and what a library or a child writes to its stderr would go there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if not _is_closed(number):
            continue
        opened = os.open(os.devnull, os.O_RDWR)  # those before it are open, so it gets this number
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
